//! TLS of a listener: the handshake, and a certificate that is replaced while the process runs.
//!
//! The files of the certificate and its key are read again every half minute and on SIGHUP. A changed pair serves new
//! connections, and open ones go on; a pair that cannot be used is one line in the log, and the old one stays. HTTP/1.1
//! alone is offered. Never here: settings, and the content of connections.

mod pair;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::pair::{Files, Mark};
use crate::metrics::METRICS;

pub use self::pair::TlsError;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A handshake that takes longer is given up, as incomplete headers are.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The only protocol that clients may choose.
const PROTOCOL: &[u8] = b"http/1.1";

/// The TLS of one listener.
pub struct Tls {
    files: Files,
    provider: Arc<CryptoProvider>,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    /// The mark of the files at the last look.
    seen: Mutex<Mark>,
}

/// The result of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Unchanged,
    /// New connections have the changed certificate.
    Loaded,
    /// The changed files cannot be used; the certificate stays.
    Refused,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl Tls {
    /// Read the certificate and the key of a listener: `http` or `admin`, whose settings an error names.
    pub fn load(listener: &'static str, cert: &Path, key: &Path) -> Result<Tls, TlsError> {
        let files = Files::new(listener, cert, key);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let contents = files.read();
        let seen = Mutex::new(contents.mark());
        let pair = contents.pair(&files, &provider)?;
        pair.tell(&files);
        let current = Arc::new(Current(RwLock::new(pair.key)));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Tls { files, provider, acceptor, current, seen })
    }

    /// Shake hands with a client, within the time that its headers may take.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long")),
        }
    }

    /// Look at the files, and use a changed pair for new connections.
    pub fn look(&self) -> Look {
        let mut seen = self.seen.lock();
        let contents = self.files.read();
        let found = contents.mark();
        if found == *seen {
            return Look::Unchanged;
        }
        // A pair that cannot be used is told once.
        *seen = found;
        let listener = self.files.listener;
        match contents.pair(&self.files, &self.provider) {
            Ok(pair) => {
                tracing::info!(listener, ends = pair.end(), "certificate changed: new connections use it");
                pair.tell(&self.files);
                *self.current.0.write() = pair.key;
                METRICS.tls.loaded(listener);
                Look::Loaded
            }
            Err(error) => {
                tracing::error!(%error, "changed certificate refused: the old one stays; mend the files");
                METRICS.tls.refused(listener);
                Look::Refused
            }
        }
    }

    /// Look at the files from time to time and on SIGHUP, for ever.
    pub async fn keep_current(self: Arc<Tls>) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP not heard: certificates are read every 30s"))
            .ok();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = arrives(&mut hangup) => {}
            }
            let tls = self.clone();
            // Reading a file of a network may block. A panic is reported by the panic hook.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }
}

/// Wait for a signal; for ever where it cannot be heard.
async fn arrives(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}
