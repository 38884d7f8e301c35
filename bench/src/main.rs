//! The end-to-end benchmark: load → HTTP ingest → row → job → worker → Graph stand-in → final row, each part
//! a process of its own whose CPU and memory are counted; and the same work on hand-written alternatives.
//!
//! `bench/run` starts it with servers of its own. Never here: verdicts; the benchmark only measures.

mod arguments;
mod database;
mod dump;
mod enquiry;
mod floor;
mod graph;
mod ground;
mod idle;
mod load;
mod measure;
mod noisy;
mod peers;
mod process;
mod product;
mod receipts;
mod report;
mod scenarios;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::arguments::RunArguments;

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
