//! The edge of HTTP: no client stops the others, however many connections it holds and however slowly it reads.

mod answers;
mod batches;
mod connections;
mod requests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::routing::{get, post};
use axum::{Extension, Router};
use meta_dispatch::edge::{ClientAddress, ConnectionLimits, ConnectionPhase, Listening, ServeOptions, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than an answer takes on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Longer than the buffers of a connection.
const LARGE: usize = 16 << 20;

/// The server of the edge, with a router of the test: `/` answers the client's address, `/large` a long body;
/// `/opened` works while its body arrives.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(limits: ConnectionLimits, proxies: &[&str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/", get(client_address))
            .route("/opened", post(opened))
            .route("/large", get(async || vec![b'x'; LARGE]));
        let options = ServeOptions {
            listener: "test",
            limits,
            trusted_proxies: proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect(),
            tls: None,
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(Listening::Tcp(listener), router, options, stop.clone()));
        Server { address, stop, served }
    }

    /// Without limits that matter.
    async fn plain() -> Server {
        Server::start(ConnectionLimits { all: 100, per_address: 100 }, &[]).await
    }

    /// Connect from an address of this machine.
    async fn connect(&self, from: &str) -> io::Result<TcpStream> {
        connect(from, self.address).await
    }

    /// Send a request on a connection of its own, and return the whole answer; empty if there is none.
    async fn ask(&self, from: &str, request: &str) -> String {
        match self.connect(from).await {
            Ok(stream) => exchange(stream, request).await,
            Err(_) => String::new(),
        }
    }
}

async fn client_address(Extension(ClientAddress(client)): Extension<ClientAddress>) -> String {
    client.to_string()
}

async fn opened(Extension(phase): Extension<ConnectionPhase>, request: Request) {
    phase.begin_work();
    let _body = axum::body::to_bytes(request.into_body(), LARGE).await;
}

async fn connect(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
    socket.connect(to).await
}

/// Send a request, and return what comes until the connection ends.
async fn exchange(mut stream: TcpStream, request: &str) -> String {
    let mut answer = Vec::new();
    let exchanged = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    // A connection that is reset has answered before.
    let _ended = tokio::time::timeout(ANSWERED_WITHIN, exchanged).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}
