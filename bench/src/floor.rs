//! The parts alone, without the product: the cheapest program that takes a message through the same HTTP,
//! PostgreSQL, RabbitMQ and Graph stand-in. Its cost, measured like that of the peers, is the floor under
//! meta-dispatch's own.
//!
//! `ingest` reads a request, inserts a row, publishes a persistent job, and answers once the job is
//! confirmed. `worker` takes a job, commits a claim, calls Graph, ends row and claim in one statement, and
//! acknowledges the job. Every statement is a prepared one and a commit of its own. `--without-claim` leaves
//! the claim out.
//!
//! The floor never makes batches, never tries again, keeps no limits and no order, and looks for no row whose
//! job was lost. A failure ends the run.

#![allow(clippy::print_stderr)]

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use futures::stream::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ConnectionProperties};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use testkit::process::{Output, Running, free_address};
use tokio::sync::Semaphore;

use crate::ground::{Ground, start_graph};
use crate::load::Shape;
use crate::measure::System;

const QUEUE: &str = "dispatch";
const PERSISTENT: u8 = 2;
/// Jobs that the worker holds at a time, and connections to PostgreSQL of each process: the numbers of the
/// Node version.
const IN_FLIGHT: u16 = 200;
const CONNECTIONS: usize = 16;

/// The columns of the Node version's table. As in `cdls`, the database counts the ids, no index names a
/// column that changes, and pages are filled to 45 %, so that updates are heap-only.
const TABLES: &str = "
    create table message (id bigint generated always as identity primary key, dest text not null, body text not null,
        status text not null default 'PENDING', attempts integer not null default 0, provider_id text,
        created_at timestamptz not null default now(), done_at timestamptz) with (fillfactor = 45);
    create table claim (message_id bigint primary key)";

const INSERT: &str = "insert into message (dest, body) values ($1, $2) returning id";
const CLAIM: &str = "insert into claim (message_id) values ($1)";
const END: &str = "
    with released as (delete from claim where message_id = $2)
    update message set status = 'OK', attempts = attempts + 1, provider_id = $1, done_at = clock_timestamp() where id = $2";
const END_WITHOUT_CLAIM: &str = "
    update message set status = 'OK', attempts = attempts + 1, provider_id = $1, done_at = clock_timestamp() where id = $2";

#[derive(Debug, clap::Args)]
pub struct FloorArguments {
    #[arg(value_enum)]
    role: Role,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    amqp_url: String,
    /// The address of ingest
    #[arg(long)]
    listen: SocketAddr,
    /// Host and port of the Graph stand-in
    #[arg(long)]
    graph: String,
    /// Calls Graph without a committed claim (worker)
    #[arg(long)]
    without_claim: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Ingest,
    Worker,
}

/// Start both processes on tables of their own; with `claims`, each call has a committed claim.
pub async fn start(ground: &Ground, claims: bool) -> anyhow::Result<System> {
    let (graph, graph_address) = start_graph(0).await?;
    let database = ground.connect().await?;
    sqlx::raw_sql(TABLES).execute(&database).await?;
    let host = free_address()?;
    let program = std::env::current_exe()?;
    let command = |role: &str| {
        let mut command = Command::new(&program);
        command
            .args(["floor", role, "--listen", &host, "--graph", &graph_address])
            .args((!claims).then_some("--without-claim"))
            .env("DATABASE_URL", &ground.database_url)
            .env("AMQP_URL", &ground.amqp_url);
        command
    };
    let mut ingest = Running::start_group("ingest", &mut command("ingest"), Output::Shown)?;
    let worker = Running::start_group("worker", &mut command("worker"), Output::Shown)?;
    ingest.listens(&host).await?;
    Ok(System {
        name: if claims { "floor" } else { "floor without claim" },
        host,
        path: "/dispatch",
        shape: Shape::Peer,
        tsid: String::new(),
        processes: vec![ingest, worker],
        graph,
        graph_address,
        database,
        table: "message",
        sent: "OK",
        servers: ground.servers.clone(),
        statements: ground.statements,
    })
}

/// Run one of the two processes, with one thread for all of its work, as meta-dispatch has on two cores.
pub fn run(arguments: FloorArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Spawned: work that this thread awaited itself would be handed from one thread to the other.
    let work = match arguments.role {
        Role::Ingest => runtime.spawn(ingest(arguments)),
        Role::Worker => runtime.spawn(worker(arguments)),
    };
    runtime.block_on(work)?
}

/// The form of a request, as the load writes it for the peers.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    recipient_id: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct Job<'a> {
    id: i64,
    #[serde(borrow)]
    dest: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

struct Intake {
    database: Connections,
    channel: Channel,
}

async fn ingest(arguments: FloorArguments) -> anyhow::Result<()> {
    let database = Connections::open(&arguments.database_url).await?;
    let (_connection, channel) = open_queue(&arguments.amqp_url).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let intake = Arc::new(Intake { database, channel });
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let intake = Arc::clone(&intake);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&intake), request));
            // A peer that closes its connection is no error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Answer a request. A failure is answered 500, at which the load ends.
async fn answer(
    intake: Arc<Intake>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match intake.accept(request).await {
        Ok(id) => (StatusCode::ACCEPTED, format!(r#"{{"id":{id}}}"#)),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

impl Intake {
    /// Insert the row, then publish the job; return the id of the row.
    async fn accept(&self, request: Request<Incoming>) -> anyhow::Result<i64> {
        let body = request.into_body().collect().await?.to_bytes();
        let message: Message = serde_json::from_slice(&body)?;
        let (dest, text) = (message.recipient_id, message.text);
        let mut connection = self.database.take().await?;
        let id: i64 = sqlx::query_scalar(INSERT).bind(&*dest).bind(&*text).fetch_one(&mut connection).await?;
        self.database.put_back(connection);

        let job = serde_json::to_vec(&Job { id, dest, text })?;
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions::default();
        let published =
            self.channel.basic_publish("".into(), QUEUE.into(), options, &job, properties).await?;
        ensure!(published.await?.is_ack(), "RabbitMQ refused a job");
        Ok(id)
    }
}

struct Caller {
    database: Connections,
    graph: reqwest::Client,
    messages: Url,
    claims: bool,
}

/// The body of a call, recipient first: the stand-in looks for it there.
#[derive(Serialize)]
struct Call<'a> {
    recipient: Recipient<'a>,
    messaging_type: &'static str,
    message: Text<'a>,
}

#[derive(Serialize)]
struct Recipient<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    message_id: Cow<'a, str>,
}

async fn worker(arguments: FloorArguments) -> anyhow::Result<()> {
    let graph = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none());
    let caller = Arc::new(Caller {
        database: Connections::open(&arguments.database_url).await?,
        graph: graph.build()?,
        messages: format!("http://{}/v25.0/me/messages", arguments.graph).parse()?,
        claims: !arguments.without_claim,
    });
    let (_connection, channel) = open_queue(&arguments.amqp_url).await?;
    channel.basic_qos(IN_FLIGHT, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut jobs =
        channel.basic_consume(QUEUE.into(), "floor".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = jobs.next().await {
        let (caller, delivery) = (Arc::clone(&caller), delivery?);
        tokio::spawn(async move {
            if let Err(error) = caller.send(&delivery).await {
                eprintln!("{error:#}");
                std::process::exit(1);
            }
        });
    }
    bail!("RabbitMQ ended the consumer")
}

impl Caller {
    /// Claim, call, end, acknowledge.
    async fn send(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let job: Job = serde_json::from_slice(&delivery.data)?;
        if self.claims {
            let mut connection = self.database.take().await?;
            sqlx::query(CLAIM).bind(job.id).execute(&mut connection).await?;
            self.database.put_back(connection);
        }

        let call = Call {
            recipient: Recipient { id: &job.dest },
            messaging_type: "RESPONSE",
            message: Text { text: &job.text },
        };
        let request = self
            .graph
            .post(self.messages.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, HeaderValue::from_static("Bearer EAAtest"))
            .body(serde_json::to_vec(&call)?);
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let sent: Sent = serde_json::from_slice(&answer)?;

        let end = if self.claims { END } else { END_WITHOUT_CLAIM };
        let mut connection = self.database.take().await?;
        sqlx::query(end).bind(&*sent.message_id).bind(job.id).execute(&mut connection).await?;
        self.database.put_back(connection);
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}

/// Open a connection to RabbitMQ, to be held as long as its channel, and the durable queue.
async fn open_queue(url: &str) -> anyhow::Result<(lapin::Connection, Channel)> {
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    Ok((connection, channel))
}

/// Connections to PostgreSQL; the one put back last is taken first, as its server process is the warmest.
///
/// sqlx's own pool takes the oldest first, and makes a second round trip after each statement, to see that
/// the connection still lives. Here a connection whose statement failed does not come back, and the run ends.
struct Connections {
    idle: Mutex<Vec<PgConnection>>,
    number: Semaphore,
}

impl Connections {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        // One plan for good, and by primary key, whatever the statistics of the young tables.
        let options = options.options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
        ]);
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS {
            idle.push(PgConnection::connect_with(&options).await?);
        }
        Ok(Self { idle: Mutex::new(idle), number: Semaphore::new(CONNECTIONS) })
    }

    async fn take(&self) -> anyhow::Result<PgConnection> {
        self.number.acquire().await?.forget();
        self.idle.lock().expect("no holder panics").pop().context("fewer connections than permits")
    }

    fn put_back(&self, connection: PgConnection) {
        self.idle.lock().expect("no holder panics").push(connection);
        self.number.add_permits(1);
    }
}
