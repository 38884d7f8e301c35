//! Claims of this process and of an earlier one, and texts from outside.

use super::*;
use crate::domain::{Status, WorkId};
use crate::store::StoreError;

#[tokio::test]
async fn refuses_a_second_open_claim() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(WORKER, id, 0).await);
    assert!(!fixture.claim(WORKER, id, 0).await, "by another number of claims");
    fixture.store.withdraw_worker(WORKER).await.unwrap();
    fixture.own_all("worker-b").await;
    assert!(!fixture.claim("worker-b", id, 0).await, "its owner settles it first");
    let settled = Change::waiting(id, 1, ChangeKind::Release);
    assert_eq!(fixture.record("worker-b", &[settled], &[]).await.changed, [true]);
    assert!(fixture.claim("worker-b", id, 1).await);
}

#[tokio::test]
async fn forgets_settled_claims_of_a_gone_process() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    assert!(fixture.claim(WORKER, id, 0).await);
    let heir = SqliteStore::open_exclusive(&fixture.url).await.unwrap();
    let open = heir.open_claims(&every_partition()).await.unwrap();
    assert_eq!((open[0].id, open[0].worker.as_str(), open[0].fence), (id, WORKER, 1));
    assert_eq!(heir.forget_claims().await.unwrap(), 0, "a row of it is open");
    assert!(fixture.change(id, ChangeKind::Unknown { error: refusal() }).await);
    assert_eq!(fixture.store.forget_claims().await.unwrap(), 0, "its worker is alive here");
    assert_eq!(heir.forget_claims().await.unwrap(), 1);
    assert!(heir.open_claims(&every_partition()).await.unwrap().is_empty());
}

#[tokio::test]
async fn takes_one_change_per_row() {
    let fixture = Fixture::with_worker().await;
    let id = fixture.insert(text_to("ana")).await;
    let made = fixture.record(WORKER, &[], &[claim(id, 0), claim(id, 0)]).await;
    assert_eq!(made.claimed, [true, false]);
    let change = Change::waiting(id, 1, ChangeKind::Release);
    let recorded = fixture.record(WORKER, &[change.clone(), change], &[claim(id, 1)]).await;
    assert_eq!((recorded.changed, recorded.claimed), (vec![true, false], vec![false]));
}

#[tokio::test]
async fn stores_outside_texts_unchanged() {
    let fixture = Fixture::with_worker().await;
    let odd = "\"quoted\" \\u0041 \\ 'single' \n\t\u{1} 👩‍👩‍👧 \u{2028} 0123 [1,2] null";
    let id = fixture.insert(Submission { mdata: odd.into(), ..text_to("0042") }).await;
    assert!(fixture.claim(WORKER, id, 0).await);
    let error = ErrorDetail { message: format!("{odd}\0!"), fbtrace_id: Some("1e5".into()), ..refusal() };
    assert!(fixture.change(id, ChangeKind::WaitForLine { error, ambiguous: false }).await);
    let row = fixture.row(id).await;
    assert_eq!((row.mdata.as_str(), row.dest.as_str()), (odd, "0042"));
    assert_eq!(row.error_message, Some(format!("{odd}!")));
    assert_eq!(row.fbtrace_id.as_deref(), Some("1e5"));
    assert_eq!((row.status, row.attempts), (Status::Pending, 1));
}

#[tokio::test]
async fn rolls_back_on_a_refused_value() {
    let fixture = Fixture::with_worker().await;
    let ids = insert(&fixture.store, &[text_to("ana"), text_to("bia")]).await.unwrap();
    let claims = [claim(ids[0], 0), claim(ids[1], 0)];
    assert_eq!(fixture.record(WORKER, &[], &claims).await.claimed, [true, true]);
    fixture
        .sql(
            "create trigger no_bia before update on cdls when new.dest = 'bia'
             begin select raise(abort, 'refused'); end",
        )
        .await;
    let changes = ids.iter().map(|id| Change::waiting(*id, 1, ChangeKind::Release)).collect::<Vec<_>>();
    let record = Record {
        worker: WORKER,
        changes: &changes,
        claims: &[],
        claim_no: 9,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    let refused = fixture.store.record(record).await.unwrap_err();
    assert!(matches!(refused, StoreError::Rejected(_)), "{refused}");
    assert_eq!(fixture.row(ids[0]).await.status, Status::Sending);
    assert!(fixture.change(ids[0], ChangeKind::Release).await, "the connection is usable again");
}

#[tokio::test]
async fn keeps_work_with_an_unreadable_row() {
    let fixture = Fixture::with_worker().await;
    insert(&fixture.store, &[text_to("ana"), text_to("bia")]).await.unwrap();
    let strange = fixture.insert(text_to("strange")).await;
    fixture.sql("update cdls set mtype = 'hologram' where dest in ('bia', 'strange')").await;
    let works: [WorkId; 2] = [WorkId(1), WorkId(2)];
    let read = fixture.store.read_work(&works).await.unwrap();
    assert_eq!(
        read.iter().map(|work| (work.position.work, work.rows.len())).collect::<Vec<_>>(),
        [(works[0], 1)]
    );
    fixture.sql("update cdls set status = 'OK' where dest = 'ana'").await;
    let record = Record {
        worker: WORKER,
        changes: &[],
        claims: &[],
        claim_no: 9,
        ended_work: &works,
        ended_claims: &[],
        repeated: false,
    };
    fixture.store.record(record).await.unwrap();
    fixture.sql("update cdls set mtype = 'text'").await;
    assert_eq!(fixture.ready(&flow()).await, [RowId(2), strange]);
}
