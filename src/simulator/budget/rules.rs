//! The rules for budgets, as `PUT /simulator/budgets` gives them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30 * 86_400);
const LINE_CODES: [u32; 4] = [613, 80001, 80002, 80006];

/// The budgets in force, as `PUT /simulator/budgets` gives them.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetRules {
    /// All calls of an app.
    pub app: Option<AppBudget>,
    /// All calls of a Page or Instagram account.
    pub line: Option<LineBudget>,
    pub headers: UsageHeaders,
    /// The share of each budget that others use, 0 to 1.
    pub stranger: f64,
    /// Whether the headers also name other objects and types.
    pub foreign: bool,
    /// The time that refusals name; `None`: until the oldest call leaves the window.
    pub regain_minutes: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AppBudget {
    pub calls: u64,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LineBudget {
    pub calls: u64,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// The refusal's code; by default that of the object.
    #[serde(default)]
    pub code: Option<u32>,
    #[serde(default)]
    pub header: LineHeader,
}

/// When answers name the use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageHeaders {
    #[default]
    Always,
    Rarely,
    Late,
    Broken,
    Never,
}

/// The header that names a line's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LineHeader {
    #[default]
    Business,
    Page,
    Both,
}

impl BudgetRules {
    /// Return what is wrong with the rules.
    pub(in crate::simulator) fn check(&self) -> Result<(), String> {
        for (name, calls, window) in [
            self.app.map(|budget| ("app", budget.calls, budget.window)),
            self.line.map(|budget| ("line", budget.calls, budget.window)),
        ]
        .into_iter()
        .flatten()
        {
            if calls == 0 {
                return Err(format!("{name}.calls: must be above 0"));
            }
            if !WINDOWS.contains(&window) {
                return Err(format!("{name}.window: must be 100ms to 30d"));
            }
        }
        if !(0.0..=1.0).contains(&self.stranger) {
            return Err("stranger: must be 0 to 1".to_owned());
        }
        if self.line.and_then(|line| line.code).is_some_and(|code| !LINE_CODES.contains(&code)) {
            return Err("line.code: must be 613, 80001, 80002 or 80006".to_owned());
        }
        Ok(())
    }

    /// Return the calls that others take from a budget.
    pub(super) fn strangers(&self, calls: u64) -> u64 {
        (calls as f64 * self.stranger).round() as u64
    }
}
