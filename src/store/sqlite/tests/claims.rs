//! Claims and changes: what each needs, what each writes.

use std::time::Duration;

use rstest::rstest;

use super::*;
use crate::message::{ErrorKind, Status};
use crate::store::StoreError;

const STATES: [&str; 7] = ["PENDING", "SENDING", "RETRY", "OK", "ERROR", "UNKNOWN", "CANCELLED"];

fn change(name: &str, id: MessageId, fence: i32) -> Change {
    let after = Duration::from_secs(60);
    let error = refusal();
    match name {
        "sent" => Change::Sent { id, fence, http_status: 200, message_id: "mid.1".into() },
        "failed" => Change::Failed { id, fence, kind: ErrorKind::Refused, error, ambiguous: false },
        "retry" => Change::Retry { id, fence, after, error, counted: true, ambiguous: true },
        "unknown" => Change::Unknown { id, fence, error },
        "wait for line" => Change::WaitForLine { id, fence, error, ambiguous: false },
        "release" => Change::Release { id, fence },
        "expire" => Change::Expire { id, fence },
        other => panic!("no change is called {other}"),
    }
}

/// Longer than any claim lasts.
const AN_HOUR: Duration = Duration::from_secs(3_600);

#[rstest]
#[case("sent", &["SENDING", "RETRY", "UNKNOWN", "PENDING"], "OK")]
#[case("failed", &["SENDING"], "ERROR")]
#[case("retry", &["SENDING"], "RETRY")]
#[case("unknown", &["SENDING"], "UNKNOWN")]
#[case("wait for line", &["SENDING"], "PENDING")]
#[case("release", &["SENDING"], "PENDING")]
#[case("expire", &["PENDING", "RETRY"], "ERROR")]
#[tokio::test]
async fn a_change_leaves_only_the_states_it_may(#[case] name: &str, #[case] from: &[&str], #[case] to: &str) {
    let fixture = Fixture::with_worker().await;
    for state in STATES {
        let id = fixture.insert(text_to("ana")).await;
        sqlx::query("update cdls set status = ?2, fence = 3, attempts = 3 where cdls_id = ?1")
            .bind(id.0)
            .bind(state)
            .execute(&fixture.store.writer)
            .await
            .unwrap();

        assert!(!fixture.change(change(name, id, 2)).await, "{name} from {state} with an old fence");
        assert_eq!(fixture.row(id).await.status.as_str(), state);

        let allowed = from.contains(&state);
        assert_eq!(fixture.change(change(name, id, 3)).await, allowed, "{name} from {state}");
        let expected = if allowed { to } else { state };
        assert_eq!(fixture.row(id).await.status.as_str(), expected, "{name} from {state}");
    }
}

#[tokio::test]
async fn a_claim_begins_a_call_and_its_repetition_matches_nothing() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(id, 0).await);
    assert!(!fixture.claim(id, 0).await);
    assert!(!fixture.claim(id, 1).await, "claimed already");

    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts), (Status::Sending, 1));
    assert!(row.sent_at.is_some());
    let claimed = fixture.store.claimed_rows(&every_partition(), AN_HOUR).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].id, claimed[0].fence, claimed[0].worker.as_str()), (id, 1, WORKER));
    assert!(!claimed[0].overdue);
    assert!(fixture.store.claimed_rows(&[Partition(8)], AN_HOUR).await.unwrap().is_empty());

    fixture.sql("update cdls set call_deadline = '2020-01-01T00:00:00.000Z'").await;
    assert!(fixture.store.claimed_rows(&[LINE.partition()], AN_HOUR).await.unwrap()[0].overdue);
}

#[tokio::test]
async fn a_claim_needs_the_fence_the_lease_and_a_valid_row() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(!fixture.claim(id, 1).await, "another fence");
    assert!(!fixture.claim(MessageId(id.0 + 1), 0).await, "no such row");

    let expired = fixture.insert(Submission { valid_for: Duration::ZERO, ..text_to("ana") }).await;
    assert!(!fixture.claim(expired, 0).await, "expired");
    let scheduled = fixture.insert(Submission { send_at: Some(in_an_hour()), ..text_to("ana") }).await;
    assert!(!fixture.claim(scheduled, 0).await, "not due");

    fixture.store.release_leases(WORKER, &[LINE.partition()]).await.unwrap();
    assert!(!fixture.claim(id, 0).await, "nobody holds the partition");
    fixture.store.acquire_leases("worker-b", HOUR, 1).await.unwrap();
    assert!(!fixture.claim(id, 0).await, "another holds it");
    fixture.store.release_leases("worker-b", &[LINE.partition()]).await.unwrap();
    fixture.store.acquire_leases(WORKER, Duration::ZERO, 1).await.unwrap();
    assert!(!fixture.claim(id, 0).await, "the lease has ended");
    fixture.store.acquire_leases(WORKER, HOUR, 1).await.unwrap();
    assert!(fixture.claim(id, 0).await);
}

#[tokio::test]
async fn changes_come_before_claims_and_each_is_answered_in_order() {
    let fixture = Fixture::with_worker().await;
    let ids = fixture.store.insert(&[text_to("ana"), text_to("bia"), text_to("cid")]).await.unwrap();
    assert!(fixture.claim(ids[0], 0).await);
    let call_deadline = Duration::from_secs(32);
    let recorded = fixture
        .store
        .record(
            WORKER,
            &[change("release", ids[0], 1), change("failed", ids[1], 0)],
            &[
                Claim { id: ids[2], fence: 0, call_deadline },
                Claim { id: ids[1], fence: 9, call_deadline },
                Claim { id: ids[0], fence: 1, call_deadline },
            ],
        )
        .await
        .unwrap();
    assert_eq!(recorded, Recorded { changed: vec![true, false], claimed: vec![true, false, true], late: 0 });
    assert_eq!(fixture.row(ids[0]).await.attempts, 1, "given back once, begun twice");
}

#[tokio::test]
async fn a_late_success_wins_over_unknown_and_retry_and_clears_the_error() {
    let fixture = Fixture::with_worker().await;
    for name in ["unknown", "retry"] {
        let id = fixture.insert(text_to("ana")).await;
        assert!(fixture.claim(id, 0).await);
        assert!(fixture.change(change(name, id, 1)).await);
        let row = fixture.row(id).await;
        assert_eq!((row.error_code, row.error_subcode), (Some(10), Some(2018278)));
        assert_eq!((row.status_code, row.ambiguous_attempts), (400, 1));

        assert!(fixture.change(change("sent", id, 1)).await, "{name}");
        let row = fixture.row(id).await;
        assert_eq!((row.status, row.status_code), (Status::Ok, 200));
        assert_eq!((row.message_id.as_deref(), row.error_code, row.next_at), (Some("mid.1"), None, None));
        assert_eq!((row.error_message, row.fbtrace_id), (None, None));
        assert!(row.done_at.is_some());
    }
}

#[tokio::test]
async fn two_changes_of_one_row_take_place_one_after_the_other() {
    let fixture = Fixture::with_worker().await;
    let ids = fixture.store.insert(&[text_to("ana"), text_to("bia")]).await.unwrap();
    assert!(fixture.claim(ids[0], 0).await);
    let changes = [
        change("unknown", ids[0], 1),
        change("expire", ids[1], 0),
        change("sent", ids[0], 1),
        change("failed", ids[0], 1),
    ];
    let call_deadline = Duration::from_secs(32);
    let claim = Claim { id: ids[1], fence: 0, call_deadline };
    let recorded = fixture.store.record(WORKER, &changes, &[claim]).await.unwrap();
    assert_eq!(recorded, Recorded { changed: vec![true, true, true, false], claimed: vec![false], late: 0 });
    let row = fixture.row(ids[0]).await;
    assert_eq!((row.status, row.ambiguous_attempts), (Status::Ok, 1));

    let third = fixture.insert(text_to("cid")).await;
    let claim = Claim { id: third, fence: 0, call_deadline };
    let recorded = fixture.store.record(WORKER, &[], &[claim, claim]).await.unwrap();
    assert_eq!(recorded.claimed, [true, false]);
}

#[tokio::test]
async fn texts_from_outside_are_stored_as_they_came() {
    let fixture = Fixture::with_worker().await;
    let odd = "\"quoted\" \\u0041 \\ 'single' \n\t\u{1} 👩‍👩‍👧 \u{2028} 0123 [1,2] null";
    let id = fixture.insert(Submission { mdata: odd.into(), ..text_to("0042") }).await;
    assert!(fixture.claim(id, 0).await);
    let error = ErrorDetail { message: format!("{odd}\0!"), fbtrace_id: Some("1e5".into()), ..refusal() };
    assert!(fixture.change(Change::WaitForLine { id, fence: 1, error, ambiguous: false }).await);
    let row = fixture.row(id).await;
    assert_eq!((row.mdata.as_str(), row.dest.as_str()), (odd, "0042"));
    assert_eq!(row.error_message, Some(format!("{odd}!")));
    assert_eq!(row.fbtrace_id.as_deref(), Some("1e5"));
    assert_eq!((row.status, row.attempts), (Status::Pending, 1));
}

#[tokio::test]
async fn a_late_success_loses_to_the_next_claim() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(id, 0).await);
    assert!(fixture.change(change("retry", id, 1)).await);
    fixture.sql("update cdls set next_at = null").await;
    assert!(fixture.claim(id, 1).await);
    assert!(!fixture.change(change("sent", id, 1)).await);
    assert_eq!(fixture.row(id).await.status, Status::Sending);
}

#[tokio::test]
async fn a_release_gives_the_attempt_back_and_the_row_is_ready_again() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(id, 0).await);
    assert!(fixture.ready(&flow()).await.is_empty());
    assert!(fixture.change(Change::Release { id, fence: 1 }).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Pending, 0, 0));
    assert_eq!(fixture.ready(&flow()).await, [id]);
    assert!(fixture.store.claimed_rows(&every_partition(), AN_HOUR).await.unwrap().is_empty());
    assert!(!fixture.claim(id, 0).await, "the fence stays raised");
    assert!(fixture.claim(id, 1).await);
}

#[tokio::test]
async fn a_retry_counts_its_try_and_waits_for_its_time() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(id, 0).await);
    assert!(fixture.change(change("retry", id, 1)).await);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Retry, 1, 1));
    let wait = row.next_at.unwrap() - OffsetDateTime::now_utc();
    assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(60), "{wait}");
    assert!(fixture.ready(&flow()).await.is_empty());
    assert!(!fixture.claim(id, 1).await, "not due yet");

    let held = fixture.store.held_recipients(&[LINE.partition()], AN_HOUR).await.unwrap();
    assert_eq!((held[0].dest.as_str(), held[0].by, held[0].status), ("ana", id, Status::Retry));
    assert!(held[0].wait > Duration::from_secs(50));
    assert_eq!(fixture.store.still_held(&[id, MessageId(99)]).await.unwrap(), [id]);

    fixture.sql("update cdls set next_at = '2020-01-01T00:00:00.000Z'").await;
    assert_eq!(fixture.store.still_held(&[id]).await.unwrap(), [id], "due, and behind others that are");
    assert_eq!(fixture.store.promote_due(&every_partition(), 10).await.unwrap(), [(LINE, Lane::High, id)]);
    assert!(fixture.store.still_held(&[id]).await.unwrap().is_empty());
    let read = FlowRead { flow: flow(), after: MessageId(0), limit: 1 };
    let ready = fixture.store.read_flows(&[read]).await.unwrap();
    assert_eq!((ready[0].tries, ready[0].attempts, ready[0].fence), (1, 1, 1));
    assert!(fixture.store.held_recipients(&every_partition(), AN_HOUR).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_claimed_row_holds_its_recipient_until_its_deadline() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(id, 0).await);
    let held = fixture.store.held_recipients(&every_partition(), AN_HOUR).await.unwrap();
    assert_eq!((held[0].by, held[0].status), (id, Status::Sending));
    assert!(held[0].wait > Duration::from_secs(25) && held[0].wait <= Duration::from_secs(32));
    assert_eq!(fixture.store.still_held(&[id]).await.unwrap(), [id]);
}

#[tokio::test]
async fn expiry_ends_rows_that_wait_and_have_expired_and_names_their_waiters() {
    let fixture = Fixture::with_worker().await;
    let waiter = Some("replies.1/t".to_owned());
    let expired = |waiter| Submission { valid_for: Duration::ZERO, waiter, ..text_to("ana") };
    let ids = fixture
        .store
        .insert(&[expired(waiter.clone()), text_to("ana"), expired(None), expired(None)])
        .await
        .unwrap();
    assert!(fixture.claim(ids[1], 0).await);
    let ended = fixture.store.expire(&[ids[2], ids[0], ids[1]]).await.unwrap();
    assert_eq!(ended, [(ids[0], waiter), (ids[2], None)]);
    assert!(fixture.store.expire(&ids[..3]).await.unwrap().is_empty());
    let row = fixture.row(ids[0]).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    assert!(row.done_at.is_some());
    assert_eq!(fixture.row(ids[1]).await.status, Status::Sending);
    assert_eq!(fixture.row(ids[3]).await.status, Status::Pending);
}

#[tokio::test]
async fn a_refused_value_rolls_the_whole_transaction_back() {
    let fixture = Fixture::with_worker().await;
    let ids = fixture.store.insert(&[text_to("ana"), text_to("bia")]).await.unwrap();
    fixture
        .sql(
            "create trigger no_bia before update on cdls when new.dest = 'bia'
             begin select raise(abort, 'refused'); end",
        )
        .await;
    let call_deadline = Duration::from_secs(32);
    let claims = ids.iter().map(|id| Claim { id: *id, fence: 0, call_deadline }).collect::<Vec<_>>();
    let refused = fixture.store.record(WORKER, &[], &claims).await.unwrap_err();
    assert!(matches!(refused, StoreError::Rejected(_)), "{refused}");
    assert_eq!(fixture.row(ids[0]).await.status, Status::Pending);
    assert!(fixture.claim(ids[0], 0).await, "the connection is usable again");
}
