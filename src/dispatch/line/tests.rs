use std::time::Duration;

use super::*;
use crate::message::{AccountId, MessageKind};
use crate::store::{Position, WorkRead};

const HORIZON: Duration = Duration::from_millis(15);

fn record(rate_text: Option<u32>) -> LineRecord {
    LineRecord {
        id: LineId(7),
        account: AccountId(1),
        name: None,
        class: Class::Messenger,
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
    let mut line = Line::new(LineId(7), Memory::of(u64::MAX));
    configure(&mut line, record);
    line
}

fn configure(line: &mut Line, record: &LineRecord) {
    line.configure(record, &limits(), false, Instant::now());
}

fn row(id: i64, kind: MessageKind) -> ReadyRow {
    ReadyRow {
        id: MessageId(id),
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

/// Work of one row.
fn give(line: &mut Line, row: ReadyRow) {
    let position = Position { first: row.id, work: row.work };
    line.queue.read_work(row.work, Some(WorkRead { position, flow: row.flow(), rows: vec![row] }));
}

fn pump(line: &mut Line, free: usize) -> Steps {
    let mut steps = Steps::default();
    line.pump(
        Instant::now(),
        HORIZON,
        Allowance { spare: free, room: free, media: true, ends: 64 },
        &mut steps,
    );
    steps
}

/// Answers claims at once and ends calls at once, as a fast database and a fast Graph do.
fn serve(line: &mut Line, steps: Steps) -> usize {
    for row in steps.claims {
        assert_eq!(line.claim_answered(row.id, true), Some(true));
    }
    let calls = steps.calls.len();
    for call in steps.calls {
        line.call_ended(&call.row, CallEnd::Ended);
    }
    calls
}

/// Runs a line with a backlog for a while, waking it when it asks; returns when its calls began.
async fn run(line: &mut Line, kind: MessageKind, length: Duration, lateness: Duration) -> Vec<Instant> {
    let mut next_id = 1;
    let mut calls = Vec::new();
    let end = Instant::now() + length;
    while Instant::now() < end {
        while line.queue_is_short(kind.medium()) {
            give(line, row(next_id, kind));
            next_id += 1;
        }
        let steps = pump(line, 1_000);
        let wake = steps.wake;
        let claimed = !steps.claims.is_empty();
        let began = serve(line, steps);
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
async fn no_one_second_window_holds_more_than_the_limit_and_one_and_the_limit_is_used() {
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
async fn a_slow_commit_does_not_bunch_calls() {
    let mut line = line(&record(Some(100)));
    let mut calls = Vec::new();
    let mut waiting = Vec::new();
    for id in 1..=400 {
        give(&mut line, row(id, MessageKind::Text));
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        let steps = pump(&mut line, 1_000);
        waiting.extend(steps.claims.iter().map(|row| row.id));
        for call in steps.calls {
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
async fn a_paused_line_claims_nothing_gives_claimed_rows_back_and_ends_its_pause_by_itself() {
    let mut line = line(&record(Some(1)));
    give(&mut line, row(1, MessageKind::Text));
    let steps = pump(&mut line, 10);
    assert_eq!(steps.claims.len(), 1);
    assert_eq!(line.claim_answered(MessageId(1), true), Some(true));

    line.pause_for(Duration::from_secs(5), Instant::now());
    let until = Instant::now() + Duration::from_secs(5);
    let mut steps = pump(&mut line, 10);
    assert!(steps.claims.is_empty() && steps.calls.is_empty());
    assert!(matches!(
        steps.changes[..],
        [(Change { id: MessageId(1), fence: 4, kind: ChangeKind::Release, .. }, None)]
    ));
    assert_eq!(steps.wake, Some(until));
    assert_eq!(line.permits(), 0);

    let back = steps.returned.pop().expect("it was given back");
    line.queue.give_back(ReadyRow { fence: 5, ..back });
    tokio::time::sleep_until(until).await;
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
}

#[rstest::rstest]
#[case::and_that_of_this_machine_is_an_hour_behind(Some(time::Duration::hours(1)))]
#[case::and_that_of_this_machine_is_an_hour_ahead(Some(time::Duration::hours(-1)))]
#[tokio::test(start_paused = true)]
async fn a_pause_lasts_as_long_as_the_databases_clock_says(#[case] off: Option<time::Duration>) {
    let left = Duration::from_secs(5);
    let paused_until = off.map(|off| time::OffsetDateTime::now_utc() + off + left);
    let mut line = line(&LineRecord { paused_until, pause_left: Some(left), ..record(None) });
    give(&mut line, row(1, MessageKind::Text));
    let steps = pump(&mut line, 10);
    assert_eq!((steps.claims.len(), steps.wake), (0, Some(Instant::now() + left)));
    tokio::time::sleep(left).await;
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_answered_too_late_is_given_back() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(line.claim_answered(MessageId(1), true), Some(true));
    let steps = pump(&mut line, 10);
    assert!(steps.calls.is_empty());
    assert!(matches!(steps.changes[..], [(Change { kind: ChangeKind::Release, .. }, None)]));
    assert_eq!(steps.returned.len(), 1, "its recipient waits until it is written");
}

#[tokio::test(start_paused = true)]
async fn an_expired_row_is_ended_and_not_claimed() {
    let mut line = line(&record(None));
    give(&mut line, ReadyRow { valid_for: time::Duration::ZERO, ..row(1, MessageKind::Text) });
    let steps = pump(&mut line, 10);
    assert!(steps.claims.is_empty());
    assert!(matches!(
        steps.changes[..],
        [(Change { id: MessageId(1), fence: 3, kind: ChangeKind::Expire, .. }, None)]
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
        let steps = pump(&mut line, 10);
        assert!((1..=64).contains(&steps.changes.len()), "{}", steps.changes.len());
        ended += steps.changes.len();
        assert_eq!(steps.wake.is_some(), steps.changes.len() == 64, "it looks again for what is left");
        tokio::time::sleep_until(steps.wake.unwrap_or_else(Instant::now)).await;
    }
    assert_eq!(ended, 200);
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_account_that_had_the_line_before_are_never_sent_from_it() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
    assert_eq!(line.claim_answered(MessageId(1), true), Some(true));
    configure(
        &mut line,
        &LineRecord { account: AccountId(2), page_token: Some("EAAother".into()), ..record(None) },
    );
    give(&mut line, row(2, MessageKind::Text));
    give(&mut line, ReadyRow { account: AccountId(2), ..row(3, MessageKind::Text) });
    let steps = pump(&mut line, 10);
    assert!(steps.calls.is_empty(), "not even one that was claimed before");
    assert!(matches!(
        steps.changes[..],
        [
            (Change { id: MessageId(1), kind: ChangeKind::Release, .. }, None),
            (Change { id: MessageId(2), kind: ChangeKind::Unsendable, .. }, None),
        ]
    ));
    assert_eq!(steps.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [MessageId(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_line_without_token_account_or_activity_sends_nothing() {
    for blocked in [
        LineRecord { page_token: None, ..record(None) },
        LineRecord { page_token: Some("".into()), ..record(None) },
        LineRecord { active: false, ..record(None) },
        LineRecord { account_active: false, ..record(None) },
    ] {
        let mut line = line(&blocked);
        give(&mut line, row(1, MessageKind::Text));
        let steps = pump(&mut line, 10);
        assert!(steps.claims.is_empty() && steps.calls.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_leaves_permits_for_others() {
    let mut line = line(&record(Some(300)));
    (1..=400).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    let mut free: usize = 100;
    // Calls hang: nothing comes back.
    for _ in 0..3_000 {
        let before = line.permits();
        let steps = pump(&mut line, free);
        free -= line.permits() - before;
        for row in steps.claims {
            assert_eq!(line.claim_answered(row.id, true), Some(true));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!((15..=25).contains(&free), "{free} of 100 permits are left for others");
    assert!(pump(&mut line, free).wants_permits);
    assert!(!pump(&mut line, 100).claims.is_empty(), "it goes on when permits come free");
}

#[tokio::test(start_paused = true)]
async fn the_one_call_that_the_breaker_lets_out_may_be_of_a_line_whose_calls_hang() {
    let mut line = line(&record(Some(300)));
    (1..=100).for_each(|id| give(&mut line, row(id, MessageKind::Text)));
    while line.permits() < 30 {
        let spare = 1_000 - line.permits();
        let steps = pump(&mut line, spare);
        for row in &steps.claims {
            line.claim_answered(row.id, true);
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut steps = Steps::default();
    line.pump(Instant::now(), HORIZON, Allowance { spare: 970, room: 1, media: true, ends: 64 }, &mut steps);
    assert_eq!((steps.claims.len(), steps.wants_permits), (1, true));
}

#[tokio::test(start_paused = true)]
async fn while_calls_are_tried_media_is_not_claimed_and_waits_its_turn() {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Video));
    let trial = Allowance { spare: 100, room: 1, media: false, ends: 64 };
    let mut steps = Steps::default();
    line.pump(Instant::now(), HORIZON, trial, &mut steps);
    assert_eq!((steps.claims.len(), steps.wants_permits), (0, true));
    give(&mut line, row(2, MessageKind::Text));
    let mut steps = Steps::default();
    line.pump(Instant::now(), HORIZON, trial, &mut steps);
    assert_eq!(steps.claims.iter().map(|row| row.id).collect::<Vec<_>>(), [MessageId(2)]);
}

fn demand(first: u64) -> PauseDemand {
    PauseDemand {
        target: crate::policy::classify::PauseTarget::Line,
        first: Duration::from_secs(first),
        cap: Duration::from_secs(first * 60),
        named: None,
        reason: "613".into(),
    }
}

fn named(first: u64, named: u64) -> PauseDemand {
    PauseDemand { named: Some(Duration::from_secs(named)), ..demand(first) }
}

#[tokio::test(start_paused = true)]
async fn a_success_in_flight_when_a_pause_was_demanded_leaves_its_ladder_alone() {
    let mut line = line(&record(None));
    let seconds = Duration::from_secs;
    let begun = Instant::now();
    let first = begun + seconds(1);
    assert_eq!(line.pause(&demand(1), begun, first), Some(seconds(1)));
    line.succeeded(begun);
    let second = first + seconds(5);
    assert_eq!(line.pause(&demand(1), second, second), Some(seconds(2)), "the second step");
    line.succeeded(first + seconds(2));
    let third = second + seconds(5);
    assert_eq!(
        line.pause(&demand(1), third, third),
        Some(seconds(4)),
        "the third, as it began before the second"
    );
    line.succeeded(third + seconds(5));
    let fourth = third + seconds(10);
    assert_eq!(
        line.pause(&demand(1), fourth, fourth),
        Some(seconds(1)),
        "the first, after a success since then"
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_in_flight_when_the_whole_app_was_paused_leaves_the_ladder_alone() {
    let mut line = line(&record(None));
    let begun = Instant::now();
    line.pause(&demand(1), begun, begun);
    line.pause_with_app(&demand(300), Duration::from_secs(300), begun + Duration::from_secs(3));
    line.succeeded(begun + Duration::from_secs(2));
    let later = begun + Duration::from_secs(400);
    assert_eq!(line.pause(&demand(1), later, later), Some(Duration::from_secs(2)));
}

#[rstest::rstest]
#[case::longer_than_the_ladders(None, 420, true)]
#[case::longer_than_another(Some(60), 420, true)]
#[case::as_long(Some(420), 420, false)]
#[case::shorter(Some(420), 60, false)]
#[tokio::test(start_paused = true)]
async fn a_named_time_from_a_call_in_flight_lengthens_a_shorter_pause(
    #[case] before: Option<u64>,
    #[case] time: u64,
    #[case] lengthens: bool,
) {
    let mut line = line(&record(None));
    give(&mut line, row(1, MessageKind::Text));
    let now = Instant::now();
    let begun = now - Duration::from_secs(1);
    line.pause(&before.map_or(demand(1), |before| named(1, before)), begun, now);
    let length = lengthens.then(|| Duration::from_secs(time));
    assert_eq!(line.pause(&named(1, time), begun, now), length);
    assert_eq!(line.pause(&named(1, time), begun, now), None, "a second such answer is no news");
    assert_eq!(line.pause(&demand(1), begun, now), None);
    let longest = time.max(before.unwrap_or_default());
    assert_eq!(pump(&mut line, 10).wake, Some(now + Duration::from_secs(longest)));
}

#[tokio::test(start_paused = true)]
async fn a_named_time_of_a_milder_kind_does_not_forget_the_graver_demand() {
    let mut line = line(&record(None));
    let now = Instant::now();
    let begun = now - Duration::from_secs(1);
    assert_eq!(line.pause(&demand(900), begun, now), Some(Duration::from_secs(900)));
    assert_eq!(line.pause(&named(1, 1_200), begun, now), Some(Duration::from_secs(1_200)));
    assert_eq!(line.pause(&demand(900), begun, now), None, "in flight when the first was demanded");
}

#[tokio::test(start_paused = true)]
async fn answers_that_were_in_flight_when_a_pause_began_do_not_lengthen_it() {
    let mut line = line(&record(None));
    let begun = Instant::now();
    let now = begun + Duration::from_millis(100);
    assert_eq!(line.pause(&demand(1), begun, now), Some(Duration::from_secs(1)));
    for _ in 0..40 {
        assert_eq!(line.pause(&demand(1), begun, now), None);
    }
    assert_eq!(line.pause(&demand(1_800), begun, now), Some(Duration::from_secs(1_800)), "of another kind");
    let later = now + Duration::from_secs(2_000);
    assert_eq!(
        line.pause(&demand(1), later, later),
        Some(Duration::from_secs(2)),
        "after the pause it doubles"
    );
}

fn refused_line() -> PauseDemand {
    PauseDemand {
        target: crate::policy::classify::PauseTarget::Line,
        first: Duration::from_secs(1_800),
        cap: Duration::from_secs(4 * 3_600),
        named: None,
        reason: "190".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_begun_after_somebody_ended_the_pause_demands_the_next_one() {
    let mut line = line(&record(None));
    let demand = refused_line();
    let half_an_hour = Duration::from_secs(1_800);
    let now = Instant::now();
    assert_eq!(line.pause(&demand, now - Duration::from_secs(1), now), Some(half_an_hour));
    // A new token, which is refused as well.
    let later = now + Duration::from_secs(300);
    assert_eq!(line.pause(&demand, later, later), Some(half_an_hour * 2));
    assert_eq!(line.pause(&demand, now, later), None, "in flight when the second was demanded");

    let mut other = self::line(&record(None));
    other.pause_with_app(&demand, half_an_hour, now);
    assert_eq!(other.pause(&demand, now - Duration::from_secs(1), now), None, "demanded of all lines");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlived_its_line_frees_no_permit_of_the_lines_next_life() {
    let mut line = line(&record(None));
    give(&mut line, row(2, MessageKind::Text));
    let steps = pump(&mut line, 10);
    assert!(steps.claims.iter().all(|row| line.claim_answered(row.id, true) == Some(true)));
    let before = line.permits();
    for end in [CallEnd::Ended, CallEnd::Returns] {
        line.call_ended(&row(1, MessageKind::Text), end);
    }
    assert_eq!(line.permits(), before);
    assert_eq!(line.reserved(), before);
}
