//! Inserting, and what may be sent.

use super::*;
use crate::message::{CampaignState, Status};
use crate::store::{LogFilter, RangeRead};

fn range(first: MessageId, last: MessageId, limit: u32) -> RangeRead {
    RangeRead { line: LINE, lane: Lane::High, first, last, limit }
}

async fn ids_in(fixture: &Fixture, ranges: &[RangeRead]) -> Vec<MessageId> {
    fixture.store.read_ranges(ranges).await.unwrap().into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn ids_ascend_in_the_order_given_across_commits() {
    let fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let batch: Vec<_> = (0..100).map(|n| text_to(&format!("dest-{n}"))).collect();
        ids.extend(fixture.store.insert(&batch).await.unwrap());
    }
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(fixture.row(ids[142]).await.dest, "dest-42");
    assert!(fixture.store.insert(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_inserted_row_is_logged_as_it_was_given() {
    let fixture = Fixture::new().await;
    let id = fixture
        .insert(Submission {
            kind: MessageKind::Image,
            mdata: "https://example.org/ç.png".into(),
            mcaption: Some("caption".into()),
            msg_id: Some("ref-1".into()),
            cp_id: Some("natal".into()),
            lane: Lane::Bulk,
            ..text_to("ana")
        })
        .await;
    let row = fixture.row(id).await;
    assert_eq!((row.cdcs_id, row.v8l_id, row.class), (ACCOUNT, LINE, Class::Messenger));
    assert_eq!((row.mtype, row.mdata.as_str()), (MessageKind::Image, "https://example.org/ç.png"));
    assert_eq!((row.mcaption.as_deref(), row.msg_id.as_deref()), (Some("caption"), Some("ref-1")));
    assert_eq!(
        (row.cp_id.as_deref(), row.priority, row.status),
        (Some("natal"), Lane::Bulk, Status::Pending)
    );
    assert_eq!((row.status_code, row.attempts, row.ambiguous_attempts), (0, 0, 0));
    assert_eq!((row.next_at, row.sent_at, row.done_at), (None, None, None));
    assert_eq!(row.expires_at - row.created_at, HOUR);
}

#[tokio::test]
async fn validity_counts_from_send_at_and_only_a_future_send_at_is_waited_for() {
    let fixture = Fixture::new().await;
    let soon = in_an_hour();
    let past = OffsetDateTime::now_utc() - HOUR;
    let scheduled = fixture.insert(Submission { send_at: Some(soon), ..text_to("ana") }).await;
    let late =
        fixture.insert(Submission { send_at: Some(past), valid_for: HOUR * 3, ..text_to("ana") }).await;
    let row = fixture.row(scheduled).await;
    assert_eq!(row.expires_at - row.next_at.unwrap(), HOUR);
    let row = fixture.row(late).await;
    assert_eq!(row.next_at, None);
    assert!((row.expires_at - past - HOUR * 3).abs() < Duration::from_millis(2));
    assert_eq!(fixture.ready(&flow()).await, [late]);
}

#[tokio::test]
async fn a_scheduled_row_is_ready_once_it_is_promoted() {
    let fixture = Fixture::new().await;
    let scheduled = Submission { send_at: Some(in_an_hour()), ..text_to("ana") };
    let ids = fixture.store.insert(&[scheduled.clone(), scheduled.clone(), scheduled]).await.unwrap();
    assert!(fixture.store.promote_due(&every_partition(), 10).await.unwrap().is_empty());
    fixture.sql("update cdls set next_at = '2020-01-0' || (4 - cdls_id) || 'T00:00:00.000Z'").await;
    assert!(fixture.store.promote_due(&[Partition(8)], 10).await.unwrap().is_empty());
    assert!(fixture.ready(&flow()).await.is_empty());
    assert!(ids_in(&fixture, &[range(ids[0], ids[2], 10)]).await.is_empty());

    let due = |id| (LINE, Lane::High, id);
    let first = fixture.store.promote_due(&every_partition(), 2).await.unwrap();
    assert_eq!(first, [due(ids[2]), due(ids[1])], "the longest due first");
    assert_eq!(fixture.store.promote_due(&every_partition(), 2).await.unwrap(), [due(ids[0])]);
    assert_eq!(fixture.ready(&flow()).await, ids);
}

#[tokio::test]
async fn ranges_hold_the_ready_rows_of_their_line_and_lane_in_id_order() {
    let fixture = Fixture::with_worker().await;
    let media = Submission { kind: MessageKind::Image, ..text_to("ana") };
    let campaign = Submission { cp_id: Some("a".into()), ..text_to("ana") };
    let bulk = Submission { lane: Lane::Bulk, ..text_to("ana") };
    let other = Submission { line: LineId(71), ..text_to("ana") };
    let ids = fixture
        .store
        .insert(&[text_to("ana"), media, campaign, bulk, other, text_to("bia"), text_to("cid")])
        .await
        .unwrap();
    assert!(fixture.claim(ids[6], 0).await);
    let expected = [ids[0], ids[1], ids[2], ids[5]];
    assert_eq!(ids_in(&fixture, &[range(ids[0], ids[6], 10)]).await, expected);
    assert_eq!(ids_in(&fixture, &[range(MessageId(0), MessageId(i64::MAX), 10)]).await, expected);
    assert_eq!(ids_in(&fixture, &[range(MessageId(0), MessageId(i64::MAX), 3)]).await, expected[..3]);
    assert_eq!(ids_in(&fixture, &[range(ids[1], ids[5], 2)]).await, [ids[1], ids[2]]);
    let bulk = RangeRead { lane: Lane::Bulk, ..range(ids[0], ids[6], 10) };
    assert_eq!(ids_in(&fixture, &[bulk, range(ids[5], ids[5], 1)]).await, [ids[3], ids[5]]);
}

#[tokio::test]
async fn a_row_of_a_later_version_is_left_out_and_stops_nothing() {
    let fixture = Fixture::new().await;
    let ids = fixture.store.insert(&[text_to("ana"), text_to("bia")]).await.unwrap();
    fixture.sql("update cdls set mtype = 'sticker' where dest = 'ana'").await;
    assert_eq!(ids_in(&fixture, &[range(ids[0], ids[1], 10)]).await, [ids[1]]);
}

#[tokio::test]
async fn flows_are_found_with_their_lowest_ready_id() {
    let fixture = Fixture::with_worker().await;
    let media = Submission { kind: MessageKind::Audio, ..text_to("ana") };
    let natal = Submission { cp_id: Some("natal".into()), lane: Lane::Bulk, ..text_to("ana") };
    let other = Submission { line: LineId(8), ..text_to("ana") };
    let ids = fixture
        .store
        .insert(&[text_to("ana"), text_to("bia"), other, media, natal.clone(), natal])
        .await
        .unwrap();
    assert!(fixture.claim(ids[0], 0).await);
    let line_8 = Flow { line: LineId(8), ..flow() };
    let of_media = Flow { medium: Medium::Media, ..flow() };
    let of_natal = Flow { lane: Lane::Bulk, campaign: "natal".into(), ..flow() };
    let mut flows = fixture.store.ready_flows(&every_partition()).await.unwrap();
    flows.sort();
    let mut expected =
        vec![(flow(), ids[1]), (of_media, ids[3]), (of_natal.clone(), ids[4]), (line_8.clone(), ids[2])];
    expected.sort();
    assert_eq!(flows, expected);
    assert_eq!(fixture.store.ready_flows(&[Partition(8)]).await.unwrap(), [(line_8.clone(), ids[2])]);
    assert!(fixture.store.ready_flows(&[]).await.unwrap().is_empty());

    let reads = [
        FlowRead { flow: of_natal, after: ids[4], limit: 10 },
        FlowRead { flow: line_8, after: MessageId(0), limit: 10 },
    ];
    let rows = fixture.store.read_flows(&reads).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [ids[5], ids[2]]);
    assert_eq!((rows[0].cp_id.as_deref(), rows[0].dest.as_str()), (Some("natal"), "ana"));
    assert!(rows[0].valid_for > Duration::from_secs(3500) && rows[0].valid_for <= HOUR);
}

#[tokio::test]
async fn paused_and_cancelled_campaigns_of_their_account_are_not_served() {
    let fixture = Fixture::new().await;
    let natal = Submission { cp_id: Some("natal".into()), ..text_to("ana") };
    let ours = fixture.insert(natal.clone()).await;
    let theirs = fixture.insert(Submission { account: AccountId(2), line: LineId(8), ..natal }).await;
    let free = fixture.insert(text_to("ana")).await;
    let of_natal = Flow { campaign: "natal".into(), ..flow() };
    let of_theirs = Flow { line: LineId(8), ..of_natal.clone() };
    assert_eq!(fixture.store.campaign_state(ACCOUNT, "natal").await.unwrap(), CampaignState::Running);

    for (sql, state) in [
        ("insert into campaign (cdcs_id, cp_id, state) values (1, 'natal', 'paused')", CampaignState::Paused),
        ("update campaign set state = 'cancelled'", CampaignState::Cancelled),
    ] {
        fixture.sql(sql).await;
        assert_eq!(fixture.store.campaign_state(ACCOUNT, "natal").await.unwrap(), state);
        assert!(fixture.ready(&of_natal).await.is_empty());
        assert_eq!(fixture.ready(&of_theirs).await, [theirs]);
        let flows = fixture.store.ready_flows(&every_partition()).await.unwrap();
        assert_eq!(flows, [(flow(), free), (of_theirs.clone(), theirs)]);
        for last in [free, MessageId(i64::MAX)] {
            assert_eq!(ids_in(&fixture, &[range(ours, last, 10)]).await, [free]);
        }
    }
    fixture.sql("update campaign set state = 'running'").await;
    assert_eq!(fixture.ready(&of_natal).await, [ours]);
}

#[tokio::test]
async fn the_backlog_is_counted_up_to_its_bound() {
    let fixture = Fixture::with_worker().await;
    let scheduled = Submission { send_at: Some(in_an_hour()), ..text_to("ana") };
    let ids =
        fixture.store.insert(&[text_to("ana"), text_to("bia"), text_to("cid"), scheduled]).await.unwrap();
    assert!(fixture.claim(ids[0], 0).await);
    assert_eq!(fixture.store.backlog(100).await.unwrap(), 3);
    assert_eq!(fixture.store.backlog(2).await.unwrap(), 2);
}

#[tokio::test]
async fn a_look_up_sees_its_own_account_only() {
    let fixture = Fixture::new().await;
    let id = fixture.insert(text_to("ana")).await;
    for (scope, seen) in
        [(Scope::Account(ACCOUNT), true), (Scope::Account(AccountId(2)), false), (Scope::Operator, true)]
    {
        assert_eq!(fixture.store.log_row(scope, id).await.unwrap().is_some(), seen, "{scope:?}");
    }
    assert!(fixture.store.log_row(Scope::Operator, MessageId(99)).await.unwrap().is_none());
}

#[tokio::test]
async fn the_log_is_read_forwards_backwards_and_counted() {
    let fixture = Fixture::with_worker().await;
    let natal = Submission { cp_id: Some("natal".into()), line: LineId(8), ..text_to("ana") };
    let ids = fixture.store.insert(&[text_to("ana"), natal, text_to("bia")]).await.unwrap();
    assert!(fixture.claim(ids[2], 0).await);
    let all = LogFilter::default();
    let numbers = |rows: Vec<LogRow>| rows.into_iter().map(|row| row.cdls_id).collect::<Vec<_>>();
    assert_eq!(numbers(fixture.store.log_after(&all, ids[0], 10).await.unwrap()), ids[1..]);
    assert_eq!(numbers(fixture.store.log_after(&all, MessageId(0), 1).await.unwrap()), [ids[0]]);
    assert_eq!(numbers(fixture.store.log_newest(&all, 2).await.unwrap()), [ids[2], ids[1]]);
    for (filter, expected) in [
        (LogFilter { line: Some(LINE), ..all.clone() }, vec![ids[2], ids[0]]),
        (LogFilter { status: Some(Status::Pending), ..all.clone() }, vec![ids[1], ids[0]]),
        (LogFilter { cp_id: Some("natal".into()), ..all.clone() }, vec![ids[1]]),
    ] {
        assert_eq!(numbers(fixture.store.log_newest(&filter, 10).await.unwrap()), expected, "{filter:?}");
    }

    fixture.sql("update cdls set created_at = '2020-01-01T00:00:00.000Z' where v8l_id = 8").await;
    assert_eq!(fixture.store.log_stats(None).await.unwrap().len(), 3);
    let recent = fixture.store.log_stats(Some(HOUR)).await.unwrap();
    assert_eq!(recent.len(), 2);
    assert!(recent.iter().all(|cell| cell.v8l_id == LINE && cell.rows == 1));
}
