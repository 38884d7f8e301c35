//! Pauses that answers demand, and that the record shows.

use super::*;
use crate::dispatch::line::pauses::{GRAPH_PAUSE_PREFIX, is_refusal};
use crate::policy::classify::CANNOT_SEND;
use crate::store::REFUSED_PAUSE;

fn named(first: u64, named: u64) -> PauseDemand {
    PauseDemand { named: Some(Duration::from_secs(named)), ..demand(first) }
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
    let reason = format!("{GRAPH_PAUSE_PREFIX}{}", CANNOT_SEND);
    assert_eq!(reason, REFUSED_PAUSE);
    assert!(is_refusal(&format!("{reason}: Graph code 190")));
    assert!(!is_refusal("Graph: slowed down: Graph code 613"));
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

    let mut other = super::line(&record(None));
    other.pause_with_app(&demand, half_an_hour, now);
    assert_eq!(other.pause(&demand, "ann", now - Duration::from_secs(1), now), None, "demanded of all lines");
}
