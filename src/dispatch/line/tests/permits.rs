//! The permits that a line takes, and leaves to others.

use super::*;
use crate::dispatch::line::actor::CallEnd;

#[tokio::test(start_paused = true)]
async fn a_line_leaves_permits_for_others() {
    let mut line = line(&record(Some(300)));
    (1..=400).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let mut free: usize = 100;
    // Calls hang without an answer.
    for _ in 0..3_000 {
        let before = line.permits();
        let actions = pump(&mut line, free);
        free -= line.permits() - before;
        for row in actions.claims {
            assert_eq!(line.claim_answered(row.id, true), Some(true));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!((15..=25).contains(&free), "{free} of 100 permits are left for others");
    assert!(pump(&mut line, free).wants_permits);
    assert!(!pump(&mut line, 100).claims.is_empty(), "it goes on when permits come free");
}

#[tokio::test(start_paused = true)]
async fn line_with_hanging_calls_may_make_the_one_call() {
    let mut line = line(&record(Some(300)));
    (1..=100).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    while line.permits() < 30 {
        let spare = 1_000 - line.permits();
        let actions = pump(&mut line, spare);
        for row in &actions.claims {
            line.claim_answered(row.id, true);
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut actions = LineActions::default();
    line.pump(
        Instant::now(),
        HORIZON,
        PermitBudget { spare: 970, room: 1, media: true, ends: 64 },
        &mut actions,
    );
    assert_eq!((actions.claims.len(), actions.wants_permits), (1, true));
}

#[tokio::test(start_paused = true)]
async fn media_waits_while_calls_are_tried() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Video));
    let trial = PermitBudget { spare: 100, room: 1, media: false, ends: 64 };
    let mut actions = LineActions::default();
    line.pump(Instant::now(), HORIZON, trial, &mut actions);
    assert_eq!((actions.claims.len(), actions.wants_permits), (0, true));
    give(&mut line, row(2, MessageKind::Text));
    let mut actions = LineActions::default();
    line.pump(Instant::now(), HORIZON, trial, &mut actions);
    assert_eq!(actions.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [RowId(2)]);
}

#[tokio::test(start_paused = true)]
async fn call_that_outlived_its_line_frees_no_permit() {
    let mut line = line(&record(None));
    give(&mut line, row(2, MessageKind::Text));
    let actions = pump(&mut line, 10);
    assert!(actions.claims.iter().all(|row| line.claim_answered(row.id, true) == Some(true)));
    let before = line.permits();
    for end in [CallEnd::Ended, CallEnd::Returns] {
        line.call_ended(&row(1, MessageKind::Text), end);
    }
    assert_eq!(line.permits(), before);
    assert_eq!(line.reserved(), before);
}
