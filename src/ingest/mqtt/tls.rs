//! TLS for MQTT. It always verifies the broker; there is no switch to turn that off.

use std::error::Error;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::ingest::mqtt::settings::Connection;

/// The client's side of TLS. Errors say which file or store is to blame.
pub fn config(connection: &Connection) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let trusted = match &connection.ca {
        Some(path) => certificates("ca", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(trusted);
    if roots.is_empty() {
        return Err(match &connection.ca {
            Some(path) => format!("`ca`: no usable certificate in `{path}`"),
            None => "the system has no trusted certificates; set `ca`".to_owned(),
        });
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|why| format!("could not set up TLS: {why}"))?
        .with_root_certificates(roots);
    let config = match &connection.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("cert", cert)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|why| format!("`key`: could not read a private key from `{key}`: {why}"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|why| format!("`cert` `{cert}` and `key` `{key}` do not fit: {why}"))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why| format!("`{setting}`: could not read certificates from `{path}`: {why}");
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(format!("`{setting}`: there is no certificate in `{path}`")) } else { Ok(found) }
}

/// Whether an error comes from certificates, which no retry will change; says which.
pub fn certificate_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let rustls = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(why) = rustls {
            return is_certificate(why).then(|| why.to_string());
        }
        next = error.source();
    }
    None
}

fn is_certificate(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => true,
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
        ),
        _ => false,
    }
}
