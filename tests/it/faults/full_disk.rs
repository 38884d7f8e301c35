//! A disk without room, played by a limit on the size of files: it holds for root, too, and for the file that standard
//! error goes to.

use std::process::Command;
use std::time::Duration;

use meta_dispatch::domain::Status;

use crate::support::pipeline::eventually;
use crate::support::serve::Serve;

fn limit_files(serve: &Serve, limit: &str) {
    let pid = format!("--pid={}", serve.pid());
    let set = Command::new("prlimit").args([&pid, &format!("--fsize={limit}:")]).status();
    assert!(set.expect("prlimit runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_nothing_and_keeps_results_until_room() {
    let serve = Serve::start(Duration::from_millis(1_500)).await;
    let in_flight = serve.submit("ann").await;
    serve.calls(1).await;
    limit_files(&serve, "1");
    let waiting = eventually("a refusal", || async {
        match serve.try_submit("bob").await {
            None => Ok(()),
            Some(id) => Err(format!("{id} was accepted")),
        }
    });
    waiting.await;
    // Graph has answered, and the answer cannot be written.
    eventually("the answer", || async {
        let counts = serve.simulator.counts();
        if counts.delivered >= 1 && counts.in_flight == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert_eq!(serve.try_submit("bob").await, None, "nothing is accepted that cannot be logged");
    assert_eq!(serve.row(in_flight).await.status, Status::Sending);
    limit_files(&serve, "unlimited");
    eventually("the result", || async {
        let row = serve.row(in_flight).await;
        if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    let after =
        eventually("room", || async { serve.try_submit("cleo").await.ok_or("refused".to_owned()) }).await;
    eventually("it to be sent", || async {
        let row = serve.row(after).await;
        if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    for dest in ["ann", "cleo"] {
        assert_eq!(serve.simulator.delivered_to(dest), 1);
    }
}
