//! The number of files that a process may open.

use std::process::Command;
use std::time::Duration;

use meta_dispatch::domain::Status;
use testkit::process::{Output, free_address};

use super::program;
use crate::support::pipeline::eventually;
use crate::support::serve::Serve;

/// The soft and the hard limit of a process.
fn limits(pid: i32) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("Linux tells");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is told");
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(u64::MAX));
    (numbers.next().expect("a soft limit"), numbers.next().expect("a hard limit"))
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_is_raised_to_the_hard_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = program(&folder).after("ulimit -Sn 128").http(&free_address().expect("a free port"));
    let running = program.start_ready("serve", Output::Dropped).await.expect("it starts");
    let (soft, hard) = limits(running.pid());
    assert_eq!(soft, hard);
    assert!(hard > 128, "the test needs a hard limit above 128");
}

#[tokio::test(flavor = "multi_thread")]
async fn low_hard_limit_is_told_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("printed.log");
    let program = program(&folder).after("ulimit -n 256").http(&free_address().expect("a free port"));
    let running = program.start_ready("serve", Output::AppendTo(&log)).await.expect("it starts");
    eventually("a warning", || async {
        let printed = std::fs::read_to_string(&log).expect("it is there");
        if printed.contains("limit of open files is low") { Ok(()) } else { Err(printed) }
    })
    .await;
    running.stop().await.expect("it ends");
}

/// With as many calls in flight as its line begins in three seconds, the process runs out of files.
#[tokio::test(flavor = "multi_thread")]
async fn without_one_left_calls_wait_and_graph_is_not_blamed() {
    let mut serve = Serve::start(Duration::from_secs(3)).await;
    let pid = serve.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", pid.as_str(), "--nofile=96:96"]).status();
    let limited = limited.expect("prlimit runs");
    assert!(limited.success());
    let mut ids = Vec::new();
    for n in 0..160 {
        ids.push(serve.submit(&format!("r{n}")).await);
    }
    for id in ids {
        let row = eventually("the message to be sent", || async {
            let row = serve.row(id).await;
            if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
        })
        .await;
        assert_eq!((row.status, row.ambiguous_attempts), (Status::Ok, 0), "{row:?}");
    }
    serve.signal("TERM");
    let (_, printed) = serve.ended().await;
    assert!(printed.contains("no file left for connections"), "the process was not short of files");
    assert!(!printed.contains("breaker open"), "Graph was blamed");
}
