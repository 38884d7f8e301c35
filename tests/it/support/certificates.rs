//! A certificate authority for tests, and files of the certificates that it issues.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::RootCertStore;

/// An authority that nobody trusts unless told to.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

/// The files of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no name is right");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Names differ: a client that trusts one authority would else try the key of the other.
        let name = format!("authority {}", uuid::Uuid::now_v7().simple());
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.self_signed(&key).expect("it can be signed");
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Write the authority's certificate, for clients.
    pub fn file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        fs::write(&path, self.certificate.pem()).expect("the folder can be written");
        path
    }

    /// Return the authority for a client of rustls.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("it is an authority");
        roots
    }

    /// Return the authority's certificate for a client of HTTP.
    pub fn for_client(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_pem(self.certificate.pem().as_bytes()).expect("it is PEM")
    }

    /// Issue a certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(Self::params(names))
    }

    /// Issue a certificate that has ended.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let mut params = Self::params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params)
    }

    fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("they are names or addresses");
        params.distinguished_name.push(DnType::CommonName, "a server of a test");
        params
    }

    fn sign(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can be signed");
        Issued { cert: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Issued {
    /// Write both files, over earlier ones of the same folder.
    pub fn files(&self, folder: &Path) -> Files {
        let files = Files { cert: folder.join("tls.crt"), key: folder.join("tls.key") };
        fs::write(&files.cert, &self.cert).expect("the folder can be written");
        fs::write(&files.key, &self.key).expect("the folder can be written");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        files
    }
}
