//! A host that speaks TLS in the place of a server: it shakes hands, and passes the bytes on in plain text.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meta_dispatch::edge::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::certificates::Files;

/// How a client asks for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// With the first byte.
    Tls,
    /// With PostgreSQL's SSLRequest, which is agreed to.
    Postgres,
}

/// The server behind the handshake.
#[derive(Debug, Clone)]
pub enum Behind {
    /// None: the connection is closed.
    Nothing,
    /// This answer to whatever is sent.
    Answer(&'static str),
    /// A server in plain text, at this host and port.
    Server(String),
}

pub struct TlsHost {
    pub address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl TlsHost {
    pub async fn start(files: &Files, opening: Opening, behind: Behind) -> TlsHost {
        let tls = Arc::new(Tls::load("http", &files.cert, &files.key).expect("the pair can be used"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let handshakes = Arc::new(AtomicUsize::new(0));
        let counted = handshakes.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, behind, counted) = (tls.clone(), behind.clone(), counted.clone());
                connections.spawn(async move { serve(stream, &tls, opening, behind, &counted).await });
            }
        });
        TlsHost { address, handshakes, _task: task }
    }

    /// Return the number of clients that took the certificate.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut stream: TcpStream,
    tls: &Tls,
    opening: Opening,
    behind: Behind,
    handshakes: &AtomicUsize,
) -> Option<()> {
    if opening == Opening::Postgres {
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.ok()?;
        stream.write_all(b"S").await.ok()?;
    }
    let mut secured = tls.accept(stream).await.ok()?;
    handshakes.fetch_add(1, Ordering::Relaxed);
    let mut first = [0; 4096];
    let read = secured.read(&mut first).await.ok().filter(|read| *read > 0)?;
    match behind {
        Behind::Nothing => {}
        Behind::Answer(answer) => {
            secured.write_all(answer.as_bytes()).await.ok()?;
            secured.shutdown().await.ok()?;
        }
        Behind::Server(server) => {
            let mut server = TcpStream::connect(server).await.ok()?;
            server.write_all(&first[..read]).await.ok()?;
            copy_bidirectional(&mut secured, &mut server).await.ok()?;
        }
    }
    Some(())
}
