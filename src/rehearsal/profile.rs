//! The profile of a campaign: the lines with their limits, the recipients with their windows, and Graph.

use std::time::Duration;

use serde::Deserialize;

use crate::channel::{Class, Rates};

/// Recipients of all lines: more take too long and too much memory.
const MOST_RECIPIENTS: u64 = 20_000_000;
const MOST_LINES: usize = 1_000;
/// The longest window of a budget.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// A campaign, as a file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Time that Graph takes for a text.
    #[serde(default = "usual_latency", with = "humantime_serde")]
    pub latency: Duration,
    /// Time that Graph takes for media; without uploads Graph fetches the asset in it.
    #[serde(default = "usual_media_latency", with = "humantime_serde")]
    pub media_latency: Duration,
    /// Worker processes.
    #[serde(default = "one")]
    pub workers: u32,
    /// Calls that a worker has in flight at most; by default `dispatch.concurrency`.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// By default `dispatch.window_check`.
    #[serde(default)]
    pub window_check: Option<bool>,
    /// The budget that the lines share as one app.
    #[serde(default)]
    pub app_budget: Option<RollingBudget>,
    /// The lines that send.
    #[serde(default, rename = "line")]
    pub lines: Vec<LineProfile>,
}

/// A line, and the part of the campaign that it sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineProfile {
    pub name: String,
    pub class: Class,
    pub recipients: u64,
    /// Messages a second; by default the class's limit.
    #[serde(default)]
    pub rate_text: Option<u32>,
    #[serde(default)]
    pub rate_media: Option<u32>,
    /// The share of messages that are no text, 0 to 1.
    #[serde(default)]
    pub media_share: f64,
    /// The share of recipients whose window is open at the start, 0 to 1.
    #[serde(default = "all")]
    pub open_share: f64,
    /// When the open windows close.
    #[serde(default)]
    pub closing: Closing,
    /// The line's own budget.
    #[serde(default)]
    pub budget: Option<RollingBudget>,
}

/// Calls that Graph takes in any window of this length.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollingBudget {
    pub calls: u64,
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// The share that others use, 0 to 1.
    #[serde(default)]
    pub stranger: f64,
}

/// Windows close evenly between two times after the start.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    #[serde(with = "humantime_serde")]
    pub first: Duration,
    #[serde(with = "humantime_serde")]
    pub last: Duration,
}

impl Default for Closing {
    fn default() -> Closing {
        Closing { first: Duration::ZERO, last: Duration::from_secs(24 * 3_600) }
    }
}

/// The settings of the program where a profile says nothing.
#[derive(Debug, Clone)]
pub struct Usual {
    pub rates: Vec<(Class, Rates)>,
    pub enforce_ceilings: bool,
    pub concurrency: u32,
    pub window_check: bool,
}

impl Usual {
    /// Return the limits of a line of this class that has none of its own.
    pub(super) fn rates(&self, class: Class) -> Rates {
        let known = self.rates.iter().find(|(known, _)| *known == class);
        known.map_or(class.ceiling, |(_, rates)| *rates)
    }
}

/// A profile that describes no campaign.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{key}: {wrong}")]
pub struct WrongProfile {
    key: String,
    wrong: String,
}

impl WrongProfile {
    pub(super) fn new(key: &str, wrong: impl Into<String>) -> WrongProfile {
        WrongProfile { key: key.to_owned(), wrong: wrong.into() }
    }
}

impl Profile {
    /// Check everything that a type does not.
    pub(super) fn check(&self) -> Result<(), WrongProfile> {
        if self.lines.is_empty() {
            return Err(WrongProfile::new("line", "a campaign needs at least one [[line]]"));
        }
        if self.lines.len() > MOST_LINES {
            return Err(WrongProfile::new("line", format!("at most {MOST_LINES} lines")));
        }
        if self.lines.iter().map(|line| line.recipients).fold(0, u64::saturating_add) > MOST_RECIPIENTS {
            return Err(WrongProfile::new("recipients", format!("at most {MOST_RECIPIENTS} in all lines")));
        }
        if self.workers == 0 {
            return Err(WrongProfile::new("workers", "must be above 0"));
        }
        if self.concurrency == Some(0) {
            return Err(WrongProfile::new("concurrency", "must be above 0"));
        }
        if let Some(budget) = &self.app_budget {
            budget.check("app_budget")?;
        }
        self.lines.iter().try_for_each(LineProfile::check)
    }
}

impl LineProfile {
    fn check(&self) -> Result<(), WrongProfile> {
        let key = |name: &str| format!("line {}: {name}", self.name);
        for (name, share) in [("media_share", self.media_share), ("open_share", self.open_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(WrongProfile::new(&key(name), "must be 0 to 1"));
            }
        }
        for (name, rate) in [("rate_text", self.rate_text), ("rate_media", self.rate_media)] {
            if rate == Some(0) {
                return Err(WrongProfile::new(&key(name), "must be above 0"));
            }
        }
        if self.closing.first > self.closing.last {
            return Err(WrongProfile::new(&key("closing"), "first must not be after last"));
        }
        self.budget.as_ref().map_or(Ok(()), |budget| budget.check(&key("budget")))
    }
}

impl RollingBudget {
    fn check(&self, key: &str) -> Result<(), WrongProfile> {
        if self.calls == 0 {
            return Err(WrongProfile::new(&format!("{key}.calls"), "must be above 0"));
        }
        if self.window < Duration::from_secs(1) || self.window > LONGEST_WINDOW {
            return Err(WrongProfile::new(&format!("{key}.window"), "must be 1s to 30d"));
        }
        if !(0.0..1.0).contains(&self.stranger) {
            return Err(WrongProfile::new(&format!("{key}.stranger"), "must be 0 or more, and below 1"));
        }
        Ok(())
    }
}

fn usual_latency() -> Duration {
    Duration::from_millis(300)
}

fn usual_media_latency() -> Duration {
    Duration::from_secs(2)
}

fn one() -> u32 {
    1
}

fn all() -> f64 {
    1.0
}
