//! Work and its rows as dispatch reads them.

use meta_dispatch::channel::{Medium, MessageKind};
use meta_dispatch::domain::{AccountId, CampaignState, Lane, LineId, Partition, RowId, Submission, WorkId};
use meta_dispatch::store::{Flow, FlowRead, NewMessage, WORK_ROWS, Work};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, all_partitions, bulk, failed, text};

const SEVEN_AND_ONE: [Partition; 2] = [Partition(7), Partition(1)];

fn flow(lane: Lane, medium: Medium, campaign: &str) -> Flow {
    Flow { line: LineId(1), lane, medium, campaign: campaign.into() }
}

impl Fixture {
    async fn accepted(&self, submissions: &[Submission]) -> Vec<Work> {
        let messages: Vec<NewMessage> = submissions.iter().cloned().map(NewMessage::from).collect();
        self.store.accept(&messages).await.expect("messages can be logged").work
    }

    async fn flows(&self, sendable: bool) -> Vec<Flow> {
        let flows = self.store.ready_flows(&all_partitions(), sendable).await.expect("scans work");
        let mut flows: Vec<Flow> = flows.into_iter().map(|(flow, _)| flow).collect();
        flows.sort();
        flows
    }
}

#[apply(on_both)]
async fn read_by_number_has_its_rows_in_order(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let first = fixture.accepted(&[text("a"), text("b"), bulk("c", "spring")]).await;
    let second = fixture.accepted(&[text("d")]).await;
    let wanted = [second[0].id, first[0].id, WorkId(999_999)];
    let mut read = fixture.store.read_work(&wanted).await.expect("work can be read");
    read.sort_by_key(|work| work.position.work);
    assert_eq!(read.len(), 2, "what is not there is left out");
    assert_eq!(read[0].flow, flow(Lane::High, Medium::Text, ""));
    assert_eq!((read[0].position.work, read[0].position.first), (first[0].id, first[0].ids[0]));
    let ids = |n: usize| read[n].rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!((ids(0), ids(1)), (first[0].ids.clone(), second[0].ids.clone()));
    assert!(read[0].rows.iter().all(|row| row.work == first[0].id));
    assert!(fixture.store.read_work(&[]).await.expect("nothing is no error").is_empty());
}

#[apply(on_both)]
async fn leaves_out_rows_that_ended(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ended = fixture.called(text("a"), failed()).await;
    let work = fixture.accepted(&[text("b"), text("c")]).await;
    fixture.execute(&format!("update cdls set status = 'OK' where cdls_id = {}", work[0].ids[0])).await;
    let read = fixture.store.read_work(&[work[0].id]).await.expect("work can be read");
    assert_eq!(read[0].rows.iter().map(|row| row.id).collect::<Vec<_>>(), work[0].ids[1..]);
    assert!(!fixture.ready_ids().await.contains(&ended));
}

#[apply(on_both)]
async fn flows_of_partitions_come_with_their_first_work(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let spring: Vec<Submission> = (0..100).map(|n| bulk(&format!("s{n}"), "spring")).collect();
    let work = fixture.accepted(&spring).await;
    let image = fixture.accepted(&[Submission { kind: MessageKind::Image, ..text("ann") }]).await;
    let mut flows = fixture.store.ready_flows(&SEVEN_AND_ONE, false).await.expect("scans work");
    flows.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        flows.iter().map(|(flow, first)| (flow.clone(), first.first, first.work)).collect::<Vec<_>>(),
        [
            (flow(Lane::High, Medium::Media, ""), image[0].ids[0], image[0].id),
            (flow(Lane::Bulk, Medium::Text, "spring"), work[0].ids[0], work[0].id),
        ]
    );
    assert!(fixture.store.ready_flows(&[Partition(2)], false).await.expect("scans work").is_empty());
    assert!(fixture.store.ready_flows(&[], false).await.expect("scans work").is_empty());
}

#[apply(on_both)]
async fn pages_of_a_flow_hold_whole_work(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let rows: Vec<Submission> = (0..3 * WORK_ROWS).map(|n| text(&format!("d{n}"))).collect();
    let ids = fixture.log(&rows).await;
    let of = |after, limit| FlowRead { flow: flow(Lane::High, Medium::Text, ""), after, limit };
    let read =
        async |read: FlowRead| fixture.store.read_flows(&[read]).await.expect("flows can be read").remove(0);
    let first = read(of(None, 10)).await;
    assert_eq!((first.work.len(), first.work[0].rows.len(), first.more), (1, WORK_ROWS, true));
    let rest = read(of(Some(first.work[0].position), 1_000)).await;
    assert_eq!(rest.work.len(), 2);
    let rows = rest.work.iter().flat_map(|work| &work.rows).map(|row| row.id);
    assert!(rows.eq(ids[WORK_ROWS..].iter().copied()));
    let end = read(of(rest.work.last().map(|work| work.position), 10)).await;
    assert!(end.work.is_empty() && !end.more);
}

#[apply(on_both)]
async fn pages_come_in_the_order_of_the_reads(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let ids = fixture.log(&[text("a"), bulk("b", "spring")]).await;
    let read = |flow| FlowRead { flow, after: None, limit: 10 };
    let reads = [
        read(flow(Lane::Bulk, Medium::Text, "spring")),
        read(flow(Lane::Bulk, Medium::Text, "nobody's")),
        read(flow(Lane::High, Medium::Text, "")),
    ];
    let pages = fixture.store.read_flows(&reads).await.expect("flows can be read");
    let found: Vec<Vec<RowId>> = pages
        .iter()
        .map(|page| page.work.iter().flat_map(|work| &work.rows).map(|row| row.id).collect())
        .collect();
    assert_eq!(found, [vec![ids[1]], vec![], vec![ids[0]]]);
}

#[apply(on_both)]
async fn paused_and_cancelled_campaigns_are_not_served(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let work = fixture.accepted(&[bulk("a", "runs"), bulk("b", "paused"), bulk("c", "cancelled")]).await;
    fixture.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'paused', 'paused'), (1, 'cancelled', 'cancelled'), (2, 'runs', 'paused')").await;
    assert_eq!(fixture.flows(false).await, [flow(Lane::Bulk, Medium::Text, "runs")]);
    let numbers: Vec<WorkId> = work.iter().map(|work| work.id).collect();
    let read = fixture.store.read_work(&numbers).await.expect("work can be read");
    let campaigns: Vec<&str> =
        read.iter().filter(|work| !work.rows.is_empty()).map(|work| work.flow.campaign.as_str()).collect();
    assert_eq!(campaigns, ["runs"]);
    for (account, cp_id, state) in [
        (1, "runs", CampaignState::Running),
        (1, "paused", CampaignState::Paused),
        (1, "cancelled", CampaignState::Cancelled),
        (2, "runs", CampaignState::Paused),
        (2, "cancelled", CampaignState::Running),
    ] {
        let found = fixture.store.campaign_state(AccountId(account), cp_id).await.expect("the store answers");
        assert_eq!(found, state, "{account} {cp_id}");
    }
}

#[apply(on_both)]
async fn flows_that_cannot_send_are_left_out_on_request(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture.log(&[text("a"), Submission { line: LineId(2), ..text("b") }]).await;
    let sendable = async || fixture.flows(true).await.iter().map(|flow| flow.line.0).collect::<Vec<_>>();
    assert_eq!(sendable().await, [1, 2]);
    for (stopped, goes_on) in [
        (
            "update cd_v8_line set v8l_active = false where v8l_id = 1",
            "update cd_v8_line set v8l_active = true",
        ),
        (
            "update cd_v8_line set v8l_paused_until = '2999-01-01T00:00:00.000Z' where v8l_id = 1",
            "update cd_v8_line set v8l_paused_until = null",
        ),
        (
            "update cd_v8_line set v8l_wa_api_key = ' ' where v8l_id = 1",
            "update cd_v8_line set v8l_wa_api_key = 'EAA'",
        ),
    ] {
        fixture.execute(stopped).await;
        assert_eq!(sendable().await, [2], "{stopped}");
        assert_eq!(fixture.flows(false).await.len(), 2, "{stopped}");
        fixture.execute(goes_on).await;
        assert_eq!(sendable().await, [1, 2], "{goes_on}");
    }
    fixture.execute("update account set cdcs_active = false where cdcs_id = 1").await;
    assert!(sendable().await.is_empty());
}

#[apply(on_both)]
async fn new_work_is_found_from_the_last_look(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let new = async |partitions: &[Partition], after, limit| {
        fixture.store.new_work(partitions, Some(after), limit).await.expect("scans work")
    };
    let one = [LineId(1).partition()];
    let nothing = new(&one, WorkId(0), 10).await;
    assert!(nothing.work.is_empty() && nothing.reached == WorkId(0) && !nothing.campaign_resumed);
    let work = fixture
        .accepted(&[text("a"), bulk("b", "spring"), Submission { line: LineId(2), ..text("c") }])
        .await;
    let mut numbers: Vec<WorkId> = work.iter().map(|work| work.id).collect();
    numbers.sort();
    let seen = new(&one, WorkId(0), 10).await;
    assert_eq!(seen.reached, numbers[2], "another partition's is looked at, too");
    assert_eq!(seen.work.len(), 2);
    let text = seen.work.iter().find(|head| head.flow.campaign.is_empty()).expect("the text's");
    assert_eq!((text.rows, text.position.first), (1, work[0].ids[0]));
    let page = new(&one, WorkId(0), 1).await;
    assert_eq!(page.reached, numbers[0]);
    assert!(new(&one, numbers[2], 10).await.work.is_empty());
    assert_eq!(new(&one, numbers[2], 10).await.reached, numbers[2]);
    let highest = fixture.store.new_work(&one, None, 10).await.expect("scans work");
    assert_eq!((highest.work.len(), highest.reached), (0, numbers[2]), "where the next look begins");
}

#[apply(on_both)]
async fn new_work_shows_a_campaign_just_resumed(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let resumed = async || {
        fixture
            .store
            .new_work(&all_partitions(), Some(WorkId(0)), 10)
            .await
            .expect("scans work")
            .campaign_resumed
    };
    for (state, told) in [(CampaignState::Paused, false), (CampaignState::Running, true)] {
        fixture.store.set_campaign(AccountId(1), "spring", state).await.expect("states are written");
        assert_eq!(resumed().await, told, "{state}");
    }
    fixture.execute("update campaign set changed_at = '2020-01-01T00:00:00.000Z'").await;
    assert!(!resumed().await);
}
