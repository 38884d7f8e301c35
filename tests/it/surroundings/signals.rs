//! Signals that ask a process to end, besides SIGTERM and SIGINT.

use std::time::Duration;

use meta_dispatch::domain::Status;
use rstest::rstest;

use crate::support::pipeline::eventually;
use crate::support::serve::Serve;

/// Whether this process, and so those that it starts, ignores SIGHUP, as under nohup.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("it is told");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") & 1 == 1
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn stop_in_order(#[values("HUP", "QUIT")] signal: &str) {
    let mut serve = Serve::start(Duration::from_millis(1_500)).await;
    let id = serve.submit("ann").await;
    serve.calls(1).await;
    serve.signal(signal);
    if signal == "HUP" && hangup_is_ignored() {
        eventually("the message to be sent", || async {
            let row = serve.row(id).await;
            if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
        assert!(serve.is_running(), "under nohup it goes on");
        return;
    }
    let (status, _) = serve.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(serve.row(id).await.status, Status::Ok);
}
