//! Rows that are given back, or end without a call.

use super::*;
use crate::channel::Medium;
use crate::domain::ErrorKind;
use crate::store::{Change, ChangeKind};

#[tokio::test(start_paused = true)]
async fn paused_line_gives_rows_back_and_resumes() {
    let mut line = line(&record(Some(1)));
    give(&mut line, row(1, MessageKind::Text));
    let actions = pump(&mut line, 10);
    assert_eq!(actions.claims.len(), 1);
    assert_eq!(line.claim_answered(RowId(1), true), Some(true));

    line.pause_for(Duration::from_secs(5), Instant::now());
    let until = Instant::now() + Duration::from_secs(5);
    let mut actions = pump(&mut line, 10);
    assert!(actions.claims.is_empty() && actions.calls.is_empty());
    assert!(matches!(
        actions.changes[..],
        [(Change { id: RowId(1), fence: 4, kind: ChangeKind::Release, .. }, None)]
    ));
    assert_eq!(actions.wake, Some(until));
    assert_eq!(line.permits(), 0);

    let back = actions.returned.pop().expect("it was given back");
    line.queue.give_back(ReadyRow { fence: 5, ..back });
    tokio::time::sleep_until(until).await;
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_answered_too_late_is_given_back() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(line.claim_answered(RowId(1), true), Some(true));
    let actions = pump(&mut line, 10);
    assert!(actions.calls.is_empty());
    assert!(matches!(actions.changes[..], [(Change { kind: ChangeKind::Release, .. }, None)]));
    assert_eq!(actions.returned.len(), 1, "its recipient waits until it is written");
}

#[tokio::test(start_paused = true)]
async fn an_expired_row_is_ended_and_not_claimed() {
    let mut line = line(&record(None));
    give(&mut line, ReadyRow { valid_for: time::Duration::ZERO, ..row(1, MessageKind::Text) });
    let actions = pump(&mut line, 10);
    assert!(actions.claims.is_empty());
    assert!(matches!(
        actions.changes[..],
        [(Change { id: RowId(1), fence: 3, kind: ChangeKind::Expire, .. }, None)]
    ));
}

#[tokio::test(start_paused = true)]
async fn row_to_a_closed_window_is_withheld_until_the_log_agrees() {
    let mut line = line(&record(None));
    let now = Instant::now().into_std();
    let closed = Contact { closes: Some(now), is_unreachable: false };
    let open = Contact { closes: Some(now + Duration::from_secs(60)), is_unreachable: false };
    give(&mut line, ReadyRow { contact: closed, ..row(1, MessageKind::Text) });
    give(&mut line, ReadyRow { contact: open, ..row(2, MessageKind::Text) });
    let actions = pump(&mut line, 10);
    assert!(matches!(
        actions.changes[..],
        [(
            Change { id: RowId(1), fence: 3, kind: ChangeKind::Withheld { kind: ErrorKind::Window }, .. },
            None
        )]
    ));
    assert_eq!(actions.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [RowId(2)]);
    assert!(line.queue.in_call(RowId(1)), "no other look ends it");
    let [withheld] = &actions.withheld[..] else { panic!("one row is withheld") };
    line.queue.refuse(withheld);
    assert_eq!(line.queue.refused_work(), [withheld.work], "its recipient has written: it is read again");
}

#[tokio::test(start_paused = true)]
async fn many_expired_rows_are_ended_a_few_at_a_time() {
    let mut line = line(&record(None));
    for id in 1..=200 {
        give(&mut line, ReadyRow { valid_for: time::Duration::ZERO, ..row(id, MessageKind::Text) });
    }
    let mut ended = 0;
    while line.queue.has_next(Medium::Text) {
        let actions = pump(&mut line, 10);
        assert!((1..=64).contains(&actions.changes.len()), "{}", actions.changes.len());
        ended += actions.changes.len();
        assert_eq!(actions.wake.is_some(), actions.changes.len() == 64, "it looks again for what is left");
        tokio::time::sleep_until(actions.wake.unwrap_or_else(Instant::now)).await;
    }
    assert_eq!(ended, 200);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_previous_owner_are_never_sent() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
    assert_eq!(line.claim_answered(RowId(1), true), Some(true));
    configure(
        &mut line,
        &LineRecord { account: AccountId(2), page_token: Some("EAAother".into()), ..record(None) },
    );
    give(&mut line, row(2, MessageKind::Text));
    give(&mut line, ReadyRow { account: AccountId(2), ..row(3, MessageKind::Text) });
    let actions = pump(&mut line, 10);
    assert!(actions.calls.is_empty(), "not even one that was claimed before");
    assert!(matches!(
        actions.changes[..],
        [
            (Change { id: RowId(1), kind: ChangeKind::Release, .. }, None),
            (Change { id: RowId(2), kind: ChangeKind::Unsendable, .. }, None),
        ]
    ));
    assert_eq!(actions.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [RowId(3)]);
}

#[tokio::test(start_paused = true)]
async fn line_without_token_or_account_sends_nothing() {
    for blocked in [
        LineRecord { page_token: None, ..record(None) },
        LineRecord { page_token: Some("".into()), ..record(None) },
        LineRecord { active: false, ..record(None) },
        LineRecord { account_active: false, ..record(None) },
    ] {
        let mut line = line(&blocked);
        give(&mut line, row(1, MessageKind::Text));
        let actions = pump(&mut line, 10);
        assert!(actions.claims.is_empty() && actions.calls.is_empty());
    }
}
