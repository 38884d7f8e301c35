//! The arguments of a run, and the names of its scenarios.

use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One message a request, 64 connections, 8 lines, Graph at 0 ms
    Single,
    /// The same with Graph at 80 ms
    Latency,
    /// The same work by the peers, at 0 and 80 ms
    Peers,
    /// Batches of 1,000 messages a request, 4 connections, Graph at 0 and 80 ms
    Batches,
    /// 300,000 lines in batches of 10,000 into the log, without a worker
    Intake,
    /// 50 and 500 single messages a second, beside the Node version: latency and cost
    Paced,
    /// 500 messages a second of one campaign that is logged at once, in batches
    PacedBulk,
    /// The parts alone, without the product: 50 and 500 a second and full speed, with a claim and without
    Floor,
    /// A minute without messages, beside the Node version; `serve` with SQLite, too
    Idle,
    /// A log of 100 ranges of ids against one of 2
    Ranges,
    /// An old snapshot held while messages pass (their number: --messages), beside the Node version
    Dump,
    /// 2,000 lines instead of 8
    Lines,
    /// One message a request, beside 10,000, 100,000 and 1,000,000 waiting rows
    Waiting,
    /// High messages beside 1,000,000 bulk rows, and beside a line whose calls hang; Graph at 50 ms
    Fairness,
    /// 1,000,000 waiting rows sent as fast as possible
    Drain,
    /// Pages of a log of 10,000,000 rows, by each filter
    Status,
    /// Pause, resume and cancel of campaigns of 1,000,000 rows: just logged, and half sent
    Campaign,
    /// 50 messages and 10 lists a second of one account, beside another that floods at 50 times that
    Noisy,
    /// 5,000 receipts of Meta a second for a minute, beside sending at 500 a second and at full speed
    Receipts,
}

#[derive(clap::Args)]
pub struct RunArguments {
    /// Scenarios to run; without any, all of them
    pub scenarios: Vec<Scenario>,
    /// A PostgreSQL server where databases may be created
    #[arg(long, env = "TEST_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// A RabbitMQ server, without its virtual host
    #[arg(long, env = "TEST_AMQP_URL", hide_env_values = true)]
    pub amqp_url: String,
    /// The command that reaches the RabbitMQ server, to create virtual hosts
    #[arg(long, env = "TEST_RABBITMQCTL", default_value = "rabbitmqctl")]
    pub rabbitmqctl: PathBuf,
    /// The program to measure
    #[arg(long)]
    pub program: PathBuf,
    /// Folder of the peers, with their dependencies installed
    #[arg(long)]
    pub peers: Option<PathBuf>,
    /// How often each scenario is run; the tables show the median run
    #[arg(long, default_value_t = 1)]
    pub rounds: usize,
    /// Messages of the scenario dump: 1,500,000 for the long form
    #[arg(long, default_value_t = 200_000)]
    pub messages: u64,
    /// Fewer messages by this factor, to try the benchmark itself
    #[arg(long, default_value_t = 1)]
    pub divide: u64,
    /// SQL to run on each of the program's databases before the load: to see the cost of an index or a
    /// setting
    #[arg(long)]
    pub sql: Option<String>,
    /// Write each run as a line of JSON to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl RunArguments {
    /// Return the folder of the peers, if it is known.
    pub fn peers_folder(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.peers.as_ref().map(|folder| folder.canonicalize()).transpose()?)
    }
}
