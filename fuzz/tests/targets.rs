//! Each target with its corpus, and with mutations for two seconds; the variable FUZZ_SECONDS names another time.

use std::collections::BTreeSet;
use std::time::Duration;

use meta_dispatch_fuzz::corpus;
use meta_dispatch_fuzz::runner::{self, Options};
use meta_dispatch_fuzz::targets::TARGETS;

const SECONDS: u64 = 2;

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the target is listed");
    let seconds = std::env::var_os("FUZZ_SECONDS").map_or(SECONDS, |seconds| {
        seconds.to_str().and_then(|seconds| seconds.parse().ok()).expect("FUZZ_SECONDS is a number")
    });
    let options =
        Options { time: Duration::from_secs(seconds), seed: rand::random(), keep: false, trace: false };
    if let Err(broken) = runner::run(target, options) {
        panic!("seed {}: {broken}", options.seed);
    }
}

macro_rules! hold {
    ($($name:ident),+ $(,)?) => {
        mod properties_hold {
            $(
                #[test]
                fn $name() {
                    super::run(stringify!($name));
                }
            )+
        }

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

hold!(
    addresses, amqp, batches, classify, headers, jobs, lists, parameters, redact, rejected, reply_to, sealed,
    settings,
);

#[test]
fn every_target_is_tested() {
    let listed: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(listed, TESTED.iter().copied().collect::<BTreeSet<_>>());
}

#[test]
fn every_target_has_a_corpus_of_small_entries() {
    for target in TARGETS {
        let entries = corpus::entries(target.name).expect("the folder is part of the repository");
        assert!(entries.len() >= 3, "{} has {} entries", target.name, entries.len());
        assert!(entries.iter().all(|entry| entry.len() <= 4096), "{}", target.name);
    }
}
