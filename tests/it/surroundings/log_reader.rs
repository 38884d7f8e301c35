//! A log that nobody reads: a pipe whose reader has stopped, or a terminal after Ctrl-S. Lines are lost, and nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use meta_dispatch::domain::{RowId, Status};
use tokio::sync::oneshot;

use crate::support::pipeline::eventually;
use crate::support::serve::{PRINTED, Serve};

/// `serve` at its finest log level, with standard output and error in a pipe that is open and not read.
async fn unread() -> (Serve, File) {
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.stop().await;
    let pipe = serve.folder.path().join(PRINTED);
    std::fs::remove_file(&pipe).expect("it was printed to");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    // Opened for both, so that neither side waits for the other.
    let reader = File::options().read(true).write(true).open(&pipe).expect("a pipe can be opened");
    serve.restart();
    serve.is_up().await;
    eventually("the admin listener to answer", || async {
        let url = format!("http://127.0.0.1:{}/healthz", serve.admin);
        reqwest::get(url).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    (serve, reader)
}

async fn get(serve: &Serve, path: &str) -> String {
    let answer = reqwest::get(format!("http://127.0.0.1:{}{path}", serve.admin)).await.expect("it answers");
    answer.text().await.expect("a text")
}

async fn dropped_lines(serve: &Serve) -> u64 {
    let text = get(serve, "/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix("meta_dispatch_log_lines_dropped_total "));
    value.expect("the series is shown").parse().expect("a number")
}

/// Submits until the pipe and the queue before it are full.
async fn fill(serve: &Serve) -> Vec<RowId> {
    let end = Instant::now() + Duration::from_secs(60);
    let mut ids = Vec::new();
    while dropped_lines(serve).await == 0 {
        assert!(Instant::now() < end, "no line was dropped");
        ids.push(serve.submit(&format!("r{}", ids.len())).await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_nothing() {
    let (mut serve, _reader) = unread().await;
    let mut ids = fill(&serve).await;
    ids.push(serve.submit("after").await);
    assert_eq!(get(&serve, "/healthz").await, "ok");
    for id in ids {
        eventually("the message to be sent", || async {
            let row = serve.row(id).await;
            if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }
    let asked = Instant::now();
    serve.signal("TERM");
    eventually("the process to end", || {
        let runs = serve.is_running();
        async move { if runs { Err("it runs".to_owned()) } else { Ok(()) } }
    })
    .await;
    // Nothing is in flight: no part of the grace is needed.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn hears_of_dropped_lines_when_it_reads_again() {
    let (serve, reader) = unread().await;
    fill(&serve).await;
    let (found, is_found) = oneshot::channel();
    // No task of the runtime, which would wait for a thread that reads for ever.
    std::thread::spawn(move || {
        let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
        // The test may be over.
        let _ = found.send(lines.find(|line| line.contains("log lines dropped")));
    });
    let line = tokio::time::timeout(Duration::from_secs(60), is_found).await.expect("in time");
    let line = line.expect("the thread ends").expect("the log goes on");
    assert!(line.contains("lines="), "the number is told: {line}");
}
