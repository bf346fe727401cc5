//! Certificates for the tests of TLS.
#![allow(dead_code, missing_docs, unreachable_pub)]

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A throw-away certificate authority, and what it signed, as files.
pub struct Authority(tempfile::TempDir);

impl Authority {
    /// For servers on localhost.
    pub fn new() -> Self {
        Self::of("localhost")
    }

    /// For servers of this name.
    pub fn of(host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "streamgauge test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        for (name, usage) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages.push(usage);
            let key = KeyPair::generate().unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
                .unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(dir)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A second listener, with TLS.
    pub fn listener(&self, port: u16) -> String {
        let (ca, cert, key) = (self.file("ca.pem"), self.file("server.pem"), self.file("server.key"));
        format!("allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {ca}\ncertfile {cert}\nkeyfile {key}")
    }
}
