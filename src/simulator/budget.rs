//! Budgets: how many calls an app or a line may make in a rolling window, and how their use is told in headers.
//!
//! Pure but for the counts it keeps: the time of a call is an argument. Never here: the limit a second that
//! `--limit-per-token` sets (`limits.rs`).

mod rolling;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{APP_USAGE, BUSINESS_USAGE, PAGE_USAGE};
use super::identities::Object;
use super::limits::UsagePercent;
use super::refusal::{APP_BUDGET_SPENT, PlayedError, line_budget_spent};
use rolling::{LATE_STEPS, RollingCount};
pub use rules::{AppBudget, BudgetRules, LineBudget, LineHeader, UsageHeaders};

/// The greatest age of a late header.
const LATEST: Duration = Duration::from_secs(10);
/// With `rarely`, one answer in so many names the use.
const RARELY: u64 = 50;

/// The calls that an app or a line has made.
#[derive(Debug)]
struct Counter {
    window: Duration,
    count: RollingCount,
    accepted: u64,
    refused: u64,
    /// Answers so far, which choose when and how the use is told.
    answers: u64,
}

impl Counter {
    fn new(window: Duration) -> Counter {
        Counter { window, count: RollingCount::new(window), accepted: 0, refused: 0, answers: 0 }
    }
}

/// How much of a budget is used.
#[derive(Debug, Clone, Copy)]
struct Use {
    percent: UsagePercent,
    is_over: bool,
    /// Until the next call leaves the window.
    regained_in: Duration,
    answers: u64,
}

/// The verdict about a call.
#[derive(Debug, Default)]
pub(super) struct BudgetVerdict {
    pub refusal: Option<PlayedError>,
    /// The usage headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The budgets of all apps and lines.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    rules: Option<BudgetRules>,
    apps: HashMap<String, Counter>,
    lines: HashMap<String, Counter>,
}

/// The use of a budget, for `GET /simulator/budgets`.
#[derive(Debug, Serialize)]
pub(super) struct BudgetUse {
    used: u64,
    calls: u64,
    percent: u64,
    accepted: u64,
    refused: u64,
}

impl Budgets {
    pub fn put(&mut self, rules: BudgetRules) {
        let app = rules.app.map(|budget| budget.window);
        let line = rules.line.map(|budget| budget.window);
        self.apps.retain(|_, counter| Some(counter.window) == app);
        self.lines.retain(|_, counter| Some(counter.window) == line);
        self.rules = Some(rules);
    }

    /// Forget all calls.
    pub fn reset(&mut self) {
        self.apps.clear();
        self.lines.clear();
    }

    /// Count a call, or refuse it. `None` without budgets: then headers follow the other limits.
    pub fn take(&mut self, app: &str, account: &str, object: Object, at: Duration) -> Option<BudgetVerdict> {
        let rules = self.rules.clone()?;
        let of_app = rules.app.map(|budget| (budget.calls, counter(&mut self.apps, app, budget.window)));
        let of_line =
            rules.line.map(|budget| (budget.calls, counter(&mut self.lines, account, budget.window)));
        let look = |budget: &Option<(u64, &mut Counter)>| {
            budget.as_ref().map(|(calls, counter)| usage(&rules, *calls, counter, at))
        };
        let (app_use, line_use) = (look(&of_app), look(&of_line));
        let is_app_over = app_use.is_some_and(|usage| usage.is_over);
        let is_line_over = !is_app_over && line_use.is_some_and(|usage| usage.is_over);
        for (counter, is_over) in [
            of_app.map(|(_, counter)| (counter, is_app_over)),
            of_line.map(|(_, counter)| (counter, is_line_over)),
        ]
        .into_iter()
        .flatten()
        {
            counter.answers += 1;
            if is_over {
                counter.refused += 1;
            } else if !is_app_over && !is_line_over {
                counter.accepted += 1;
                counter.count.add(at);
            }
        }
        let mut headers = Vec::new();
        if let Some(usage) = app_use {
            push(&mut headers, APP_USAGE, rules.tell(usage, |percent| percents(percent, percent)));
        }
        if let (Some(usage), Some(budget)) = (line_use, rules.line) {
            if budget.header != LineHeader::Page {
                let regain = if is_line_over { rules.regain_minutes(usage) } else { 0 };
                let told = rules
                    .tell(usage, |percent| business_usage(account, object, percent, regain, rules.foreign));
                push(&mut headers, BUSINESS_USAGE, told);
            }
            if budget.header != LineHeader::Business {
                push(&mut headers, PAGE_USAGE, rules.tell(usage, |percent| percents(percent, percent / 2)));
            }
        }
        let refusal = if is_app_over {
            Some(APP_BUDGET_SPENT)
        } else {
            let code = rules.line.and_then(|line| line.code).unwrap_or(match object {
                Object::Page => 80006,
                Object::Instagram => 80002,
            });
            is_line_over.then(|| line_budget_spent(code))
        };
        Some(BudgetVerdict { refusal, headers })
    }

    /// Return the use of each app and line.
    pub fn uses(&self, at: Duration) -> Value {
        let Some(rules) = &self.rules else { return json!({ "app": {}, "line": {} }) };
        let list = |counters: &HashMap<String, Counter>, calls: Option<u64>| -> BTreeMap<String, BudgetUse> {
            let Some(calls) = calls else { return BTreeMap::new() };
            let of = |counter: &Counter| {
                let used = counter.count.used(at, 0) + rules.strangers(calls);
                let (accepted, refused) = (counter.accepted, counter.refused);
                BudgetUse { used, calls, percent: used * 100 / calls, accepted, refused }
            };
            counters.iter().map(|(id, counter)| (id.clone(), of(counter))).collect()
        };
        json!({
            "app": list(&self.apps, rules.app.map(|budget| budget.calls)),
            "line": list(&self.lines, rules.line.map(|budget| budget.calls)),
        })
    }
}

fn counter<'a>(counters: &'a mut HashMap<String, Counter>, id: &str, window: Duration) -> &'a mut Counter {
    counters.entry(id.to_owned()).or_insert_with(|| Counter::new(window))
}

/// Return how much of a budget is used if this call counts, and as a header tells it.
fn usage(rules: &BudgetRules, calls: u64, counter: &Counter, at: Duration) -> Use {
    let strangers = rules.strangers(calls);
    let used = counter.count.used(at, 0) + strangers + 1;
    let is_over = used > calls;
    let told = match rules.headers {
        UsageHeaders::Late if !is_over => {
            let latest = (LATEST.as_nanos() / counter.count.step.as_nanos().max(1)) as u64;
            counter.count.used(at, LATE_STEPS.min(latest)) + strangers
        }
        _ => used,
    };
    let percent = UsagePercent::try_from(told * 100 / calls).unwrap_or(UsagePercent::MAX);
    Use {
        percent: if is_over { percent.max(101) } else { percent },
        is_over,
        regained_in: counter.count.until_the_next_leaves(at),
        answers: counter.answers + 1,
    }
}

impl BudgetRules {
    /// Return the value of a usage header, or `None` for an answer that tells nothing.
    fn tell(&self, usage: Use, value: impl Fn(UsagePercent) -> Value) -> Option<String> {
        match self.headers {
            UsageHeaders::Always | UsageHeaders::Late => Some(value(usage.percent).to_string()),
            UsageHeaders::Rarely => {
                usage.answers.is_multiple_of(RARELY).then(|| value(usage.percent).to_string())
            }
            UsageHeaders::Broken => Some(match usage.answers % 4 {
                0 => String::new(),
                1 => {
                    let whole = value(usage.percent).to_string();
                    whole.chars().take(whole.len() / 2).collect()
                }
                2 => r#"{"call_count":"many","total_cputime":null,"total_time":[]}"#.to_owned(),
                _ => r#"{"call_count":-7,"total_cputime":1e99,"total_time":-1}"#.to_owned(),
            }),
            UsageHeaders::Never => None,
        }
    }

    fn regain_minutes(&self, usage: Use) -> u32 {
        let computed =
            || u32::try_from(usage.regained_in.as_secs_f64().ceil() as u64).map(|s| s.div_ceil(60));
        self.regain_minutes.unwrap_or_else(|| computed().unwrap_or(u32::MAX).max(1))
    }
}

fn push(headers: &mut Vec<(HeaderName, HeaderValue)>, name: HeaderName, value: Option<String>) {
    headers.extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (name, value)));
}

fn percents(calls: UsagePercent, time: UsagePercent) -> Value {
    json!({ "call_count": calls, "total_time": time, "total_cputime": time })
}

fn business_usage(
    account: &str,
    object: Object,
    percent: UsagePercent,
    regain_minutes: u32,
    foreign: bool,
) -> Value {
    let of = |kind: &str, percent: UsagePercent, regain: u32| {
        json!({
            "type": kind,
            "call_count": percent,
            "total_cputime": percent / 2,
            "total_time": percent / 2,
            "estimated_time_to_regain_access": regain,
        })
    };
    let own = of(object.use_case(), percent, regain_minutes);
    if !foreign {
        return json!({ account: [own] });
    }
    let other = if object == Object::Page { Object::Instagram } else { Object::Page };
    json!({
        "999999999999999": [of(object.use_case(), 100, 60)],
        account: [of("ads_management", 99, 45), own],
        "999999999999998": [of(other.use_case(), 100, 60)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budgets(rules: Value) -> Budgets {
        let mut budgets = Budgets::default();
        let rules: BudgetRules = serde_json::from_value(rules).expect("rules of the test");
        assert_eq!(rules.check(), Ok(()));
        budgets.put(rules);
        budgets
    }

    fn take(budgets: &mut Budgets, account: &str, at: Duration) -> BudgetVerdict {
        budgets.take("app", account, Object::Page, at).expect("budgets are on")
    }

    fn header(verdict: &BudgetVerdict, name: &HeaderName) -> Option<Value> {
        let (_, value) = verdict.headers.iter().find(|(given, _)| given == name)?;
        serde_json::from_slice(value.as_bytes()).ok()
    }

    #[test]
    fn no_window_holds_more_calls_than_the_budget() {
        let mut budgets = budgets(json!({ "line": { "calls": 50, "window": "10s" } }));
        let times = (0..60_000).step_by(37).map(Duration::from_millis);
        let taken: Vec<Duration> =
            times.filter(|at| take(&mut budgets, "1001", *at).refusal.is_none()).collect();
        for (index, first) in taken.iter().enumerate() {
            let within = taken[index..].iter().take_while(|at| **at - *first < 10 * SECOND).count();
            assert!(within <= 50, "{within} within ten seconds from {first:?}");
        }
        assert!(taken.len() >= 6 * 49, "{} taken in a minute", taken.len());
    }

    #[test]
    fn refusal_names_code_percent_and_time() {
        let mut budgets = budgets(json!({ "line": { "calls": 2, "window": "150s" } }));
        take(&mut budgets, "1001", Duration::ZERO);
        let second = take(&mut budgets, "1001", SECOND);
        let usage = header(&second, &BUSINESS_USAGE).expect("it is named");
        assert_eq!(usage["1001"][0]["call_count"], 100);
        assert_eq!(usage["1001"][0]["estimated_time_to_regain_access"], 0);
        let third = take(&mut budgets, "1001", 10 * SECOND);
        assert_eq!(third.refusal.map(|error| error.code), Some(80006));
        let usage = header(&third, &BUSINESS_USAGE).expect("it is named");
        assert_eq!(usage["1001"][0]["call_count"], 150);
        assert_eq!(usage["1001"][0]["estimated_time_to_regain_access"], 3);
        assert_eq!(take(&mut budgets, "1002", 10 * SECOND).refusal, None);
        let instagram = budgets.take("app", "1001", Object::Instagram, 10 * SECOND).expect("budgets are on");
        assert_eq!(instagram.refusal.map(|error| error.code), Some(80002));
    }

    #[test]
    fn lines_of_an_app_share_its_budget() {
        let mut budgets = budgets(json!({ "app": { "calls": 3, "window": "60s" } }));
        for account in ["1", "2", "3"] {
            assert_eq!(take(&mut budgets, account, SECOND).refusal, None);
        }
        let fourth = take(&mut budgets, "4", SECOND);
        assert_eq!(fourth.refusal, Some(APP_BUDGET_SPENT));
        assert!(header(&fourth, &APP_USAGE).expect("it is named")["call_count"].as_u64() > Some(100));
        assert_eq!(budgets.uses(SECOND)["app"]["app"]["refused"], 1);
    }

    #[test]
    fn stranger_takes_a_share() {
        let mut budgets = budgets(json!({ "line": { "calls": 10, "window": "60s" }, "stranger": 0.2 }));
        let taken = (0..10).filter(|_| take(&mut budgets, "1", SECOND).refusal.is_none()).count();
        assert_eq!(taken, 8);
        assert_eq!(budgets.uses(SECOND)["line"]["1"]["used"], 10);
    }

    #[test]
    fn headers_come_as_asked() {
        let rules = |headers: &str| json!({ "line": { "calls": 1000, "window": "60s", "header": "both" }, "headers": headers });
        let mut rarely = budgets(rules("rarely"));
        let named = (0..200).filter(|_| !take(&mut rarely, "1", SECOND).headers.is_empty()).count();
        assert_eq!(named, 4);
        let mut never = budgets(rules("never"));
        assert!((0..2000).all(|_| take(&mut never, "1", SECOND).headers.is_empty()));
        let mut late = budgets(rules("late"));
        (0..500).for_each(|_| drop(take(&mut late, "1", SECOND)));
        let percent = |verdict: BudgetVerdict| {
            header(&verdict, &PAGE_USAGE).expect("it is named")["call_count"].as_u64()
        };
        assert_eq!(percent(take(&mut late, "1", 2 * SECOND)), Some(0));
        assert_eq!(percent(take(&mut late, "1", 8 * SECOND)), Some(50));
        let mut broken = budgets(rules("broken"));
        let told = (0..8).map(|_| take(&mut broken, "1", SECOND).headers.len()).collect::<Vec<_>>();
        assert_eq!(told, [2; 8]);
    }

    #[test]
    fn wrong_rules_are_named() {
        for (rules, key) in [
            (json!({ "line": { "calls": 0, "window": "60s" } }), "line.calls"),
            (json!({ "app": { "calls": 1, "window": "1ms" } }), "app.window"),
            (json!({ "stranger": 1.5 }), "stranger"),
            (json!({ "line": { "calls": 1, "window": "1s", "code": 7 } }), "line.code"),
        ] {
            let rules: BudgetRules = serde_json::from_value(rules).expect("the shape is right");
            assert!(rules.check().is_err_and(|wrong| wrong.starts_with(key)), "{key}");
        }
    }
}
