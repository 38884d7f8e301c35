//! The load as batches: requests of many NDJSON lines, each answered line by line.

use std::cell::Cell;
use std::fmt::Write;
use std::time::Instant;

use anyhow::ensure;

use super::{LoadArguments, Part, text};

/// Send batches, one after the other, until the count is reached.
pub async fn send(arguments: &LoadArguments, next: &Cell<u64>, part: &mut Part) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let lane = match &arguments.campaign {
        Some(campaign) => format!("cp_id={campaign}"),
        None => "priority=high".to_owned(),
    };
    let url = format!("http://{}/api/v2/messages/batch?class=messenger&{lane}", arguments.host);
    loop {
        let first = next.get();
        let last = (first + arguments.batch).min(arguments.count);
        if first >= last {
            return Ok(());
        }
        next.set(last);
        let body = lines(arguments, first, last)?;
        let asked = Instant::now();
        let answer = client
            .post(&url)
            .bearer_auth(&arguments.tsid)
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        part.latencies.record(asked.elapsed().as_micros() as u64)?;
        let accepted = answer.lines().filter(|line| line.contains("\"cdls_id\"")).count() as u64;
        ensure!(accepted == last - first, "accepted {accepted} of {}: {:.300}", last - first, answer);
        part.accepted += accepted;
    }
}

fn lines(arguments: &LoadArguments, first: u64, last: u64) -> anyhow::Result<String> {
    let mut lines = String::new();
    for number in first..last {
        let (line, recipient, text) = (arguments.line(number), arguments.recipient(number), text(number));
        writeln!(lines, r#"{{"app_id":{line},"dest":"{recipient}","mtype":"text","mdata":"{text}"}}"#)?;
    }
    Ok(lines)
}
