//! The progress of a campaign, computed from its counts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::lines::{LineStatus, needs_somebody, per_second};
use crate::domain::{CampaignState, LineId, Status};
use crate::settings::LimitSettings;
use crate::store::{CampaignCount, ErrorCount, LineSummary};

/// The `state` of a campaign that runs and has no row waiting or in a call.
pub const FINISHED: &str = "finished";

/// The words of `state`.
pub const STATES: [&str; 4] = [
    CampaignState::Running.as_str(),
    CampaignState::Paused.as_str(),
    CampaignState::Cancelled.as_str(),
    FINISHED,
];

/// Progress of a campaign
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct Progress {
    pub cp_id: String,
    /// `finished`: the campaign runs, and none of its messages waits or is in a call
    #[schema(schema_with = state)]
    pub state: &'static str,
    /// Number of rows by status
    #[schema(schema_with = counts)]
    pub counts: BTreeMap<&'static str, i64>,
    pub total: i64,
    /// Number of rows that Meta has told to be delivered
    pub delivered: i64,
    /// Number of rows that Meta has told to be read
    pub read: i64,
    /// Messages sent in a second, at present
    pub rate: f64,
    /// Earliest time at which the last waiting row can be sent; null if unknown, or while somebody has to act
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub eta: Option<OffsetDateTime>,
    /// Errors of its `ERROR` rows, the most frequent first; not in lists
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub errors: Option<Vec<ErrorCount>>,
    /// Lines of its rows
    pub lines: Vec<LineStatus>,
    /// Number of waiting rows to which the command applies; only in answers to commands
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub touched: Option<i64>,
}

/// Return the schema of `state`.
fn state() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(STATES)).into()
}

/// Return the schema of `counts`: each status is a member.
fn counts() -> RefOr<Schema> {
    let counts = ObjectBuilder::new().schema_type(Type::Object).description(Some("Number of rows by status"));
    let count = |object: ObjectBuilder, status: &Status| {
        object.property(status.as_str(), i64::schema()).required(status.as_str())
    };
    Status::ALL.iter().fold(counts, count).into()
}

/// Whether rows of this status wait for their next call.
pub fn waits(status: Status) -> bool {
    matches!(status, Status::Pending | Status::Retry)
}

impl Progress {
    pub fn of(
        cp_id: &str,
        state: CampaignState,
        counted: &[CampaignCount],
        rate: f64,
        eta: Option<OffsetDateTime>,
    ) -> Progress {
        let mut counts: BTreeMap<&'static str, i64> =
            Status::ALL.iter().map(|status| (status.as_str(), 0)).collect();
        for count in counted {
            *counts.entry(count.status.as_str()).or_default() += count.rows;
        }
        let going_on = counted.iter().any(|count| waits(count.status) || count.status == Status::Sending);
        let state = match state {
            CampaignState::Running if !going_on => FINISHED,
            state => state.as_str(),
        };
        Progress {
            cp_id: cp_id.to_owned(),
            state,
            total: counts.values().sum(),
            counts,
            delivered: 0,
            read: 0,
            errors: None,
            lines: Vec::new(),
            rate: (rate * 10.0).round() / 10.0,
            eta: eta.filter(|_| state == "running"),
            touched: None,
        }
    }
}

/// The limits that Meta's budgets set for a line.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub line: LineId,
    /// Messages a second to which the line is limited now.
    pub limited_to: Option<f64>,
    /// Messages that the line may send in 24 hours.
    pub day_budget: Option<i64>,
}

const DAY: f64 = 86_400.0;

impl Binding {
    /// Return the least time in which the line can send so many messages.
    fn takes(&self, rows: i64) -> Duration {
        let limited = self.limited_to.filter(|rate| *rate > 0.0).map_or(0.0, |rate| rows as f64 / rate);
        let days =
            self.day_budget.filter(|budget| *budget > 0).map_or(0.0, |budget| rows as f64 / budget as f64);
        // The budget of the first day may go at once.
        let spread = (days - 1.0).max(0.0) * DAY;
        Duration::try_from_secs_f64(limited.max(spread)).unwrap_or(Duration::MAX)
    }
}

/// Return the earliest time at which the last waiting row can be sent: each line sends text and media at its
/// limits and within Meta's budgets, from the end of its pause on, and from the time for which its newest row is
/// scheduled. `None` where no row waits, or a line cannot send until a person acts.
pub fn eta(
    counted: &[CampaignCount],
    lines: &[LineSummary],
    bindings: &[Binding],
    limits: &LimitSettings,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let mut latest = None;
    for binding in bindings {
        let line = lines.iter().find(|line| line.id == binding.line);
        let rows: i64 = counted
            .iter()
            .filter(|count| count.line == binding.line && waits(count.status))
            .map(|count| count.rows)
            .sum();
        if rows > 0 {
            let begins = line.and_then(|line| line.paused_until).map_or(now, |until| until.max(now));
            latest = latest.max(begins.checked_add(time::Duration::try_from(binding.takes(rows)).ok()?));
        }
    }
    for group in waiting(counted) {
        let line = lines.iter().find(|line| line.id == group.line)?;
        if needs_somebody(line, now) {
            return None;
        }
        let begins = [Some(now), line.paused_until, group.not_before].into_iter().flatten().max()?;
        let rate = f64::from(per_second(line, group.medium, limits));
        let takes = Duration::from_secs_f64(group.rows as f64 / rate);
        let ends = begins.checked_add(time::Duration::try_from(takes).ok()?)?;
        latest = latest.max(Some(ends));
    }
    latest
}

/// Return the waiting rows by line and medium.
fn waiting(counted: &[CampaignCount]) -> Vec<CampaignCount> {
    let mut groups: Vec<CampaignCount> = Vec::new();
    for count in counted.iter().filter(|count| waits(count.status)) {
        match groups.iter_mut().find(|group| (group.line, group.medium) == (count.line, count.medium)) {
            Some(group) => {
                group.rows += count.rows;
                group.not_before = group.not_before.max(count.not_before);
            }
            None => groups.push(*count),
        }
    }
    groups
}

/// Return the lines of the rows.
pub fn lines_of(counted: &[CampaignCount]) -> Vec<LineId> {
    let mut lines: Vec<LineId> = counted.iter().map(|count| count.line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[cfg(test)]
#[path = "progress/tests.rs"]
mod tests;
