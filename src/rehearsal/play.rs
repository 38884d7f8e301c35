//! The seconds of a campaign, one after the other; seconds in which no line may send are skipped.
//!
//! A line's rate is what the pacer of a worker lets through in a second. Budgets and calls in flight are shared
//! among the lines in turn.

use super::budget::Budget;
use super::profile::{LineProfile, Profile, Usual, WrongProfile};
use super::queue::Queue;
use super::report::{Binding, LineReport, Report, bind};
use crate::channel::Medium;
use crate::policy::pace::{Limits, quota};

/// Ten years: a longer campaign has a mistake in its profile.
const LONGEST: u64 = 10 * 365 * 86_400;

/// Rehearse a campaign.
pub fn rehearse(profile: &Profile, usual: &Usual) -> Result<Report, WrongProfile> {
    profile.check()?;
    let mut lines: Vec<PlayedLine> = profile.lines.iter().map(|line| PlayedLine::new(line, usual)).collect();
    let mut stage = Stage {
        app: profile.app_budget.map(Budget::new),
        in_flight: f64::from(profile.concurrency.unwrap_or(usual.concurrency)) * f64::from(profile.workers),
        latency: [profile.latency.as_secs_f64(), profile.media_latency.as_secs_f64()],
        checks_windows: profile.window_check.unwrap_or(usual.window_check),
        free: 0.0,
        waiting: 0,
    };
    let mut now = 0;
    while lines.iter().any(PlayedLine::is_open) {
        if now > LONGEST {
            return Err(WrongProfile::new(
                "line",
                "the campaign takes more than ten years; check the limits",
            ));
        }
        let until = stage.second(&mut lines, now);
        now = until;
    }
    Ok(report(lines))
}

/// The limits that the lines share.
struct Stage {
    app: Option<Budget>,
    /// Calls that may be in flight at a time.
    in_flight: f64,
    /// Seconds that a call takes, text and media.
    latency: [f64; 2],
    checks_windows: bool,
    /// Seconds of calls in flight that are left in this second; below zero, a later one pays.
    free: f64,
    /// Lines that have not had their turn in this second.
    waiting: u64,
}

struct PlayedLine {
    report: LineReport,
    budget: Option<Budget>,
    flows: [Flow; 2],
}

/// The messages of one medium.
struct Flow {
    medium: Medium,
    queue: Queue,
    rate: u32,
}

impl PlayedLine {
    fn new(line: &LineProfile, usual: &Usual) -> PlayedLine {
        let defaults = usual.rates(line.class);
        let limits =
            Limits::of(line.class, defaults, usual.enforce_ceilings, line.rate_text, line.rate_media);
        let budget = line.budget.map(Budget::new);
        let flow = |medium: Medium| {
            let rate = quota(limits.of_medium(medium).per_second).rate.get();
            let at_best = budget.as_ref().map_or(f64::INFINITY, Budget::rate).min(f64::from(rate));
            Flow { medium, queue: Queue::of(line, medium, at_best), rate }
        };
        let flows = [flow(Medium::Text), flow(Medium::Media)];
        let report = LineReport {
            name: line.name.clone(),
            class: line.class,
            takes_seconds: 0,
            recipients: line.recipients,
            sent: 0,
            outside: 0,
            calls: 0,
            rate_text: limits.text.per_second.get(),
            rate_media: limits.media.per_second.get(),
            clamped_from: limits.text.clamped_from.or(limits.media.clamped_from),
            limits: Vec::new(),
        };
        PlayedLine { report, budget, flows }
    }

    fn is_open(&self) -> bool {
        self.flows.iter().any(|flow| !flow.queue.is_empty())
    }
}

impl Stage {
    /// Play a second; return when the next one begins in which there may be something to do.
    fn second(&mut self, lines: &mut [PlayedLine], now: u64) -> u64 {
        // A call that takes longer than a second uses the room of several.
        let [text, media] = self.latency;
        self.free = (self.free + self.in_flight).min(self.in_flight.max(text).max(media));
        let open = lines.iter().filter(|line| line.is_open()).count();
        self.waiting = open as u64;
        let mut calls = 0;
        let mut bindings = Vec::new();
        // Another line is first in each second, so that none has the leftovers of the others for ever.
        let first = usize::try_from(now).unwrap_or_default() % lines.len();
        for place in (first..lines.len()).chain(0..first) {
            let line = &mut lines[place];
            if line.is_open() {
                calls += self.turn(line, now, place, &mut bindings);
                self.waiting -= 1;
            }
        }
        let waits_for_budgets =
            bindings.iter().all(|(_, limit)| matches!(limit, Binding::LineBudget | Binding::AppBudget));
        let until = if calls == 0 && waits_for_budgets { self.next(lines, now) } else { now + 1 };
        for (place, limit) in bindings {
            bind(&mut lines[place].report.limits, limit, now, until);
        }
        until
    }

    /// Let a line send in this second, and return its calls.
    fn turn(
        &mut self,
        line: &mut PlayedLine,
        now: u64,
        place: usize,
        bindings: &mut Vec<(usize, Binding)>,
    ) -> u64 {
        let PlayedLine { report, budget, flows } = line;
        let mut calls = 0;
        for flow in flows.iter_mut() {
            if self.checks_windows {
                report.outside += flow.queue.end_closed(now);
            }
            if flow.queue.is_empty() {
                continue;
            }
            let (most, limit) = self.most(flow, budget.as_mut(), now);
            let made = self.send(flow, report, most, now);
            if !flow.queue.is_empty() {
                bindings.push((place, limit));
            }
            if let Some(budget) = budget.as_mut() {
                budget.take(now, made);
            }
            if let Some(app) = &mut self.app {
                app.take(now, made);
            }
            self.free -= made as f64 * self.latency[usize::from(flow.medium == Medium::Media)];
            calls += made;
        }
        report.calls += calls;
        if flows.iter().all(|flow| flow.queue.is_empty()) {
            report.takes_seconds = if calls > 0 { now + 1 } else { now };
        }
        calls
    }

    /// Return how many calls a flow may make in this second, and the limit that says so.
    fn most(&mut self, flow: &Flow, budget: Option<&mut Budget>, now: u64) -> (u64, Binding) {
        let rate = if flow.medium == Medium::Text { Binding::TextRate } else { Binding::MediaRate };
        let latency = self.latency[usize::from(flow.medium == Medium::Media)];
        let share = |whole: f64| (whole / self.waiting.max(1) as f64).ceil().max(0.0);
        let room = match latency > 0.0 {
            true => share(self.free.max(0.0) / latency) as u64,
            false => u64::MAX,
        };
        let own = budget.map_or(u64::MAX, |budget| budget.left(now));
        let of_app = match &mut self.app {
            Some(app) => {
                let left = app.left(now);
                left.div_ceil(self.waiting.max(1)).min(left)
            }
            None => u64::MAX,
        };
        [
            (u64::from(flow.rate), rate),
            (own, Binding::LineBudget),
            (of_app, Binding::AppBudget),
            (room, Binding::Concurrency),
        ]
        .into_iter()
        .min_by_key(|(calls, _)| *calls)
        .unwrap_or((0, rate))
    }

    /// Send up to so many messages of a flow, and return the calls that were made.
    fn send(&self, flow: &mut Flow, report: &mut LineReport, most: u64, now: u64) -> u64 {
        let mut calls = 0;
        while calls < most {
            if self.checks_windows {
                report.outside += flow.queue.end_closed(now);
            }
            let Some(is_open) = flow.queue.take(now) else { break };
            calls += 1;
            // A refusal outside the window costs its call.
            report.sent += u64::from(is_open);
            report.outside += u64::from(!is_open);
        }
        calls
    }

    /// Return the next second in which a call leaves a budget.
    fn next(&self, lines: &[PlayedLine], now: u64) -> u64 {
        let own = lines.iter().filter_map(|line| line.budget.as_ref().and_then(Budget::next_leaves));
        let leaves = own.chain(self.app.as_ref().and_then(Budget::next_leaves));
        leaves.filter(|second| *second > now).min().unwrap_or(now + 1)
    }
}

fn report(lines: Vec<PlayedLine>) -> Report {
    let mut lines: Vec<LineReport> = lines.into_iter().map(|line| line.report).collect();
    for line in &mut lines {
        line.limits.sort_by_key(|bound| std::cmp::Reverse(bound.seconds));
    }
    let sum = |of: fn(&LineReport) -> u64| lines.iter().map(of).sum();
    Report {
        takes_seconds: lines.iter().map(|line| line.takes_seconds).max().unwrap_or_default(),
        recipients: sum(|line| line.recipients),
        sent: sum(|line| line.sent),
        outside: sum(|line| line.outside),
        calls: sum(|line| line.calls),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::profile::{Closing, RollingBudget};
    use super::*;
    use crate::channel::{Class, Rates};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn line(recipients: u64) -> LineProfile {
        LineProfile {
            name: "Shop".to_owned(),
            class: Class::MESSENGER,
            recipients,
            rate_text: Some(40),
            rate_media: Some(10),
            media_share: 0.0,
            open_share: 1.0,
            closing: Closing { first: 24 * HOUR, last: 24 * HOUR },
            budget: None,
        }
    }

    fn profile(lines: Vec<LineProfile>) -> Profile {
        Profile {
            latency: Duration::from_millis(100),
            media_latency: Duration::from_secs(1),
            workers: 1,
            concurrency: None,
            window_check: None,
            app_budget: None,
            lines,
        }
    }

    fn play(profile: &Profile) -> Report {
        let rates = vec![(Class::MESSENGER, Rates { text: 40, media: 10 })];
        let usual = Usual { rates, enforce_ceilings: true, concurrency: 512, window_check: false };
        rehearse(profile, &usual).expect("the profile is right")
    }

    fn limits(report: &Report) -> Vec<Binding> {
        report.lines[0].limits.iter().map(|bound| bound.limit).collect()
    }

    #[test]
    fn rate_alone_says_how_long() {
        let report = play(&profile(vec![line(39_000)]));
        // The pacer of a line at 40 a second lets 39 through in the long run.
        assert_eq!((report.takes_seconds, report.sent, report.outside), (1_000, 39_000, 0));
        assert_eq!(limits(&report), [Binding::TextRate]);
        let faster = LineProfile { rate_text: Some(5_000), ..line(39_000) };
        let report = play(&profile(vec![faster]));
        assert_eq!((report.lines[0].rate_text, report.lines[0].clamped_from), (300, Some(5_000)));
    }

    #[test]
    fn media_has_a_rate_of_its_own() {
        let report = play(&profile(vec![LineProfile { media_share: 0.5, ..line(20_000) }]));
        assert_eq!(limits(&report)[0], Binding::MediaRate);
        assert!((990..=1_010).contains(&report.takes_seconds), "{}", report.takes_seconds);
    }

    #[test]
    fn budget_binds_when_it_is_shorter() {
        let budget = Some(RollingBudget { calls: 1_000, window: Duration::from_secs(100), stranger: 0.0 });
        let report = play(&profile(vec![LineProfile { budget, ..line(9_700) }]));
        assert_eq!(limits(&report)[0], Binding::LineBudget);
        // Ten windows of 970 calls, the last of which needs 25 seconds.
        assert!((920..=930).contains(&report.takes_seconds), "{}", report.takes_seconds);
    }

    #[test]
    fn lines_of_an_app_share_its_budget() {
        let lines = (0..4).map(|_| line(2_000)).collect();
        let app_budget = Some(RollingBudget { calls: 2_000, window: Duration::from_secs(60), stranger: 0.2 });
        let report = play(&Profile { app_budget, ..profile(lines) });
        assert_eq!(report.sent, 8_000);
        let takes: Vec<u64> = report.lines.iter().map(|line| line.takes_seconds).collect();
        let (shortest, longest) = (takes.iter().min().copied(), takes.iter().max().copied());
        assert!(
            longest.zip(shortest).is_some_and(|(longest, shortest)| longest - shortest <= 60),
            "{takes:?}"
        );
        assert_eq!(limits(&report)[0], Binding::AppBudget);
    }

    #[test]
    fn windows_close_while_the_backlog_waits() {
        let closing = Closing { first: Duration::ZERO, last: Duration::from_secs(600) };
        let campaign = profile(vec![LineProfile { closing, open_share: 0.5, ..line(39_000) }]);
        let refused = play(&campaign);
        assert_eq!((refused.takes_seconds, refused.calls), (1_000, 39_000));
        // All closed ones, and no open one: these go first.
        assert!((19_400..=19_600).contains(&refused.outside), "{}", refused.outside);
        let checked = play(&Profile { window_check: Some(true), ..campaign });
        assert_eq!(checked.sent + checked.outside, 39_000);
        assert_eq!(checked.calls, checked.sent);
        assert!((495..=505).contains(&checked.takes_seconds), "{}", checked.takes_seconds);
    }

    #[test]
    fn slow_graph_binds_by_calls_in_flight() {
        let slow =
            Profile { latency: Duration::from_secs(2), concurrency: Some(10), ..profile(vec![line(500)]) };
        let report = play(&slow);
        assert_eq!((report.takes_seconds, limits(&report)), (100, vec![Binding::Concurrency]));
    }

    #[test]
    fn wrong_profile_is_named() {
        let usual = Usual { rates: Vec::new(), enforce_ceilings: true, concurrency: 1, window_check: false };
        let wrong = |profile: Profile| rehearse(&profile, &usual).expect_err("it is wrong").to_string();
        assert!(wrong(profile(Vec::new())).starts_with("line: "));
        let share = LineProfile { media_share: 1.5, ..line(1) };
        assert_eq!(wrong(profile(vec![share])), "line Shop: media_share: must be 0 to 1");
        let budget = Some(RollingBudget { calls: 0, window: HOUR, stranger: 0.0 });
        assert!(wrong(profile(vec![LineProfile { budget, ..line(1) }])).contains("budget.calls"));
    }
}
