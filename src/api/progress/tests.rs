use time::macros::datetime;

use super::*;
use crate::channel::{Class, Medium};
use crate::domain::AccountId;
use crate::settings::ClassLimits;

const NOW: OffsetDateTime = datetime!(2026-11-25 12:00:00 UTC);

fn count(line: i64, medium: Medium, status: Status, rows: i64) -> CampaignCount {
    CampaignCount { line: LineId(line), medium, status, rows, not_before: None }
}

fn line(id: i64) -> LineSummary {
    LineSummary {
        id: LineId(id),
        account: AccountId(1),
        name: None,
        class: Class::MESSENGER,
        active: true,
        account_active: true,
        has_token: true,
        page_id: Some("1".into()),
        instagram_account_id: None,
        login: None,
        token_expires_at: None,
        rate_text: None,
        rate_media: None,
        paused_until: None,
        pause_left: None,
        pause_reason: None,
    }
}

fn limits() -> LimitSettings {
    let class = ClassLimits { text: 40, media: 10 };
    LimitSettings { enforce_ceilings: true, classes: Class::ALL.iter().map(|own| (*own, class)).collect() }
}

fn seconds(counted: &[CampaignCount], lines: &[LineSummary]) -> Option<i64> {
    eta(counted, lines, &[], &limits(), NOW).map(|at| (at - NOW).whole_seconds())
}

#[rstest::rstest]
#[case::nothing_binds(None, None, 100)]
#[case::the_budget_is_slower(Some(10.0), None, 400)]
#[case::the_line_is_slower(Some(50.0), None, 100)]
#[case::calls_are_held(Some(0.0), None, 100)]
#[case::the_day_has_room(None, Some(4_000), 100)]
#[case::it_takes_two_days(None, Some(2_000), 86_400)]
#[case::nobody_wrote(None, Some(0), 100)]
fn estimate_knows_metas_budgets(
    #[case] limited_to: Option<f64>,
    #[case] day_budget: Option<i64>,
    #[case] expected: i64,
) {
    let waiting = [count(1, Medium::Text, Status::Pending, 4_000), count(1, Medium::Text, Status::Ok, 9)];
    let bindings = [Binding { line: LineId(1), limited_to, day_budget }];
    let ends = eta(&waiting, &[line(1)], &bindings, &limits(), NOW);
    assert_eq!(ends.map(|at| (at - NOW).whole_seconds()), Some(expected));
}

#[test]
fn estimate_follows_slowest_line_and_medium() {
    let text = count(1, Medium::Text, Status::Pending, 4_000);
    assert_eq!(seconds(&[text], &[line(1)]), Some(100));
    assert_eq!(seconds(&[text, count(1, Medium::Text, Status::Retry, 400)], &[line(1)]), Some(110));
    assert_eq!(seconds(&[text, count(1, Medium::Media, Status::Pending, 2_000)], &[line(1)]), Some(200));
    let own_limit = LineSummary { rate_text: Some(400), ..line(1) };
    assert_eq!(
        seconds(&[count(1, Medium::Text, Status::Pending, 3_000)], &[own_limit]),
        Some(10),
        "the ceiling"
    );
}

#[test]
fn estimate_waits_for_the_end_of_a_pause() {
    let waiting = [count(1, Medium::Text, Status::Pending, 400)];
    let paused = |until| LineSummary { paused_until: Some(until), ..line(1) };
    assert_eq!(seconds(&waiting, &[paused(datetime!(2026-11-25 12:01:00 UTC))]), Some(70));
    assert_eq!(seconds(&waiting, &[paused(datetime!(2026-11-25 11:00:00 UTC))]), Some(10));
    assert_eq!(seconds(&waiting, &[paused(datetime!(9999-12-31 23:59:59 UTC))]), None);
}

#[test]
fn estimate_waits_for_the_scheduled_time() {
    let scheduled =
        |at| CampaignCount { not_before: Some(at), ..count(1, Medium::Text, Status::Pending, 400) };
    let in_a_minute = scheduled(datetime!(2026-11-25 12:01:00 UTC));
    assert_eq!(seconds(&[in_a_minute], &[line(1)]), Some(70));
    assert_eq!(seconds(&[in_a_minute, count(1, Medium::Text, Status::Retry, 40)], &[line(1)]), Some(71));
    let paused = LineSummary { paused_until: Some(datetime!(2026-11-25 12:02:00 UTC)), ..line(1) };
    assert_eq!(seconds(&[in_a_minute], &[paused]), Some(130), "the later of the two");
    assert_eq!(seconds(&[scheduled(NOW)], &[line(1)]), Some(10));
}

#[test]
fn no_estimate_for_a_stopped_line_or_no_rows() {
    let waiting = [count(1, Medium::Text, Status::Pending, 400)];
    assert_eq!(seconds(&waiting, &[LineSummary { active: false, ..line(1) }]), None);
    assert_eq!(seconds(&waiting, &[LineSummary { has_token: false, ..line(1) }]), None);
    assert_eq!(seconds(&waiting, &[]), None);
    assert_eq!(seconds(&[count(1, Medium::Text, Status::Ok, 400)], &[line(1)]), None);
}

#[test]
fn finished_without_waiting_or_sending_rows() {
    let state =
        |state, status| Progress::of("c", state, &[count(1, Medium::Text, status, 1)], 0.0, Some(NOW));
    assert_eq!(state(CampaignState::Running, Status::Pending).state, "running");
    assert_eq!(state(CampaignState::Running, Status::Sending).state, "running");
    assert_eq!(state(CampaignState::Running, Status::Unknown).state, "finished");
    assert_eq!(state(CampaignState::Paused, Status::Ok).state, "paused");
    assert_eq!(state(CampaignState::Cancelled, Status::Ok).state, "cancelled");
    assert!(state(CampaignState::Running, Status::Retry).eta.is_some());
    assert!(state(CampaignState::Paused, Status::Pending).eta.is_none());
}
