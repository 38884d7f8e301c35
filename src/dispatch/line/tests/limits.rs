//! The limits of a line are used, and kept in every second.

use super::*;
use crate::dispatch::line::actor::CallEnd;

/// Answer claims and end calls at once, as a fast database and a fast Graph do.
fn serve(line: &mut Line, actions: LineActions) -> usize {
    for row in actions.claims {
        assert_eq!(line.claim_answered(row.id, true), Some(true));
    }
    let calls = actions.calls.len();
    for call in actions.calls {
        line.call_ended(&call.row, CallEnd::Ended);
    }
    calls
}

/// Run a line with a backlog for a while, waking it when it asks; return the times at which its calls began.
async fn run(line: &mut Line, kind: MessageKind, length: Duration, lateness: Duration) -> Vec<Instant> {
    let mut next_id = 1;
    let mut calls = Vec::new();
    let end = Instant::now() + length;
    while Instant::now() < end {
        while !line.queue.has_next(kind.medium()) {
            give(line, row(next_id, kind));
            next_id += 1;
        }
        let actions = pump(line, 1_000);
        let wake = actions.wake;
        let claimed = !actions.claims.is_empty();
        let began = serve(line, actions);
        calls.extend(std::iter::repeat_n(Instant::now(), began));
        if claimed {
            continue;
        }
        let wake = wake.expect("a line with a backlog says when to look again");
        tokio::time::sleep_until(wake + lateness).await;
    }
    calls
}

fn most_in_a_second(calls: &[Instant]) -> usize {
    calls
        .iter()
        .map(|first| {
            calls.iter().filter(|at| **at >= *first && **at < *first + Duration::from_secs(1)).count()
        })
        .max()
        .unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn limit_is_used_and_kept_in_every_second() {
    for limit in [1, 5, 20, 40, 50, 100, 300] {
        for lateness in [Duration::ZERO, Duration::from_millis(1)] {
            let mut line = line(&record(Some(limit)));
            let calls = run(&mut line, MessageKind::Text, Duration::from_secs(20), lateness).await;
            let most = most_in_a_second(&calls);
            assert!(most <= limit as usize + 1, "limit {limit}: {most} in a second");
            let least = (limit as usize * 20) * 95 / 100 - 1;
            assert!(calls.len() >= least, "limit {limit}, {lateness:?} late: {} of {least}", calls.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn slow_commit_does_not_bunch_calls() {
    let mut line = line(&record(Some(100)));
    let mut calls = Vec::new();
    let mut waiting = Vec::new();
    for id in 1..=400 {
        give(&mut line, row(id, MessageKind::Text));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        let actions = pump(&mut line, 1_000);
        waiting.extend(actions.claims.iter().map(|row| row.id));
        for call in actions.calls {
            calls.push(Instant::now());
            line.call_ended(&call.row, CallEnd::Ended);
        }
        // Every second commit takes 700 ms.
        let commit = if start.elapsed().as_secs().is_multiple_of(2) { 700 } else { 2 };
        tokio::time::sleep(Duration::from_millis(commit)).await;
        for id in waiting.drain(..) {
            line.claim_answered(id, true);
        }
    }
    assert!(most_in_a_second(&calls) <= 101);
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_takes_effect_without_a_burst() {
    let mut line = line(&record(Some(50)));
    let mut calls = run(&mut line, MessageKind::Text, Duration::from_secs(2), Duration::ZERO).await;
    configure(&mut line, &record(Some(20)));
    let changed = Instant::now();
    calls.extend(run(&mut line, MessageKind::Text, Duration::from_secs(3), Duration::ZERO).await);
    let after: Vec<Instant> = calls.into_iter().filter(|at| *at >= changed).collect();
    assert!(most_in_a_second(&after) <= 21);
    assert!(after[0] >= changed + Duration::from_millis(49), "the new limiter starts drained");
}

#[tokio::test(start_paused = true)]
async fn waiting_media_does_not_hold_text_up() {
    let mut line = line(&record(Some(40)));
    for id in 1..=50 {
        give(&mut line, row(id, MessageKind::Image));
    }
    let media = run(&mut line, MessageKind::Text, Duration::from_secs(5), Duration::ZERO).await;
    assert!(media.len() > 5 * 38, "both together: {}", media.len());
}
