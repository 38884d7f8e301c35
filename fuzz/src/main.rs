//! The command behind `fuzz/run`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use meta_dispatch_fuzz::runner::{self, Options, Report};
use meta_dispatch_fuzz::targets::{TARGETS, Target};

/// Run fuzz targets: replay their corpus, and mutate its entries.
#[derive(Parser)]
#[command(name = "fuzz/run")]
struct Arguments {
    /// Run these targets; all without a name
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Mutate for so many seconds, each target; 0 replays the corpus alone
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Make the same inputs again; random unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Add inputs of new shapes to the corpus
    #[arg(long)]
    keep: bool,
    /// Write each input to fuzz/failures/TARGET/last before it runs, for an end of the whole process
    #[arg(long)]
    trace: bool,
    /// Run one target with this file alone
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// List the targets
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let targets = chosen(&arguments.targets)?;
    if arguments.list {
        for target in targets {
            println!("{:<12} {}", target.name, target.about);
        }
        return Ok(());
    }
    if let Some(file) = &arguments.input {
        let [target] = targets[..] else { bail!("name one target beside --input") };
        let input = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        return runner::run_input(target, input);
    }
    let Arguments { seconds, seed, keep, trace, .. } = arguments;
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    for target in targets {
        let options = Options { time: Duration::from_secs(seconds), seed, keep, trace };
        let Report { runs, shapes, kept, took } = runner::run(target, options)?;
        let seconds = took.as_secs_f64();
        println!(
            "{:<12} {runs:>9} runs in {seconds:>5.0} s, {shapes:>6} shapes, {kept:>2} kept",
            target.name
        );
    }
    Ok(())
}

/// Return the named targets, or all.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let named = |name: &String| {
        let found = TARGETS.iter().find(|target| target.name == *name);
        found.with_context(|| format!("there is no target {name}; `fuzz/run --list` lists them"))
    };
    names.iter().map(named).collect()
}
