//! How to reach a broker, as the pipeline file says it.

use crate::component::{Fault, Name, Secret, Settings};
use crate::flow::time::Span;

/// The shortest keep-alive: the MQTT 5 client takes no shorter one.
const KEEP_ALIVE_MIN: Span = Span::from_secs(5);
/// The longest keep-alive: it is sent as 16 bits of seconds.
const KEEP_ALIVE_MAX: Span = Span::from_secs(65_535);

/// What runs below MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Encrypted.
    pub tls: bool,
    /// In a websocket.
    pub websocket: bool,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What runs below MQTT.
    pub scheme: Scheme,
    /// Name or address of the host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The whole URL, with the port.
    pub url: String,
}

impl Address {
    /// Reads a URL.
    pub fn read(url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`url`: {why}; write it like \"mqtt://host:1883\"");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("there is no `://`"))?;
        let (tls, websocket, port) = match scheme {
            "mqtt" => (false, false, 1883),
            "mqtts" => (true, false, 8883),
            "ws" => (false, true, 80),
            "wss" => (true, true, 443),
            _ => return Err(format!("`url`: expected mqtt, mqtts, ws or wss, got `{scheme}`")),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("`url`: a user stands in `username` and `password`, not in the address".to_owned());
        }
        if !websocket && !matches!(path, "" | "/") {
            return Err(wrong("only websockets have a path"));
        }
        let after_host = authority.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_host..].rfind(':') {
            Some(colon) => {
                let digits = &authority[after_host + colon + 1..];
                let port = digits.parse::<u16>().ok().filter(|port| *port > 0);
                (&authority[..after_host + colon], port.ok_or_else(|| wrong(&format!("`{digits}` is no port")))?)
            }
            None => (authority, port),
        };
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(wrong("the host is missing"));
        }
        let url = format!("{scheme}://{host}:{port}{path}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { scheme: Scheme { tls, websocket }, host, port, url })
    }
}

/// How to reach a broker.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it is.
    pub address: Address,
    /// MQTT 5, else 3.1.1.
    pub v5: bool,
    /// The name by which the broker knows the session.
    pub client_id: Option<String>,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// File of certificates to trust instead of the system's.
    pub ca: Option<String>,
    /// Files of our own certificate and its key.
    pub identity: Option<(String, String)>,
    /// How often silence is probed.
    pub keep_alive: Span,
}

impl Connection {
    /// Takes its settings out. `None` where there are faults, which are noted.
    pub fn read(settings: &mut Settings) -> Option<Self> {
        let before = settings.faults_len();
        let at = settings.at.clone();
        let address = settings
            .required::<Name>("url")
            .and_then(|url| Address::read(&url.text).map_err(|why| settings.fault(url.fault(why))).ok());
        let v5 = match settings.or("protocol", 5_u64) {
            5 => true,
            4 => false,
            other => {
                let what = format!("`protocol`: expected 5 (MQTT 5) or 4 (MQTT 3.1.1), got {other}");
                settings.fault(Fault::new(at.clone(), what));
                true
            }
        };
        let client_id = settings.optional::<String>("client_id");
        if client_id.as_deref() == Some("") {
            settings.fault(Fault::new(at.clone(), "`client_id`: expected a name, got an empty one"));
        }
        let login = match (settings.optional::<String>("username"), settings.optional::<Secret>("password")) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => {
                settings.fault(Fault::new(at.clone(), "`username` and `password` go together: one is missing"));
                None
            }
        };
        let ca = settings.optional::<String>("ca");
        let identity = match (settings.optional::<String>("cert"), settings.optional::<String>("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                settings.fault(Fault::new(at.clone(), "`cert` and `key` go together: one is missing"));
                None
            }
        };
        if address.as_ref().is_some_and(|a| !a.scheme.tls) && (ca.is_some() || identity.is_some()) {
            let what = "`ca`, `cert` and `key` are for TLS: the url must begin with mqtts:// or wss://";
            settings.fault(Fault::new(at.clone(), what));
        }
        let keep_alive = settings.or("keep_alive", Span::from_secs(30));
        if !(KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX).contains(&keep_alive) {
            let what = format!("`keep_alive`: expected {KEEP_ALIVE_MIN} to {KEEP_ALIVE_MAX}, got {keep_alive}");
            settings.fault(Fault::new(at, what));
        }
        (settings.faults_len() == before).then_some(())?;
        Some(Self { address: address?, v5, client_id, login, ca, identity, keep_alive })
    }

    /// One line, without secrets.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.address.url, if self.v5 { "MQTT 5" } else { "MQTT 3.1.1" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_default_ports() {
        for (url, host, port) in [
            ("mqtt://h", "h", 1883),
            ("mqtts://h", "h", 8883),
            ("ws://h/mqtt", "h", 80),
            ("wss://h:9001/mqtt", "h", 9001),
            ("mqtt://[::1]:7", "::1", 7),
            ("mqtt://[::1]", "::1", 1883),
        ] {
            let address = Address::read(url).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{url}");
        }
        for wrong in ["h:1883", "http://h", "mqtt://", "mqtt://h:0", "mqtt://h:70000", "mqtt://u:p@h", "mqtt://h/x"] {
            assert!(Address::read(wrong).is_err(), "{wrong}");
        }
    }
}
