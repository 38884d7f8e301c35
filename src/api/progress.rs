//! The progress of a campaign, computed from its counts. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::message::{CampaignState, LineId, Status};
use crate::policy::pace::{Limits, Rates};
use crate::settings::{ClassLimits, LimitSettings};
use crate::store::{CampaignCount, LineRecord};

/// A pause that lasts longer has no end that could be told.
const LONGEST_PAUSE: time::Duration = time::Duration::days(3_650);

/// What `state` says of a campaign that runs, and of which nothing waits or is on its way.
pub const FINISHED: &str = "finished";

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
    /// Messages sent in a second, at present
    pub rate: f64,
    /// Earliest time at which the last waiting row can be sent; null if unknown
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub eta: Option<OffsetDateTime>,
    /// Number of waiting rows to which the command applies; only in answers to commands
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub touched: Option<i64>,
}

/// What the OpenAPI document says of `state`.
fn state() -> RefOr<Schema> {
    let states = CampaignState::ALL.iter().map(|state| state.as_str()).chain([FINISHED]);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(states)).into()
}

/// What it says of `counts`: each status stands there.
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
            rate: (rate * 10.0).round() / 10.0,
            eta: eta.filter(|_| state == "running"),
            touched: None,
        }
    }
}

/// When the last waiting row can be on its way at the earliest: each line sends text and media at its limits, from the
/// end of its pause on, and from the time for which its newest row is scheduled. `None` where nothing waits, or a line
/// cannot send until somebody acts.
pub fn eta(
    counted: &[CampaignCount],
    lines: &[LineRecord],
    limits: &LimitSettings,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let mut latest = None;
    for group in waiting(counted) {
        let line = lines.iter().find(|line| line.id == group.line)?;
        let sends = line.active
            && line.account_active
            && line.page_token.as_ref().is_some_and(|token| !is_blank(token));
        let begins = [Some(now), line.paused_until, group.not_before].into_iter().flatten().max()?;
        if !sends || begins - now > LONGEST_PAUSE {
            return None;
        }
        let takes = Duration::from_secs_f64(group.rows as f64 / per_second(line, &group, limits));
        let ends = begins.checked_add(time::Duration::try_from(takes).ok()?)?;
        latest = latest.max(Some(ends));
    }
    latest
}

/// The waiting rows by line and medium.
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

fn per_second(line: &LineRecord, group: &CampaignCount, limits: &LimitSettings) -> f64 {
    let ClassLimits { text, media } = limits.of(line.class);
    let defaults = Rates { text, media };
    let in_force = Limits::of(line.class, defaults, limits.enforce_ceilings, line.rate_text, line.rate_media);
    f64::from(in_force.of_medium(group.medium).per_second.get())
}

fn is_blank(token: &secrecy::SecretString) -> bool {
    use secrecy::ExposeSecret;
    token.expose_secret().trim().is_empty()
}

/// The lines whose records an estimate needs.
pub fn lines_waiting(counted: &[CampaignCount]) -> Vec<LineId> {
    let mut lines: Vec<LineId> =
        counted.iter().filter(|count| waits(count.status)).map(|count| count.line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[cfg(test)]
#[path = "progress/tests.rs"]
mod tests;
