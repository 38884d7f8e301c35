//! The chaos harness: meta-dispatch under load on servers of its own, while processes, servers and
//! connections are killed, frozen, cut and delayed on a schedule made from a seed. Then three ledgers that
//! share no code with the product are compared: the client's answers, Graph's calls, and the log.

mod check;
mod defects;
mod fleet;
mod graph;
mod inflict;
mod load;
mod plan;
mod proxy;
mod report;
mod run;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use defects::Defect;
use run::{Conditions, Outcome};

/// Kill, freeze and cut everything that meta-dispatch runs on, and check that nothing is lost or sent twice
#[derive(Parser)]
#[command(name = "tests/chaos/run")]
struct Arguments {
    /// How much: about two minutes with three seeded defects, 500 kills, or 2,000
    #[arg(long, value_enum, default_value_t = Tier::Ci)]
    tier: Tier,
    /// Fixes the schedule of faults and the decisions of Graph; random unless given
    #[arg(long)]
    seed: Option<u64>,
    /// Kills, instead of the tier's
    #[arg(long)]
    kills: Option<usize>,
    /// Messages a second
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// dispatch.on_ambiguous of the product
    #[arg(long, value_parser = ["hold", "retry"], default_value = "hold")]
    on_ambiguous: String,
    /// Only this seeded defect: succeeds if it is caught
    #[arg(long, value_enum)]
    defect: Option<Defect>,
    /// All eight seeded defects: succeeds if each is caught
    #[arg(long)]
    defects: bool,
    /// meta-dispatch with failpoints
    #[arg(long, env = "CHAOS_PROGRAM", hide = true)]
    program: PathBuf,
    /// The same with the seeded defects of defects.patch
    #[arg(long, env = "CHAOS_DEFECTIVE_PROGRAM", hide = true)]
    defective_program: PathBuf,
    /// Folder of the servers' data and start scripts
    #[arg(long, env = "CHAOS_FOLDER", hide = true)]
    folder: PathBuf,
    /// Folder of the product's logs
    #[arg(long, env = "CHAOS_LOGS", hide = true)]
    logs: PathBuf,
    #[arg(long, env = "TEST_DATABASE_URL", hide = true)]
    database_url: url::Url,
    #[arg(long, env = "TEST_AMQP_URL", hide = true)]
    amqp_url: url::Url,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    Ci,
    Long,
    Release,
}

/// Runs in which a defect is looked for, each with another schedule: some defects show only where a freeze
/// meets a claim, which a single short run may not bring about.
const DEFECT_RUNS: u64 = 4;

/// The defects that every CI run shows to be caught; the quickest to come to light.
const CI_DEFECTS: [Defect; 3] =
    [Defect::AnswerBeforeCommit, Defect::DeadClaimsReleased, Defect::TimeoutRetriedSilently];

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    // The workspace builds reqwest without a TLS library of its own choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(1..1_000_000));
    println!("seed {seed} (repeat with --seed {seed})\n");
    let conditions = Conditions::new(&arguments, seed);
    let ended = tokio::select! {
        ended = all(&arguments, &conditions) => ended,
        () = interrupted() => Ok(false),
    };
    let is_good = ended.unwrap_or_else(|error| {
        println!("{error:#}");
        false
    });
    if !is_good {
        println!("FAILED with seed {seed}; the logs are in {}", arguments.logs.display());
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminated), Ok(mut interrupted)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
}

async fn all(arguments: &Arguments, conditions: &Conditions) -> anyhow::Result<bool> {
    if let Some(defect) = arguments.defect {
        return defects(&[defect], conditions).await;
    }
    if arguments.defects {
        return defects(Defect::value_variants(), conditions).await;
    }
    // The long tiers leave the system time to come back between faults, so that recovery can be measured.
    let (kills, longest) = match arguments.tier {
        Tier::Ci => (40, Duration::from_millis(1_500)),
        Tier::Long => (500, Duration::from_secs(4)),
        Tier::Release => (2_000, Duration::from_secs(4)),
    };
    let outcome = run::tier(conditions, arguments.kills.unwrap_or(kills), longest).await?;
    let mut is_good = outcome.report();
    if arguments.tier == Tier::Ci && is_good {
        is_good = defects(&CI_DEFECTS, conditions).await?;
    }
    Ok(is_good)
}

/// Run the product with each defect until it is caught; return whether all were.
async fn defects(defects: &[Defect], conditions: &Conditions) -> anyhow::Result<bool> {
    let mut caught = 0;
    for defect in defects {
        for run in 0..DEFECT_RUNS {
            let started = Instant::now();
            let outcome: Outcome = run::defect(conditions, *defect, run).await?;
            let by = outcome.caught_by();
            let took = started.elapsed().as_secs_f64();
            if by.is_empty() {
                println!("defect {:24} not caught in run {} ({took:.0} s)", defect.name(), run + 1);
                continue;
            }
            caught += 1;
            println!("defect {:24} caught by: {} ({took:.0} s)", defect.name(), by.join(", "));
            if let Some(violation) = outcome.verdict.violations.first() {
                println!("    e.g. {}", violation.history);
            }
            break;
        }
    }
    println!("{caught} of {} seeded defects caught\n", defects.len());
    Ok(caught == defects.len())
}
