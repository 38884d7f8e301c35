//! Trials, rests, suspects, and refusals under unknown codes.

use std::sync::Arc;

use super::*;
use crate::dispatch::line::actor::CallEnd;
use crate::dispatch::line::standing::{EndedCall, Learnt, Suspect};
use crate::domain::ErrorDetail;
use crate::policy::classify::{Judgement, Verdict};

fn judged(verdict: Verdict, code: Option<i32>) -> Judgement {
    let error = ErrorDetail { http_status: Some(400), code, ..ErrorDetail::default() };
    Judgement { verdict, error, pause: None, by_graph: true }
}

/// Let the line learn from a call of this row that began a moment ago.
fn learn(line: &mut Line, row: &ReadyRow, judgement: &Judgement, is_failure: bool) -> Learnt {
    let now = Instant::now();
    let call = EndedCall { row, begun: now, judgement, is_failure: Some(is_failure) };
    line.call_ended(row, CallEnd::Ended);
    line.learn(&call, 3, now, 0.5)
}

/// Claim and begin the calls that the line asks for now, and return them; they stay in flight.
async fn calls_of(line: &mut Line) -> Vec<Arc<ReadyRow>> {
    let mut calls = Vec::new();
    for _ in 0..200 {
        let actions = pump(line, 100);
        for row in actions.claims {
            line.claim_answered(row.id, true);
        }
        calls.extend(actions.calls.into_iter().map(|call| call.row));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    calls
}

fn sent() -> Judgement {
    judged(Verdict::Sent { graph_id: "m_1".into() }, None)
}

fn suspect(id: i64) -> Suspect {
    Suspect {
        id: RowId(id),
        fence: 4,
        lane: Lane::High,
        dest: format!("d{id}"),
        waiter: None,
        refused_at: Instant::now(),
        error: ErrorDetail::default(),
    }
}

#[rstest::rstest]
#[case::a_success(sent(), true)]
#[case::a_refusal_of_the_message(judged(Verdict::Refused, Some(100)), true)]
#[case::a_failure_of_graphs_servers(judged(Verdict::ServerFailed, Some(2)), false)]
#[case::no_answer(Judgement { by_graph: false, ..judged(Verdict::Ambiguous, None) }, false)]
#[tokio::test(start_paused = true)]
async fn refusal_leads_to_one_call_until_a_judgement(#[case] judgement: Judgement, #[case] goes_on: bool) {
    let mut line = line(&record(Some(40)));
    (1..=300).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let now = Instant::now();
    line.pause(&refused_line(), "ann", now, now);
    tokio::time::sleep(Duration::from_secs(1_801)).await;
    let calls = calls_of(&mut line).await;
    assert_eq!(calls.len(), 1, "one call, and no further claim until it is answered");
    assert_eq!(line.reserved(), 0);
    learn(&mut line, &calls[0], &judgement, false);
    assert_eq!(calls_of(&mut line).await.len() > 1, goes_on);
}

#[tokio::test(start_paused = true)]
async fn a_rates_pause_ends_without_a_trial() {
    let mut line = line(&record(Some(40)));
    (1..=300).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let now = Instant::now();
    line.pause(&demand(1), "ann", now, now);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(calls_of(&mut line).await.len() > 1);
}

#[tokio::test(start_paused = true)]
async fn later_success_refuses_earlier_suspects() {
    let mut line = line(&record(None));
    let ids = |learnt: Learnt| learnt.refused.iter().map(|suspect| suspect.id.0).collect::<Vec<_>>();
    line.suspect(suspect(1));
    line.suspect(suspect(2));
    let message = row(9, MessageKind::Text);
    assert!(ids(learn(&mut line, &message, &sent(), false)).is_empty(), "begun at the moment of the refusal");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = judged(Verdict::Refused, Some(100));
    assert!(ids(learn(&mut line, &message, &refused, false)).is_empty(), "Graph took nothing");
    line.call_ended(&row(2, MessageKind::Text), CallEnd::Postponed);
    assert_eq!(ids(learn(&mut line, &message, &sent(), false)), [1], "the second was called again meanwhile");
    assert!(ids(learn(&mut line, &message, &sent(), false)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn unknown_refusals_in_a_row_are_the_lines() {
    let mut line = line(&record(Some(40)));
    (1..=300).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let unlisted = judged(Verdict::Unlisted, Some(77_777));
    let mut said = Vec::new();
    for _ in 0..3 {
        let calls = calls_of(&mut line).await;
        assert!(calls.len() == 1 || said.is_empty(), "after the first, one call at a time");
        said.extend(calls.iter().map(|row| learn(&mut line, row, &unlisted, false).is_lines).take(1));
        for row in calls.iter().skip(1) {
            line.call_ended(row, CallEnd::Ended);
        }
    }
    assert_eq!(said, [false, false, true]);
    let calls = calls_of(&mut line).await;
    learn(&mut line, &calls[0], &judged(Verdict::Refused, Some(100)), false);
    assert_eq!(calls_of(&mut line).await.len(), 1, "only a success ends it");
}

#[tokio::test(start_paused = true)]
async fn a_line_whose_calls_fail_rests_and_then_tries_one() {
    let mut line = line(&record(Some(40)));
    (1..=300).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let failed = judged(Verdict::ServerFailed, Some(1));
    let calls = calls_of(&mut line).await;
    let rests: Vec<Duration> =
        calls.iter().filter_map(|row| learn(&mut line, row, &failed, true).rest).collect();
    assert!(!rests.is_empty(), "of {} calls", calls.len());
    let actions = pump(&mut line, 100);
    assert!(actions.claims.is_empty() && actions.wake.is_some());
    tokio::time::sleep(Duration::from_secs(31)).await;
    let calls = calls_of(&mut line).await;
    assert_eq!(calls.len(), 1);
    learn(&mut line, &calls[0], &sent(), false);
    assert!(calls_of(&mut line).await.len() > 1);
}
