//! How to reach a broker, as the pipeline file says it.

use std::ops::Range;

use crate::component::{Fault, Name, Node, Secret, Setting, Settings};
use crate::flow::time::Span;

/// The shortest keep-alive: the MQTT 5 client takes no shorter one.
const KEEP_ALIVE_MIN: Span = Span::from_secs(5);
/// The longest keep-alive: it is sent as 16 bits of seconds.
const KEEP_ALIVE_MAX: Span = Span::from_secs(65_535);

/// A setting and the place of its value, for settings that must make sense as well.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Range<usize>,
}

impl<T: Setting> Setting for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn read(node: &Node) -> Result<Self, Option<String>> {
        T::read(node).map(|value| Self { value, at: node.at.clone() })
    }
}

/// A setting with a default. Where the value makes no sense, says so at its place and gives the default.
pub fn sensible<T: Setting>(
    settings: &mut Settings,
    key: &'static str,
    default: T,
    wrong: impl FnOnce(&T) -> Option<String>,
) -> T {
    let Some(At { value, at }) = settings.optional::<At<T>>(key) else { return default };
    match wrong(&value) {
        None => value,
        Some(why) => {
            settings.fault(Fault::new(at, format!("`{key}`: {why}")));
            default
        }
    }
}

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
    /// The name by which the broker knows the session; `streamgauge-PIPELINE-COMPONENT` if there is none.
    ///
    /// A session that the broker keeps also keeps its filters. What the pipeline file no longer names among
    /// `topics` goes on arriving (and counts as dead letters where no topic pattern fits), because without stored
    /// state nobody knows which filters there once were. After taking a topic out, connect once with
    /// `clean_start = true`, or set another `client_id`; what the old session held back is lost either way.
    pub client_id: Option<String>,
    /// User and password; an empty password is not sent.
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
        let v5 = sensible(settings, "protocol", 5_u64, |version| {
            let known = matches!(version, 4 | 5);
            (!known).then(|| format!("expected 5 (MQTT 5) or 4 (MQTT 3.1.1), got {version}"))
        }) == 5;
        let client_id = settings.optional::<Name>("client_id");
        if let Some(empty) = client_id.as_ref().filter(|id| id.text.is_empty()) {
            settings.fault(empty.fault("`client_id`: expected a name, got an empty one"));
        }
        let login = login(settings);
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
        let keep_alive = sensible(settings, "keep_alive", Span::from_secs(30), |span| {
            let fits = (KEEP_ALIVE_MIN..=KEEP_ALIVE_MAX).contains(span);
            (!fits).then(|| format!("expected {KEEP_ALIVE_MIN} to {KEEP_ALIVE_MAX}, got {span}"))
        });
        (settings.faults_len() == before).then_some(())?;
        let client_id = client_id.map(|id| id.text);
        Some(Self { address: address?, v5, client_id, login, ca, identity, keep_alive })
    }

    /// One line, without secrets.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.address.url, if self.v5 { "MQTT 5" } else { "MQTT 3.1.1" })
    }
}

/// `username`, with or without `password`.
fn login(settings: &mut Settings) -> Option<(String, Secret)> {
    let named = settings.has("username");
    let user = settings.optional::<Name>("username");
    let password = settings.optional::<At<Secret>>("password");
    match (user, password) {
        (Some(user), _) if user.text.is_empty() => {
            settings.fault(user.fault("`username`: expected a name, got an empty one"));
            None
        }
        (Some(user), Some(password)) => Some((user.text, password.value)),
        (Some(user), None) => Some((user.text, Secret::new(""))),
        (None, Some(password)) if !named => {
            settings.fault(Fault::new(password.at, "`password` needs a `username`, which is missing"));
            None
        }
        (None, _) => None,
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
