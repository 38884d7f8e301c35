//! The questions that senders ask the log afterwards: messages by filter, and the states of campaigns.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, CampaignState, ErrorKind, Lane, LineId, RowId, Status, Submission};
use meta_dispatch::store::{LogRow, MessageFilter};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::insert::Insert;
use crate::support::store::{Backend, Fixture, LONG_AGO};

const NEWEST: RowId = RowId(i64::MAX);

fn text(account: i64, line: i64, dest: &str) -> Submission {
    Submission {
        account: AccountId(account),
        line: LineId(line),
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "hello".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::Bulk,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    }
}

fn of_campaign(line: i64, dest: &str, cp_id: &str) -> Submission {
    Submission { cp_id: Some(cp_id.into()), ..text(1, line, dest) }
}

impl Fixture {
    async fn insert(&self, rows: &[Submission]) -> Vec<RowId> {
        self.store.insert(rows).await.expect("rows can be logged")
    }

    async fn listed(&self, filter: MessageFilter, before: RowId, limit: u32) -> Vec<RowId> {
        let rows: Vec<LogRow> =
            self.store.messages(AccountId(1), &filter, before, limit).await.expect("the log answers");
        rows.iter().map(|row| row.cdls_id).collect()
    }

    async fn set(&self, cp_id: &str, state: CampaignState) -> CampaignState {
        self.store.set_campaign(AccountId(1), cp_id, state).await.expect("states can be written")
    }
}

fn newest_first(ids: impl IntoIterator<Item = RowId>) -> Vec<RowId> {
    let mut ids: Vec<RowId> = ids.into_iter().collect();
    ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    ids
}

#[apply(on_both)]
async fn pages_go_newest_first_without_gap_or_repeat(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let kinds = [MessageKind::Text, MessageKind::Image];
    let rows: Vec<Submission> = (0..60)
        .map(|n| Submission {
            kind: kinds[n / 7 % 2],
            ..of_campaign(1 + n as i64 % 2, &format!("d{n}"), "c")
        })
        .collect();
    let ids = fixture.insert(&rows).await;
    fixture.insert(&[text(2, 9, "other")]).await;
    fixture.execute("update cdls set status = 'OK' where cdls_id % 3 = 0").await;
    fixture.execute("update cdls set status = 'ERROR' where cdls_id % 10 = 1").await;
    for filter in [MessageFilter::default(), MessageFilter { cp_id: Some("c".into()), ..Default::default() }]
    {
        let (mut seen, mut before) = (Vec::new(), NEWEST);
        loop {
            let page = fixture.listed(filter.clone(), before, 7).await;
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            before = *last;
            seen.extend(page);
        }
        assert_eq!(seen, newest_first(ids.iter().copied()), "{filter:?}");
    }
}

/// Return filters, and the places of the rows that each lists, newest first.
fn filters() -> Vec<(MessageFilter, Vec<usize>)> {
    let a_day_ago = OffsetDateTime::now_utc() - time::Duration::DAY;
    let in_a_day = OffsetDateTime::now_utc() + time::Duration::DAY;
    let all = MessageFilter::default();
    let some = |text: &str| Some(text.to_owned());
    vec![
        (all.clone(), vec![3, 2, 1, 0]),
        (MessageFilter { line: Some(LineId(1)), ..all.clone() }, vec![2, 0]),
        (MessageFilter { statuses: vec![Status::Error], ..all.clone() }, vec![1]),
        (MessageFilter { statuses: vec![Status::Pending], line: Some(LineId(2)), ..all.clone() }, vec![3]),
        (MessageFilter { cp_id: some("c1"), ..all.clone() }, vec![1, 0]),
        (MessageFilter { cp_id: some("c1"), line: Some(LineId(2)), ..all.clone() }, vec![1]),
        (MessageFilter { cp_id: some("c1"), statuses: vec![Status::Pending], ..all.clone() }, vec![0]),
        (MessageFilter { msg_ids: vec!["m1".into()], ..all.clone() }, vec![1, 0]),
        (MessageFilter { msg_ids: vec!["m1".into()], dest: some("ann"), ..all.clone() }, vec![0]),
        (MessageFilter { dest: some("ann"), ..all.clone() }, vec![3, 2, 0]),
        (MessageFilter { dest: some("ann"), cp_id: some("c2"), ..all.clone() }, vec![2]),
        (MessageFilter { dest: some("ann"), line: Some(LineId(9)), ..all.clone() }, vec![]),
        (MessageFilter { msg_ids: vec!["m1".into()], statuses: vec![Status::Ok], ..all.clone() }, vec![]),
        (MessageFilter { cp_id: some("nobody's"), ..all.clone() }, vec![]),
        (MessageFilter { statuses: vec![Status::Error, Status::Pending], ..all.clone() }, vec![3, 2, 1, 0]),
        (MessageFilter { statuses: vec![Status::Error, Status::Ok], ..all.clone() }, vec![1]),
        (
            MessageFilter {
                cp_id: some("c1"),
                statuses: vec![Status::Retry, Status::Error, Status::Pending],
                ..all.clone()
            },
            vec![1, 0],
        ),
        (
            MessageFilter { msg_ids: vec!["m1".into(), "m2".into(), "m3".into()], ..all.clone() },
            vec![2, 1, 0],
        ),
        (MessageFilter { error_code: Some(551), ..all.clone() }, vec![1]),
        (MessageFilter { error_code: Some(10), ..all.clone() }, vec![]),
        (MessageFilter { error_kind: Some(ErrorKind::Refused), ..all.clone() }, vec![1]),
        (
            MessageFilter { error_kind: Some(ErrorKind::Refused), statuses: vec![Status::Ok], ..all.clone() },
            vec![],
        ),
        (MessageFilter { since: Some(a_day_ago), until: Some(in_a_day), ..all.clone() }, vec![3, 2]),
        (MessageFilter { until: Some(a_day_ago), ..all.clone() }, vec![1, 0]),
        (MessageFilter { since: Some(in_a_day), ..all.clone() }, vec![]),
    ]
}

#[apply(on_both)]
async fn filters_and_combinations_list_matching_rows(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture
        .insert(&[
            Submission { msg_id: Some("m1".into()), ..of_campaign(1, "ann", "c1") },
            Submission { msg_id: Some("m1".into()), ..of_campaign(2, "bob", "c1") },
            Submission { msg_id: Some("m2".into()), ..of_campaign(1, "ann", "c2") },
            text(1, 2, "ann"),
            Submission { cp_id: Some("c1".into()), msg_id: Some("m1".into()), ..text(2, 9, "ann") },
        ])
        .await;
    fixture
        .execute(
            "update cdls set status = 'ERROR', error_code = 551, error_kind = 'refused' where dest = 'bob'",
        )
        .await;
    fixture.execute(&format!("update cdls set created_at = {LONG_AGO} where cp_id = 'c1'")).await;
    for (filter, expected) in filters() {
        let expected: Vec<RowId> = expected.into_iter().map(|n| ids[n]).collect();
        assert_eq!(fixture.listed(filter.clone(), NEWEST, 10).await, expected, "{filter:?}");
        let below: Vec<RowId> = expected.iter().copied().filter(|id| *id < ids[2]).collect();
        assert_eq!(fixture.listed(filter.clone(), ids[2], 10).await, below, "{filter:?}");
        let first = expected.iter().copied().take(1).collect::<Vec<_>>();
        assert_eq!(fixture.listed(filter.clone(), NEWEST, 1).await, first, "{filter:?}");
        let rows =
            fixture.store.messages_after(AccountId(1), &filter, RowId(0), 10).await.expect("it answers");
        assert!(rows.iter().map(|row| row.cdls_id).eq(expected.iter().rev().copied()), "{filter:?}");
    }
}

#[apply(on_both)]
async fn cancelled_campaign_stays_cancelled(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    assert_eq!(fixture.set("c", CampaignState::Paused).await, CampaignState::Paused);
    assert_eq!(fixture.set("c", CampaignState::Running).await, CampaignState::Running);
    assert_eq!(fixture.set("c", CampaignState::Cancelled).await, CampaignState::Cancelled);
    assert_eq!(fixture.set("c", CampaignState::Running).await, CampaignState::Cancelled);
    let state = fixture.store.campaign_state(AccountId(1), "c").await.expect("it answers");
    assert_eq!(state, CampaignState::Cancelled);
    let theirs = fixture.store.campaign_state(AccountId(2), "c").await.expect("it answers");
    assert_eq!(theirs, CampaignState::Running);
}
