//! A forwarder between the program and a server that lets the server vanish: its connections stay open, and
//! no more bytes pass. Connections made afterwards are whole, as after a failover, or pass nothing either, as
//! before a server that hangs.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards until dropped.
pub struct Vanishing {
    address: SocketAddr,
    frozen: watch::Sender<bool>,
    _connections: JoinSet<()>,
}

impl Vanishing {
    pub async fn before(server: String) -> Vanishing {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (frozen, is_frozen) = watch::channel(false);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                open.spawn(forward(client, server.clone(), is_frozen.clone()));
            }
        });
        Vanishing { address, frozen, _connections: connections }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pass no more bytes on the connections that are open now.
    pub fn vanish(&self) {
        self.frozen.send_modify(|_| {});
    }

    /// Pass no more bytes, also on later connections.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn forward(mut client: TcpStream, server: String, mut frozen: watch::Receiver<bool>) {
    let is_frozen = *frozen.borrow_and_update();
    if is_frozen {
        // The client is connected, and its bytes are read by no program.
        return std::future::pending().await;
    }
    let mut server = TcpStream::connect(server).await.expect("the server is there");
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = frozen.changed() => std::future::pending().await,
    }
}
