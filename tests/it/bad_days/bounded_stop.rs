//! A process that is told to stop ends with 0 within its grace and five seconds, whatever hangs: Graph, PostgreSQL,
//! RabbitMQ, or clients of its HTTP listeners.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use meta_dispatch::domain::Status;
use rstest::rstest;
use secrecy::ExposeSecret;
use sqlx::PgConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Worker, connect, number, readiness};
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::rabbitmq::Vhost;
use crate::support::serve::Serve;
use crate::support::vanishing::Vanishing;

const GRACE: Duration = Duration::from_secs(1);
const SHORT_GRACE: (&str, &str) = ("shutdown.grace", "1s");
/// The time that a stop may take beyond its grace.
const AFTER_GRACE: Duration = Duration::from_secs(5);
/// The time that a machine busy with other tests may add. With more, a stop that waits for two timeouts in turn would pass.
const SLACK: Duration = Duration::from_secs(2);

fn assert_in_time(status: ExitStatus, took: Duration) {
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(took <= GRACE + AFTER_GRACE + SLACK, "the stop took {took:?} with a grace of {GRACE:?}");
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Something that hangs when the process is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hanging {
    /// Graph has read the request of a call and does not answer.
    Call,
    /// A client has sent a part of its request.
    Request,
    /// A client does not read its answers.
    Answer,
    /// A client of the admin listener does not read its answers.
    AdminAnswer,
    /// RabbitMQ is silent, and a job is on its way to it.
    Broker,
}

impl Hanging {
    /// Whether a stop waits for this as long as the grace lasts.
    fn is_waited_for(self) -> bool {
        matches!(self, Hanging::Call | Hanging::Request | Hanging::Answer)
    }
}

/// RabbitMQ behind a forwarder that can freeze.
struct Broker {
    url: String,
    between: Vanishing,
    _vhost: Vhost,
}

impl Broker {
    async fn start() -> Broker {
        let vhost = Vhost::lease().await;
        let (host, port) = vhost.server();
        let between = Vanishing::before(format!("{host}:{port}")).await;
        let url = vhost.url_at(between.address()).expose_secret().to_owned();
        Broker { url, between, _vhost: vhost }
    }

    /// Freezes once the process uses it, and leaves a job on its way.
    async fn freeze(&self, serve: &Serve) {
        let client = reqwest::Client::new();
        eventually("RabbitMQ to be up", || async {
            let readiness = readiness(&client, local(serve.admin)).await;
            if readiness["broker"] == "up" { Ok(()) } else { Err(readiness.to_string()) }
        })
        .await;
        self.between.freeze();
        serve.submit("job").await;
    }
}

/// A client that has sent the head of a request and a part of its body. The process has asked for the body.
async fn client_that_stops_writing(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("the process listens");
    let head = "POST /api/v2/MakeMessenger.php HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n\
                content-length: 100\r\nexpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("the connection is open");
    let mut answer = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    client.read_exact(&mut answer).await.expect("the process asks for the body");
    assert!(answer.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&answer));
    client.write_all(b"{\"app_id\":").await.expect("the connection is open");
    client
}

/// A client that asks again and again and reads no answer. The answers have filled all buffers on their way: the process
/// can write no more of them, and takes no further request.
async fn client_that_never_reads(address: SocketAddr, path: &str) -> TcpStream {
    /// Longer than a process waits for its turn on a busy machine.
    const STUCK: Duration = Duration::from_secs(4);
    let mut client = eventually("the process to listen", || async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        socket.connect(address).await.map_err(|error| error.to_string())
    })
    .await;
    let requests = format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").repeat(1_000);
    let mut left = requests.as_bytes();
    while let Ok(written) = timeout(STUCK, client.write(left)).await {
        left = &left[written.expect("the connection is open")..];
        if left.is_empty() {
            left = requests.as_bytes();
        }
    }
    client
}

#[rstest]
#[case::a_call(&[Hanging::Call])]
#[case::a_request(&[Hanging::Request])]
#[case::an_answer(&[Hanging::Answer])]
#[case::an_answer_of_the_admin_listener(&[Hanging::AdminAnswer])]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(&[Hanging::Broker])]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::all_of_them(&[
    Hanging::Answer,
    Hanging::AdminAnswer,
    Hanging::Request,
    Hanging::Call,
    Hanging::Broker,
])]
#[tokio::test(flavor = "multi_thread")]
async fn ends_in_time_while_something_hangs(#[case] hanging: &[Hanging]) {
    let broker = if hanging.contains(&Hanging::Broker) { Some(Broker::start().await) } else { None };
    let mut serve = Serve::start(Duration::ZERO).await;
    serve
        .restart_with(&[
            ("META_DISPATCH__BROKER__URL", broker.as_ref().map_or("embedded", |broker| broker.url.as_str())),
            ("META_DISPATCH__GRAPH__TIMEOUT", "60s"),
            ("META_DISPATCH__SHUTDOWN__GRACE", "1s"),
            ("META_DISPATCH__LOG__FILTER", "info"),
        ])
        .await;
    let (http, admin) = (local(serve.http), local(serve.admin));
    // Held open until the process has ended.
    let mut clients = Vec::new();
    let mut call = None;
    for what in hanging {
        match what {
            Hanging::Call => {
                call = Some(serve.submit("timeout-ann").await);
                serve.calls(1).await;
            }
            Hanging::Request => clients.push(client_that_stops_writing(http).await),
            Hanging::Answer => {
                clients.push(client_that_never_reads(http, "/api/v2/MakeMessenger.php").await);
            }
            Hanging::AdminAnswer => clients.push(client_that_never_reads(admin, "/openapi.json").await),
            Hanging::Broker => broker.as_ref().expect("RabbitMQ was started").freeze(&serve).await,
        }
    }

    let (status, took) = serve.stop().await;
    assert_in_time(status, took);
    if hanging.iter().any(|what| what.is_waited_for()) {
        assert!(took >= GRACE, "nothing hung: the stop took {took:?}");
    }
    if let Some(id) = call {
        let row = serve.row(id).await;
        assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1), "{row:?}");
    }
    drop(clients);
}

/// The result of a call in flight cannot be written.
#[rstest]
#[case::on_connections_that_are_open(false)]
#[case::at_all(true)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn ends_in_time_while_postgresql_is_silent(#[case] at_all: bool) {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.stop_last().await;
    let between = Vanishing::before(pipeline.database().server()).await;
    let url = pipeline.database().url_at(between.address());
    let worker = Worker::start(&pipeline, &[SHORT_GRACE, ("database.url", url.as_str())]).await;
    worker.holds(64).await;
    pipeline.simulator.set_latency(GRACE / 2, Duration::ZERO);
    pipeline.submit("ann", "hello").await;
    eventually("the call", || async {
        let calls = pipeline.simulator.counts().calls;
        if calls == 1 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    if at_all {
        between.freeze();
    } else {
        between.vanish();
    }
    let (status, took) = worker.stopped().await;
    assert_in_time(status, took);
    pipeline.stop().await;
}

/// Locks tables in a session of its own, as a statement that changes them does.
async fn lock(pipeline: &Pipeline, tables: &str) -> PgConnection {
    let mut holder = connect(pipeline).await;
    let lock = format!("begin; lock table {tables} in access exclusive mode");
    sqlx::raw_sql(&lock).execute(&mut holder).await.expect("the tables are locked");
    holder
}

/// Waits until a statement of the worker that has no limit waits for a lock.
async fn a_statement_waits(pipeline: &Pipeline) {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database()
        and application_name like 'meta-dispatch background %' and wait_event_type = 'Lock'";
    eventually("a statement that waits", || async {
        if number(pipeline, waiting).await > 0 { Ok(()) } else { Err("none waits".to_owned()) }
    })
    .await;
}

async fn give_up(mut holder: PgConnection) {
    sqlx::raw_sql("rollback").execute(&mut holder).await.expect("the lock is given up");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn ends_in_time_while_the_queue_is_locked() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.stop_processes().await;
    let worker = Worker::start(&pipeline, &[SHORT_GRACE]).await;
    worker.holds(64).await;
    // No statement of an idle worker reads both tables: none can deadlock with this one.
    let holder = lock(&pipeline, "worker_lease, work").await;
    a_statement_waits(&pipeline).await;
    let (status, took) = worker.stopped().await;
    assert_in_time(status, took);
    give_up(holder).await;
    pipeline.stop().await;
}

/// The first question of the process to the database waits for a lock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn ends_in_time_while_the_process_starts() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.stop_processes().await;
    let holder = lock(&pipeline, "_sqlx_migrations").await;
    let worker = Worker::spawn(&pipeline, &[SHORT_GRACE]);
    a_statement_waits(&pipeline).await;
    let (status, took) = worker.stopped().await;
    assert_in_time(status, took);
    give_up(holder).await;
    pipeline.stop().await;
}
