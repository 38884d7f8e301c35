//! The bounds of connections, and clients that hold them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meta_dispatch::edge::ConnectionLimits;
use testkit::process::{Output, free_address};
use testkit::program::Program;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Server, connect, exchange, status};
use crate::support::pipeline::eventually;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Hold connections that send nothing, each opened again a moment after it is cut; until dropped.
fn hold_idle(to: SocketAddr, addresses: &[&'static str], count: usize) -> JoinSet<()> {
    const AGAIN: Duration = Duration::from_millis(20);
    let mut holders = JoinSet::new();
    for from in addresses.iter().copied() {
        for _ in 0..count {
            holders.spawn(async move {
                loop {
                    if let Ok(mut stream) = connect(from, to).await {
                        let _end = stream.read(&mut [0]).await;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }
    holders
}

/// Whether the server closes a connection that has sent nothing.
async fn is_refused(mut stream: TcpStream) -> bool {
    matches!(timeout(Duration::from_secs(2), stream.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_is_bounded_and_its_end_makes_room() {
    let server = Server::start(ConnectionLimits { all: 100, per_address: 2 }, &[]).await;
    let first = server.connect("127.0.0.2").await.expect("it listens");
    let _second = server.connect("127.0.0.2").await.expect("it listens");
    assert!(is_refused(server.connect("127.0.0.2").await.expect("it listens")).await);
    assert_eq!(status(&server.ask("127.0.0.3", REQUEST).await), "200");
    drop(first);
    eventually("a place", || async {
        let answer = server.ask("127.0.0.2", REQUEST).await;
        if status(&answer) == "200" { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trusted_proxy_is_bounded_over_all_alone() {
    let server = Server::start(ConnectionLimits { all: 4, per_address: 1 }, &["127.0.0.2/32"]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(server.connect("127.0.0.2").await.expect("it listens"));
    }
    assert_eq!(status(&server.ask("127.0.0.2", REQUEST).await), "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_holders_keep_no_third_address_out() {
    let server = Server::start(ConnectionLimits { all: 8, per_address: 100 }, &[]).await;
    let _holders = hold_idle(server.address, &["127.0.0.2", "127.0.0.4"], 8);
    eventually("a full server", || async {
        let stream = server.connect("127.0.0.2").await.expect("it listens");
        if is_refused(stream).await { Ok(()) } else { Err("there is room".to_owned()) }
    })
    .await;
    for n in 0..50 {
        let answer = server.ask("127.0.0.3", REQUEST).await;
        assert_eq!(status(&answer), "200", "request {n}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_under_way_is_not_taken_away() {
    let server = Server::start(ConnectionLimits { all: 2, per_address: 100 }, &[]).await;
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(unread(&server, "127.0.0.2").await);
    }
    assert_eq!(server.ask("127.0.0.3", REQUEST).await, "", "a connection at work was taken away");
    drop(readers);
    eventually("a place", || async {
        let answer = server.ask("127.0.0.3", REQUEST).await;
        if status(&answer) == "200" { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_worked_on_while_its_body_arrives_is_not_taken_away() {
    const HEAD: &str =
        "POST /opened HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let server = Server::start(ConnectionLimits { all: 2, per_address: 100 }, &[]).await;
    let mut opened = Vec::new();
    for _ in 0..2 {
        let mut stream = server.connect("127.0.0.2").await.expect("it listens");
        stream.write_all(HEAD.as_bytes()).await.expect("the head is taken");
        // The answer 100 is written when the handler reads the body.
        stream.read_exact(&mut [0]).await.expect("the body is asked for");
        opened.push(stream);
    }
    assert_eq!(server.ask("127.0.0.3", REQUEST).await, "", "a connection at work was taken away");
}

/// A client that has asked for a large answer, and reads nothing of it but its first byte.
async fn unread(server: &Server, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("it is of this machine");
    let mut stream = socket.connect(server.address).await.expect("it listens");
    let request = "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it is written");
    stream.read_exact(&mut [0]).await.expect("the answer begins");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_does_not_wait_for_silent_clients() {
    let server = Server::plain().await;
    let _reader = unread(&server, "127.0.0.1").await;
    let _silent = server.connect("127.0.0.1").await.expect("it listens");
    let mut slow = server.connect("127.0.0.1").await.expect("it listens");
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("it is written");
    // Accepted last, so the others are held by now.
    assert_eq!(status(&server.ask("127.0.0.1", REQUEST).await), "200");
    server.stop.cancel();
    timeout(Duration::from_secs(5), server.served)
        .await
        .expect("it ends in time")
        .expect("it does not panic");
}

/// The whole program, with so few files that three clients could take them all: one holds half of the places at most.
#[tokio::test(flavor = "multi_thread")]
async fn idle_addresses_stop_neither_another_nor_the_probes() {
    // The clients are files of this process.
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit can be raised");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (http, admin) = (free_address().expect("a free port"), free_address().expect("a free port"));
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .in_folder(folder.path())
        .database(&format!("sqlite:{}", folder.path().join("log.db").display()))
        .graph("http://127.0.0.1:1/v25.0")
        .after("ulimit -n 320")
        .http(&http)
        .admin(&admin);
    let log = folder.path().join("printed.log");
    let mut running = program.start("serve", Output::AppendTo(&log)).expect("it starts");
    running.ready(&admin).await.expect("it is ready");
    let to: SocketAddr = http.parse().expect("an address");
    let _holders = hold_idle(to, &["127.0.0.2", "127.0.0.4", "127.0.0.5"], 150);
    eventually("the limit to be told", || async {
        let printed = std::fs::read_to_string(&log).expect("it is there");
        if printed.contains("limit of connections reached") { Ok(()) } else { Err(printed) }
    })
    .await;
    for n in 0..30 {
        let stream = connect("127.0.0.3", to).await.expect("it listens");
        let answer = exchange(stream, REQUEST).await;
        assert_eq!(status(&answer), "404", "request {n}: {answer}");
        let asked = Instant::now();
        testkit::http::ready(&admin).await.expect("the process is ready");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    let printed = std::fs::read_to_string(&log).expect("it is there");
    assert!(!printed.contains("cannot accept a connection"), "{printed}");
    running.stop().await.expect("it ends");
}
