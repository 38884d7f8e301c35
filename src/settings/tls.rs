//! The files of TLS: certificate and key of a listener, and certificate authorities that a client trusts besides
//! those of the system. Never here: connections.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{AdminSettings, BrokerSettings, GraphSettings, HttpSettings, Settings, SettingsError};

/// The PEM files of a listener that speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFiles<'a> {
    pub cert: &'a Path,
    pub key: &'a Path,
}

impl<'a> TlsFiles<'a> {
    fn of(cert: &'a Path, key: &'a Path) -> Option<TlsFiles<'a>> {
        (is_set(cert) && is_set(key)).then_some(TlsFiles { cert, key })
    }
}

impl HttpSettings {
    /// Return the files of `http.tls_cert` and `http.tls_key`, if the listener speaks TLS.
    pub fn tls(&self) -> Option<TlsFiles<'_>> {
        TlsFiles::of(&self.tls_cert, &self.tls_key)
    }
}

impl AdminSettings {
    /// Return the files of `admin.tls_cert` and `admin.tls_key`, if the listener speaks TLS.
    pub fn tls(&self) -> Option<TlsFiles<'_>> {
        TlsFiles::of(&self.tls_cert, &self.tls_key)
    }
}

impl BrokerSettings {
    /// Read `broker.ca_file`, if one is set.
    pub fn authorities(&self) -> Result<Option<String>, SettingsError> {
        of_setting("broker.ca_file", &self.ca_file)
    }
}

impl GraphSettings {
    /// Read `graph.ca_file`, if one is set.
    pub fn authorities(&self) -> Result<Option<String>, SettingsError> {
        of_setting("graph.ca_file", &self.ca_file)
    }
}

impl Settings {
    /// Whether a listener speaks TLS.
    pub fn has_certificates(&self) -> bool {
        self.http.tls().is_some() || self.admin.tls().is_some()
    }

    /// Check that a listener has both files or neither.
    pub(super) fn check_tls(&self) -> Result<(), SettingsError> {
        for (section, cert, key) in [
            ("http", &self.http.tls_cert, &self.http.tls_key),
            ("admin", &self.admin.tls_cert, &self.admin.tls_key),
        ] {
            let (given, missing) = match (is_set(cert), is_set(key)) {
                (true, false) => ("tls_cert", "tls_key"),
                (false, true) => ("tls_key", "tls_cert"),
                _ => continue,
            };
            let demand = format_args!("needs {section}.{missing} beside it; set both, or neither");
            return Err(SettingsError::of(&format!("{section}.{given}"), demand));
        }
        if self.admin.tls().is_some() && self.admin.listen.tcp().is_none() {
            let demand = "a Unix socket has no TLS; leave admin.tls_cert and admin.tls_key out";
            return Err(SettingsError::of("admin.tls_cert", demand));
        }
        Ok(())
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn of_setting(key: &str, path: &Path) -> Result<Option<String>, SettingsError> {
    if !is_set(path) {
        return Ok(None);
    }
    let read = authorities(path).map(Some);
    read.map_err(|reason| SettingsError::of(key, format_args!("{}: {reason}", path.display())))
}

/// Read a file of certificate authorities, and return its PEM text: it holds one at least, and each can be used.
/// The error gives the reason alone.
pub fn authorities(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Bundles name their authorities in comments, in any encoding.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut usable = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|_| "is no PEM file of certificates".to_owned())?;
        usable
            .add(certificate)
            .map_err(|error| format!("holds a certificate that is no authority: {error}"))?;
    }
    if usable.is_empty() {
        return Err("holds no certificate; name a PEM file".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_a_certificate_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for (text, reason) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is no PEM file"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "that is no authority"),
        ] {
            std::fs::write(file.path(), text).expect("the file can be written");
            let refused = of_setting("broker.ca_file", file.path()).expect_err("it is refused").to_string();
            let begin = format!("setting broker.ca_file: {}: ", file.path().display());
            assert!(refused.starts_with(&begin) && refused.contains(reason), "{refused}");
        }
        assert_eq!(of_setting("broker.ca_file", Path::new("")).expect("none is right"), None);
    }
}
