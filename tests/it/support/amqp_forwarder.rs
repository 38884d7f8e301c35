//! A forwarder between a client and RabbitMQ: it passes AMQP frames on, and does to connections the work of
//! networks and servers: refuses them, cuts them, keeps answers back, closes them with a reason, blocks them.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;

/// A port that refuses connections until the forwarder is started on it.
pub struct ClosedDoor {
    socket: TcpSocket,
    address: SocketAddr,
}

impl ClosedDoor {
    pub fn new() -> ClosedDoor {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        ClosedDoor { socket, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn open(self, server: (String, u16)) -> Forwarder {
        let listener = self.socket.listen(64).expect("listening on a bound socket");
        let (faults, _) = broadcast::channel(64);
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, server, faults.clone()));
        Forwarder { address: self.address, faults, _connections: connections }
    }
}

/// Forwards until dropped.
pub struct Forwarder {
    address: SocketAddr,
    faults: broadcast::Sender<Fault>,
    _connections: JoinSet<()>,
}

/// A fault of every connection that is open now; later ones are whole.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection is lost silently.
    Cut,
    /// No more bytes come back from the server.
    Silence,
    /// The server sends this frame.
    Frame(Vec<u8>),
}

impl Forwarder {
    pub fn open(server: (String, u16)) -> Forwarder {
        ClosedDoor::new().open(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn inflict(&self, fault: Fault) {
        // Without an open connection there is no receiver.
        let _ = self.faults.send(fault);
    }
}

impl Fault {
    /// Return `connection.close` with 320, as by an operator.
    pub fn connection_closed() -> Fault {
        Fault::Frame(method(
            0,
            10,
            50,
            &[&[1, 64][..], &text("CONNECTION_FORCED - closed"), &[0; 4]].concat(),
        ))
    }

    /// Return `channel.close` with 406, as for an acknowledgement that took too long.
    pub fn channel_closed(channel: u16) -> Fault {
        let arguments = [&[1, 150][..], &text("PRECONDITION_FAILED - timeout"), &[0; 4]].concat();
        Fault::Frame(method(channel, 20, 40, &arguments))
    }

    /// Return `connection.blocked`, as by a memory alarm.
    pub fn blocked() -> Fault {
        Fault::Frame(method(0, 10, 60, &text("low on memory")))
    }

    pub fn unblocked() -> Fault {
        Fault::Frame(method(0, 10, 61, &[]))
    }
}

/// Build a method frame (AMQP 0-9-1, 4.2.4).
fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    let size = (payload.len() as u32).to_be_bytes();
    [&[1][..], &channel.to_be_bytes(), &size, &payload, &[0xCE]].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

async fn accept(listener: TcpListener, server: (String, u16), faults: broadcast::Sender<Fault>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(forward(client, server.clone(), faults.subscribe()));
    }
}

async fn forward(client: TcpStream, server: (String, u16), mut faults: broadcast::Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (frames_in, mut frames) = mpsc::channel(1);
    let mut halves = JoinSet::new();
    halves.spawn(async move { drop(copy(&mut from_client, &mut to_server).await) });
    halves.spawn(read_frames(from_server, frames_in));
    let mut silent = false;
    loop {
        let bytes = tokio::select! {
            fault = faults.recv() => match fault {
                Ok(Fault::Frame(frame)) => frame,
                Ok(Fault::Silence) => {
                    silent = true;
                    continue;
                }
                Ok(Fault::Cut) | Err(_) => return,
            },
            frame = frames.recv(), if !silent => match frame {
                Some(frame) => frame,
                None => return,
            },
        };
        if to_client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_frames(mut from_server: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>) {
    let mut header = [0; 7];
    while from_server.read_exact(&mut header).await.is_ok() {
        let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
        let mut frame = header.to_vec();
        frame.resize(header.len() + size + 1, 0);
        if from_server.read_exact(&mut frame[header.len()..]).await.is_err()
            || frames.send(frame).await.is_err()
        {
            return;
        }
    }
}
