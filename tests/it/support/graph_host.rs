//! A TCP address in the place of Graph's: it refuses connections, swallows requests, or passes them to the
//! simulator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The behaviour of the host; a change cuts the connections of the mood before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// No listener. A host cannot return to this mood.
    Refusing,
    /// Requests are read and never answered.
    Silent,
    /// Requests are passed to the simulator.
    Forwarding,
}

pub struct GraphHost {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    simulator: watch::Sender<Option<SocketAddr>>,
    requests: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl GraphHost {
    pub async fn start(mood: Mood) -> GraphHost {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let (mood, moods) = watch::channel(mood);
        let (simulator, target) = watch::channel(None);
        let requests = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        task.spawn(run(socket, moods, target, requests.clone()));
        GraphHost { address, mood, simulator, requests, _task: task }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v25.0", self.address)
    }

    pub fn stands_for(&self, simulator: SocketAddr) {
        self.simulator.send_replace(Some(simulator));
    }

    pub fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Return the connections on which a request was swallowed.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn run(
    socket: TcpSocket,
    mut moods: watch::Receiver<Mood>,
    target: watch::Receiver<Option<SocketAddr>>,
    requests: Arc<AtomicUsize>,
) {
    if moods.wait_for(|mood| *mood != Mood::Refusing).await.is_err() {
        return;
    }
    let listener = socket.listen(256).expect("listening on a bound socket");
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let mood = *moods.borrow_and_update();
        let (mut changes, target, requests) = (moods.clone(), *target.borrow(), requests.clone());
        connections.spawn(async move {
            tokio::select! {
                () = serve(client, mood, target, requests) => {}
                _ = changes.changed() => {}
            }
        });
    }
}

async fn serve(mut client: TcpStream, mood: Mood, target: Option<SocketAddr>, requests: Arc<AtomicUsize>) {
    match (mood, target) {
        (Mood::Forwarding, Some(target)) => {
            if let Ok(mut server) = TcpStream::connect(target).await {
                // A broken connection is a purpose of this host.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        _ => {
            let mut buffer = [0; 4096];
            if matches!(client.read(&mut buffer).await, Ok(1..)) {
                requests.fetch_add(1, Ordering::Relaxed);
                while matches!(client.read(&mut buffer).await, Ok(1..)) {}
            }
        }
    }
}
