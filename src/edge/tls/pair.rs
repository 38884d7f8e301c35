//! A certificate and its key, as read from two PEM files. An error never repeats the content of a file.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use time::OffsetDateTime;

use crate::metrics::METRICS;
use crate::text::timestamp;

/// Permissions that others than the owner have.
const OTHERS: u32 = 0o077;

const CERT: &str = "tls_cert";
const KEY: &str = "tls_key";

/// A pair of files that cannot be used: one line that names the setting and the file.
#[derive(Debug, thiserror::Error)]
#[error("setting {key}: {reason}")]
pub struct TlsError {
    key: String,
    reason: String,
}

/// The files of a listener.
pub(super) struct Files {
    pub(super) listener: &'static str,
    cert: PathBuf,
    key: PathBuf,
}

/// The contents of the files at one moment.
pub(super) struct Contents {
    cert: io::Result<Vec<u8>>,
    key: io::Result<Vec<u8>>,
}

/// The mark of contents, by which a change is noticed: a hash of each file, or the kind of the error that reading gave.
#[derive(PartialEq, Eq)]
pub(super) struct Mark([Result<Vec<u8>, io::ErrorKind>; 2]);

/// A certificate with its key.
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// The end of the certificate; `None` where it cannot be read.
    ends: Option<OffsetDateTime>,
}

impl Files {
    pub(super) fn new(listener: &'static str, cert: &Path, key: &Path) -> Files {
        Files { listener, cert: cert.to_owned(), key: key.to_owned() }
    }

    pub(super) fn read(&self) -> Contents {
        Contents { cert: fs::read(&self.cert), key: fs::read(&self.key) }
    }

    /// Return the error of a file, by the name of its setting in the listener's section.
    fn wrong(&self, name: &str, reason: impl fmt::Display) -> TlsError {
        let path = if name == CERT { &self.cert } else { &self.key };
        TlsError { key: format!("{}.{name}", self.listener), reason: format!("{}: {reason}", path.display()) }
    }
}

impl Contents {
    pub(super) fn mark(&self) -> Mark {
        Mark([&self.cert, &self.key].map(|content| match content {
            Ok(bytes) => Ok(digest(&SHA256, bytes).as_ref().to_vec()),
            Err(error) => Err(error.kind()),
        }))
    }

    /// Make a pair of the contents.
    pub(super) fn pair(self, files: &Files, provider: &CryptoProvider) -> Result<Pair, TlsError> {
        let unreadable =
            |name: &str, error: io::Error| files.wrong(name, format_args!("cannot be read: {error}"));
        let cert = self.cert.map_err(|error| unreadable(CERT, error))?;
        let key = self.key.map_err(|error| unreadable(KEY, error))?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&cert)
            .collect::<Result<_, _>>()
            .map_err(|_| files.wrong(CERT, "is no PEM file of certificates"))?;
        let Some(own) = chain.first() else {
            return Err(files.wrong(CERT, "holds no certificate; name a PEM file"));
        };
        let ends = x509_parser::parse_x509_certificate(own)
            .ok()
            .map(|(_, certificate)| certificate.validity().not_after.to_datetime());
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
            files.wrong(KEY, "holds no private key; name a PEM file whose key is not encrypted")
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                files.wrong(KEY, format_args!("is not the key of {}", files.cert.display()))
            }
            // The library's message may say more of the key than the log should hold.
            Error::General(_) => files.wrong(KEY, "holds a key of a kind that cannot be used"),
            error => files.wrong(CERT, format_args!("cannot be used: {error}")),
        })?;
        Ok(Pair { key: Arc::new(key), ends })
    }
}

impl Pair {
    /// Tell what is odd about a pair that is used from now on, and when it ends.
    pub(super) fn tell(&self, files: &Files) {
        let (listener, cert, key) = (files.listener, files.cert.display(), files.key.display());
        if let Ok(metadata) = fs::metadata(&files.key)
            && metadata.permissions().mode() & OTHERS != 0
        {
            let mode = format!("{:04o}", metadata.permissions().mode() & 0o7777);
            tracing::warn!(listener, %key, mode, "key file open to others: chmod 600");
        }
        let Some(ends) = self.ends else { return };
        METRICS.tls.ends(listener, ends.unix_timestamp());
        if ends <= OffsetDateTime::now_utc() {
            let ends = timestamp(ends);
            tracing::warn!(listener, %cert, ends, "certificate expired: clients refuse it; renew it");
        }
    }

    /// Return the end of the certificate for the log.
    pub(super) fn end(&self) -> String {
        self.ends.map_or_else(|| "unknown".to_owned(), timestamp)
    }
}
