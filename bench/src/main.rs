//! The end-to-end benchmark: load → HTTP ingest → row → job → worker → Graph stand-in → final row, each part
//! a process of its own whose CPU and memory are counted; and the same work on hand-written alternatives.
//!
//! `bench/run` starts it with servers of its own. Never here: verdicts; the benchmark only measures.

mod database;
mod dump;
mod enquiry;
mod floor;
mod graph;
mod ground;
mod idle;
mod load;
mod measure;
mod peers;
mod process;
mod product;
mod report;
mod scenarios;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The allocator of meta-dispatch, so that the floor has it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "End-to-end benchmark of meta-dispatch beside what people write instead")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios and print their tables
    Run(RunArguments),
    /// The Graph stand-in: answers every POST as sent
    Graph {
        #[arg(long)]
        listen: SocketAddr,
        /// Milliseconds before each answer
        #[arg(long, default_value_t = 0)]
        latency: u64,
    },
    /// The load generator: a closed loop of HTTP requests
    Load(load::LoadArguments),
    /// The parts alone, without the product: a process that takes messages in, or one that sends them
    Floor(floor::FloorArguments),
}

#[derive(clap::Args)]
pub struct RunArguments {
    /// Scenarios to run; without any, all of them
    scenarios: Vec<scenarios::Scenario>,
    /// A PostgreSQL server where databases may be created
    #[arg(long, env = "TEST_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// A RabbitMQ server, without its virtual host
    #[arg(long, env = "TEST_AMQP_URL", hide_env_values = true)]
    amqp_url: String,
    /// The command that reaches the RabbitMQ server, to create virtual hosts
    #[arg(long, env = "TEST_RABBITMQCTL", default_value = "rabbitmqctl")]
    rabbitmqctl: PathBuf,
    /// The program to measure
    #[arg(long)]
    program: PathBuf,
    /// Folder of the peers, with their dependencies installed
    #[arg(long)]
    peers: Option<PathBuf>,
    /// How often each scenario is run; the tables show the median run
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Messages of the scenario dump: 1,500,000 for the long form
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Fewer messages by this factor, to try the benchmark itself
    #[arg(long, default_value_t = 1)]
    divide: u64,
    /// SQL to run on each of the program's databases before the load: to see the cost of an index or a
    /// setting
    #[arg(long)]
    sql: Option<String>,
    /// Write each run as a line of JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

impl RunArguments {
    /// Return the folder of the peers, if it is known.
    fn peers_folder(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.peers.as_ref().map(|folder| folder.canonicalize()).transpose()?)
    }
}

fn main() -> anyhow::Result<()> {
    // The workspace builds reqwest without a TLS library of its own choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Graph { listen, latency } => graph::serve(listen, latency),
        Command::Load(arguments) => load::run(arguments),
        Command::Floor(arguments) => floor::run(arguments),
        Command::Run(arguments) => scenarios::run(arguments),
    }
}
