use std::time::Duration;

use super::standing::Learnt;
use super::*;
use crate::channel::MessageKind;
use crate::domain::{AccountId, ErrorDetail};
use crate::policy::classify::{Judgement, PauseDemand, Verdict};
use crate::store::{Position, WorkRead};

const HORIZON: Duration = Duration::from_millis(15);

fn record(rate_text: Option<u32>) -> LineRecord {
    LineRecord {
        id: LineId(7),
        account: AccountId(1),
        name: None,
        class: Class::MESSENGER,
        active: true,
        account_active: true,
        page_token: Some("EAA".into()),
        page_id: Some("1".into()),
        instagram_account_id: None,
        rate_text,
        rate_media: Some(10),
        paused_until: None,
        pause_left: None,
        pause_reason: None,
    }
}

fn limits() -> LimitSettings {
    crate::settings::Settings::load(None).expect("defaults load").limits
}

fn line(record: &LineRecord) -> Line {
    let mut line = Line::new(LineId(7), RowMemory::of(u64::MAX));
    configure(&mut line, record);
    line
}

fn configure(line: &mut Line, record: &LineRecord) {
    line.configure(record, &limits(), false, Instant::now());
}

fn row(id: i64, kind: MessageKind) -> ReadyRow {
    ReadyRow {
        id: RowId(id),
        work: WorkId(id),
        line: LineId(7),
        account: AccountId(1),
        lane: Lane::High,
        kind,
        cp_id: None,
        dest: format!("d{id}"),
        mdata: "hello".into(),
        fence: 3,
        attempts: 0,
        tries: 0,
        valid_for: time::Duration::hours(1),
        waiter: None,
    }
}

/// Give the line work of one row.
fn give(line: &mut Line, row: ReadyRow) {
    let position = Position { first: row.id, work: row.work };
    line.queue.read_work(row.work, Some(WorkRead { position, flow: row.flow(), rows: vec![row] }));
}

fn pump(line: &mut Line, free: usize) -> LineActions {
    let mut actions = LineActions::default();
    line.pump(
        Instant::now(),
        HORIZON,
        PermitBudget { spare: free, room: free, media: true, ends: 64 },
        &mut actions,
    );
    actions
}

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
        while line.queue_is_short(kind.medium()) {
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

impl Line {
    fn queue_is_short(&self, medium: Medium) -> bool {
        !self.queue.has_next(medium)
    }
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

#[rstest::rstest]
#[case::and_that_of_this_machine_is_an_hour_behind(Some(time::Duration::hours(1)))]
#[case::and_that_of_this_machine_is_an_hour_ahead(Some(time::Duration::hours(-1)))]
#[tokio::test(start_paused = true)]
async fn pause_lasts_by_the_databases_clock(#[case] off: Option<time::Duration>) {
    let left = Duration::from_secs(5);
    let paused_until = off.map(|off| time::OffsetDateTime::now_utc() + off + left);
    let mut line = line(&LineRecord { paused_until, pause_left: Some(left), ..record(None) });
    give(&mut line, row(1, MessageKind::Text));
    let actions = pump(&mut line, 10);
    assert_eq!((actions.claims.len(), actions.wake), (0, Some(Instant::now() + left)));
    tokio::time::sleep(left).await;
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

fn demand(first: u64) -> PauseDemand {
    PauseDemand {
        target: crate::policy::classify::PauseTarget::Line,
        first: Duration::from_secs(first),
        cap: Duration::from_secs(first * 60),
        named: None,
        ends_with_trial: false,
        reason: "613".into(),
    }
}

fn named(first: u64, named: u64) -> PauseDemand {
    PauseDemand { named: Some(Duration::from_secs(named)), ..demand(first) }
}

#[tokio::test(start_paused = true)]
async fn success_before_a_pause_keeps_its_ladder() {
    let mut line = line(&record(None));
    let seconds = Duration::from_secs;
    let begun = Instant::now();
    let first = begun + seconds(1);
    assert_eq!(line.pause(&demand(1), "ann", begun, first), Some(seconds(1)));
    line.succeeded(begun);
    let second = first + seconds(5);
    assert_eq!(line.pause(&demand(1), "ann", second, second), Some(seconds(2)), "the second step");
    line.succeeded(first + seconds(2));
    let third = second + seconds(5);
    assert_eq!(
        line.pause(&demand(1), "ann", third, third),
        Some(seconds(4)),
        "the third, as it began before the second"
    );
    line.succeeded(third + seconds(5));
    let fourth = third + seconds(10);
    assert_eq!(
        line.pause(&demand(1), "ann", fourth, fourth),
        Some(seconds(1)),
        "the first, after a success since then"
    );
}

#[tokio::test(start_paused = true)]
async fn success_before_an_app_pause_keeps_its_ladder() {
    let mut line = line(&record(None));
    let begun = Instant::now();
    line.pause(&demand(1), "ann", begun, begun);
    line.pause_with_app(&demand(300), Duration::from_secs(300), begun + Duration::from_secs(3));
    line.succeeded(begun + Duration::from_secs(2));
    let later = begun + Duration::from_secs(400);
    assert_eq!(line.pause(&demand(1), "ann", later, later), Some(Duration::from_secs(2)));
}

#[rstest::rstest]
#[case::longer_than_the_ladders(None, 420, true)]
#[case::longer_than_another(Some(60), 420, true)]
#[case::as_long(Some(420), 420, false)]
#[case::shorter(Some(420), 60, false)]
#[tokio::test(start_paused = true)]
async fn named_time_lengthens_a_shorter_pause(
    #[case] before: Option<u64>,
    #[case] time: u64,
    #[case] lengthens: bool,
) {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    let now = Instant::now();
    let begun = now - Duration::from_secs(1);
    line.pause(&before.map_or(demand(1), |before| named(1, before)), "ann", begun, now);
    let length = lengthens.then(|| Duration::from_secs(time));
    assert_eq!(line.pause(&named(1, time), "ann", begun, now), length);
    assert_eq!(line.pause(&named(1, time), "ann", begun, now), None, "a second such answer is no news");
    assert_eq!(line.pause(&demand(1), "ann", begun, now), None);
    let longest = time.max(before.unwrap_or_default());
    assert_eq!(pump(&mut line, 10).wake, Some(now + Duration::from_secs(longest)));
}

#[tokio::test(start_paused = true)]
async fn milder_named_time_keeps_the_graver_demand() {
    let mut line = line(&record(None));
    let now = Instant::now();
    let begun = now - Duration::from_secs(1);
    assert_eq!(line.pause(&demand(900), "ann", begun, now), Some(Duration::from_secs(900)));
    assert_eq!(line.pause(&named(1, 1_200), "ann", begun, now), Some(Duration::from_secs(1_200)));
    assert_eq!(line.pause(&demand(900), "ann", begun, now), None, "in flight when the first was demanded");
}

#[tokio::test(start_paused = true)]
async fn answers_in_flight_do_not_lengthen_a_pause() {
    let mut line = line(&record(None));
    let begun = Instant::now();
    let now = begun + Duration::from_millis(100);
    assert_eq!(line.pause(&demand(1), "ann", begun, now), Some(Duration::from_secs(1)));
    for _ in 0..40 {
        assert_eq!(line.pause(&demand(1), "ann", begun, now), None);
    }
    assert_eq!(
        line.pause(&demand(1_800), "ann", begun, now),
        Some(Duration::from_secs(1_800)),
        "of another kind"
    );
    let later = now + Duration::from_secs(2_000);
    assert_eq!(
        line.pause(&demand(1), "ann", later, later),
        Some(Duration::from_secs(2)),
        "after the pause it doubles"
    );
}

#[test]
fn refusal_has_the_words_that_ingest_knows() {
    let reason = format!("{GRAPH_PAUSE_PREFIX}{}", crate::policy::classify::CANNOT_SEND);
    assert_eq!(reason, crate::store::REFUSED_PAUSE);
    assert!(is_refusal(&format!("{reason}: Graph code 190")));
    assert!(!is_refusal("Graph: slowed down: Graph code 613"));
}

fn refused_line() -> PauseDemand {
    PauseDemand {
        target: crate::policy::classify::PauseTarget::Line,
        first: Duration::from_secs(1_800),
        cap: Duration::from_secs(4 * 3_600),
        named: None,
        ends_with_trial: true,
        reason: "190".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn call_after_an_ended_pause_demands_the_next() {
    let mut line = line(&record(None));
    let demand = refused_line();
    let half_an_hour = Duration::from_secs(1_800);
    let now = Instant::now();
    assert_eq!(line.pause(&demand, "ann", now - Duration::from_secs(1), now), Some(half_an_hour));
    // A new token, which is refused as well.
    let later = now + Duration::from_secs(300);
    assert_eq!(line.pause(&demand, "bob", later, later), Some(half_an_hour * 2));
    assert_eq!(line.pause(&demand, "ann", now, later), None, "in flight when the second was demanded");
    let last = later + Duration::from_secs(4_000);
    assert_eq!(line.pause(&demand, "bob", last, last), Some(half_an_hour), "by the same recipient");

    let mut other = self::line(&record(None));
    other.pause_with_app(&demand, half_an_hour, now);
    assert_eq!(other.pause(&demand, "ann", now - Duration::from_secs(1), now), None, "demanded of all lines");
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
