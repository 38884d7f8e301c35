//! The hand-written alternatives (`bench/peers`), tuned: the same row, queue, call and update.

use std::path::Path;
use std::process::Command;

use testkit::process::{Output, Running, free_address};

use crate::ground::{Ground, start_graph};
use crate::load::Shape;
use crate::measure::System;

/// A peer in `bench/peers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// fastify, pg, amqplib, undici.
    Node,
    /// FastAPI, asyncpg, taskiq over aio-pika, aiohttp.
    Taskiq,
}

/// The log and the queue of the peers, in one table.
const TABLE: &str = "create table message (id uuid primary key, dest text not null, body text not null, \
    status text not null default 'pending', attempts integer not null default 0, provider_id text, \
    created_at timestamptz not null default now(), done_at timestamptz); \
    create index message_pending on message (created_at) where status = 'pending'";

pub async fn start(ground: &Ground, peers: &Path, peer: Peer, latency: u64) -> anyhow::Result<System> {
    let (graph, graph_address) = start_graph(latency).await?;
    let database = ground.connect().await?;
    sqlx::raw_sql(TABLE).execute(&database).await?;
    let host = free_address()?;
    let port = host.rsplit(':').next().unwrap_or_default().to_owned();
    let (name, mut ingest, mut worker) = commands(peer, peers, &port);
    for command in [&mut ingest, &mut worker] {
        command
            .env("DATABASE_URL", &ground.database_url)
            .env("AMQP_URL", &ground.amqp_url)
            .env("GRAPH_URL", format!("http://{graph_address}"))
            .env("PORT", &port)
            .env("NODE_ENV", "production");
    }
    let start = |name, command: &mut Command| Running::start_group(name, command, Output::Shown);
    let mut processes = vec![start("ingest", &mut ingest)?, start("worker", &mut worker)?];
    processes[0].listens(&host).await?;
    Ok(System {
        name,
        host,
        path: "/dispatch",
        shape: Shape::Peer,
        tsid: String::new(),
        processes,
        graph,
        graph_address,
        database,
        table: "message",
        sent: "sent",
        servers: ground.servers.clone(),
        statements: ground.statements,
    })
}

/// Return the peer's name in the tables, and the commands of its ingest and of its worker.
fn commands(peer: Peer, peers: &Path, port: &str) -> (&'static str, Command, Command) {
    let command = |folder: &str, program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(peers.join(folder));
        command
    };
    let python = peers.join("taskiq/.venv/bin");
    match peer {
        Peer::Node => (
            "node",
            command("node", "node".as_ref(), &["app.js", "ingest"]),
            command("node", "node".as_ref(), &["app.js", "worker"]),
        ),
        Peer::Taskiq => (
            "taskiq",
            command(
                "taskiq",
                &python.join("uvicorn"),
                &["ingest:app", "--port", port, "--no-access-log", "--log-level", "warning"],
            ),
            command(
                "taskiq",
                &python.join("taskiq"),
                &[
                    "worker",
                    "worker:broker",
                    "--workers",
                    "1",
                    "--max-async-tasks",
                    "400",
                    "--ack-type",
                    "when_executed",
                    "--no-configure-logging",
                ],
            ),
        ),
    }
}
