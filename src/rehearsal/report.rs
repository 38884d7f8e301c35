//! The result of a rehearsal. Times are seconds after the start.

use serde::Serialize;

use crate::channel::Class;

/// The whole campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub takes_seconds: u64,
    pub recipients: u64,
    /// Messages that Graph took.
    pub sent: u64,
    /// Messages whose recipient's window was closed when their turn came.
    pub outside: u64,
    /// Calls of Graph, refused ones included.
    pub calls: u64,
    pub lines: Vec<LineReport>,
}

/// A line's part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LineReport {
    pub name: String,
    pub class: Class,
    pub takes_seconds: u64,
    pub recipients: u64,
    pub sent: u64,
    pub outside: u64,
    pub calls: u64,
    /// Limits in force, in messages a second.
    pub rate_text: u32,
    pub rate_media: u32,
    /// The limit that the profile names, if it is above Meta's ceiling.
    pub clamped_from: Option<u32>,
    /// The limits that the line waited for, the longest first.
    pub limits: Vec<Bound>,
}

/// A limit that held a line back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    pub limit: Binding,
    /// The first second in which the line waited for it, and the end of the last.
    pub from_seconds: u64,
    pub until_seconds: u64,
    /// Seconds in which it was the tightest.
    pub seconds: u64,
}

/// A limit that can hold a line back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    TextRate,
    MediaRate,
    LineBudget,
    AppBudget,
    Concurrency,
}

impl Binding {
    /// Return the words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Binding::TextRate => "text rate",
            Binding::MediaRate => "media rate",
            Binding::LineBudget => "line budget",
            Binding::AppBudget => "app budget",
            Binding::Concurrency => "calls in flight",
        }
    }
}

/// Adds a second to the record of a limit.
pub(super) fn bind(bounds: &mut Vec<Bound>, limit: Binding, from: u64, until: u64) {
    match bounds.iter_mut().find(|bound| bound.limit == limit) {
        Some(bound) => {
            // Text and media may wait for the same limit in one second.
            if bound.until_seconds < until {
                bound.seconds += until - from.max(bound.until_seconds);
                bound.until_seconds = until;
            }
        }
        None => bounds.push(Bound { limit, from_seconds: from, until_seconds: until, seconds: until - from }),
    }
}
