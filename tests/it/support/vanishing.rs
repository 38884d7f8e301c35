//! Stands between the program and a server, and lets the server vanish: its connections stay open, and nothing passes any
//! more. Connections made afterwards are whole, as after a failover.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards until dropped.
pub struct Vanishing {
    address: SocketAddr,
    times: watch::Sender<()>,
    _connections: JoinSet<()>,
}

impl Vanishing {
    pub async fn before(server: String) -> Vanishing {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (times, vanished) = watch::channel(());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                open.spawn(forward(client, server.clone(), vanished.clone()));
            }
        });
        Vanishing { address, times, _connections: connections }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes on the connections that are open now.
    pub fn vanish(&self) {
        let _ = self.times.send(());
    }
}

async fn forward(mut client: TcpStream, server: String, mut vanished: watch::Receiver<()>) {
    vanished.borrow_and_update();
    let mut server = TcpStream::connect(server).await.expect("the server is there");
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = vanished.changed() => std::future::pending().await,
    }
}
