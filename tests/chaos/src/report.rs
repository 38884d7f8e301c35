//! The output of a run: faults, ledgers, promises, and the lengths of recovery.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::check::{Invariant, Verdict};
use crate::fleet::Record;
use crate::graph::Call;
use crate::load::{LINES, Sent};
use crate::plan::Fault;

/// Violations shown with their history.
const SHOWN: usize = 20;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    table
}

/// The time from the moment a fault struck until Graph saw a message accepted after that moment: the first
/// such message, and one of every line. Other faults strike meanwhile.
#[derive(Default)]
pub struct Recovery {
    first: Vec<Duration>,
    every_line: Vec<Duration>,
}

/// Return the recovery by kind of fault.
pub fn recovery(
    faults: &[(Fault, Instant)],
    messages: &[Sent],
    calls: &[Call],
) -> BTreeMap<&'static str, Recovery> {
    let mut first_call: BTreeMap<&str, Instant> = BTreeMap::new();
    for call in calls {
        first_call.entry(&call.marker).or_insert(call.at);
    }
    // Per line: the time a message was accepted, and the time Graph saw it first.
    let mut lines = vec![Vec::new(); LINES as usize + 1];
    for (number, sent) in messages.iter().enumerate() {
        if let Some((_, accepted)) = sent.accepted
            && let Some(called) = first_call.get(format!("m{number}").as_str())
        {
            lines[sent.line as usize].push((accepted, *called));
        }
    }
    let mut times: BTreeMap<_, Recovery> = BTreeMap::new();
    for (fault, struck) in faults {
        let resumed = lines[1..].iter().map(|line| {
            line.iter().filter(|(accepted, _)| accepted > struck).map(|(_, called)| *called).min()
        });
        // Without a message on each line afterwards the load had ended: recovery is not known.
        if let Some(resumed) = resumed.collect::<Option<Vec<_>>>()
            && let (Some(first), Some(last)) = (resumed.iter().min(), resumed.iter().max())
        {
            let recovery = times.entry(fault.name()).or_default();
            recovery.first.push(*first - *struck);
            recovery.every_line.push(*last - *struck);
        }
    }
    for recovery in times.values_mut() {
        recovery.first.sort_unstable();
        recovery.every_line.sort_unstable();
    }
    times
}

fn quantile(sorted: &[Duration], share: f64) -> String {
    let place = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}

/// Print faults by kind, with recovery.
pub fn faults(counts: &BTreeMap<&'static str, usize>, recovery: &BTreeMap<&'static str, Recovery>) {
    let mut table = table(&["fault", "times", "first message: median", "p99", "every line: median", "p99"]);
    let none = Recovery::default();
    for (name, count) in counts {
        let Recovery { first, every_line } = recovery.get(name).unwrap_or(&none);
        let mut row = vec![(*name).to_owned(), count.to_string()];
        for times in [first, every_line] {
            row.extend([quantile(times, 0.5), quantile(times, 0.99)]);
        }
        table.add_row(row);
    }
    println!("{table}\n");
}

/// Print deaths at failpoints.
pub fn failpoints(record: &Record) {
    if record.died_at.is_empty() {
        return;
    }
    let mut table = table(&["died at the step", "times"]);
    for (name, count) in &record.died_at {
        table.add_row([name.clone(), count.to_string()]);
    }
    println!("{table}\n");
}

/// Print the three ledgers.
pub fn ledgers(verdict: &Verdict) {
    let mut table = table(&["ledgers", "messages"]);
    let mut add = |what: &str, count: usize| {
        table.add_row([what.to_owned(), count.to_string()]);
    };
    add("sent by the client", verdict.intended);
    add("accepted", verdict.accepted);
    add("logged although the answer was lost or 503", verdict.recovered);
    for (status, count) in &verdict.by_status {
        add(&format!("rows that are {status}"), *count);
    }
    add("calls to Graph", verdict.calls);
    add("messages that Graph took", verdict.delivered);
    add("duplicates", verdict.duplicates);
    let unexplained = verdict.broken(Invariant::Unexplained);
    add("duplicates explained by ambiguous_attempts", verdict.duplicates.saturating_sub(unexplained));
    add("UNKNOWN that Graph had taken", verdict.unknown_delivered);
    add("UNKNOWN that Graph saw and had not taken", verdict.unknown_called - verdict.unknown_delivered);
    add("UNKNOWN, claimed by a worker that died before the call", verdict.unknown_uncalled);
    println!("{table}\n");
}

/// Print the promises, and the histories of messages that break them.
pub fn promises(verdict: &Verdict) {
    let mut table = table(&["promise", "broken"]);
    for invariant in Invariant::ALL {
        table.add_row([invariant.name().to_owned(), verdict.broken(invariant).to_string()]);
    }
    println!("{table}\n");
    for violation in verdict.violations.iter().take(SHOWN) {
        println!("{}: {}", violation.invariant.name(), violation.history);
    }
    if verdict.violations.len() > SHOWN {
        println!("… and {} more", verdict.violations.len() - SHOWN);
    }
}
