//! `GET /api/v2/lines` and `GET /api/v2/lines/{app_id}`: the account's lines, the state of each, and the end
//! of its obstacle.
//!
//! Never here: a page access token.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::documented::{self, LinePath, RefusedLines, RefusedOne};
use super::progress::Binding;
use super::service::{Api, in_time, turn};
use crate::channel::{Class, Login, Medium, Rates};
use crate::domain::{AccountId, LineId, TokenScope};
use crate::edge::http::answer;
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::policy::classify::remedy_of_pause;
use crate::policy::pace::Limits;
use crate::settings::{ClassLimits, LimitSettings};
use crate::store::{LineBacklog, LineSummary, LineUse, REFUSED_PAUSE, UNOPENED_PAUSE};
use crate::text::{is_blank, trimmed};

/// A longer pause has no end in the answer.
const LONGEST_PAUSE: time::Duration = time::Duration::days(3_650);

pub const SENDING: &str = "sending";
pub const PAUSED: &str = "paused";
pub const INACTIVE: &str = "inactive";
pub const NO_TOKEN: &str = "no_token";

/// A line of the account
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Line)]
pub struct LineStatus {
    #[schema(value_type = i64)]
    pub app_id: LineId,
    #[schema(required)]
    name: Option<String>,
    #[schema(inline)]
    class: Class,
    #[schema(schema_with = states)]
    state: &'static str,
    /// Why the line does not send
    #[schema(required)]
    reason: Option<String>,
    /// End of a pause; null without an end
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    until: Option<OffsetDateTime>,
    /// Action that lets the line send again, if a person has to act
    #[schema(required)]
    action: Option<String>,
    /// Limit of texts a second
    rate_text: u32,
    /// Limit of media a second
    rate_media: u32,
    /// Number of messages that wait
    waiting: i64,
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    oldest_waiting_at: Option<OffsetDateTime>,
    /// Chosen way to connect; null: the token shows it
    #[schema(required, inline)]
    graph: Option<Login>,
    /// End of the page access token; null: not known
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    token_expires_at: Option<OffsetDateTime>,
    /// Use of Meta's budgets in percent, the highest of the line's own and its app's; null: not told lately
    #[schema(required)]
    budget_use: Option<f64>,
    /// Messages a second to which Meta's budgets limit the line, or all lines of its app together, now; null: they do
    /// not
    #[schema(required)]
    limited_to: Option<f64>,
    /// Messages that the line may send in 24 hours: 200 for each person who wrote to it in that time; null: not known
    #[schema(required)]
    day_budget: Option<i64>,
}

fn states() -> RefOr<Schema> {
    let states = [SENDING, PAUSED, INACTIVE, NO_TOKEN];
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(states)).into()
}

#[derive(Serialize, ToSchema)]
#[schema(as = Lines)]
struct LineList {
    lines: Vec<LineStatus>,
}

/// List the lines of the account
#[utoipa::path(
    get,
    path = "/api/v2/lines",
    operation_id = "listLines",
    params(Token),
    responses(
        (status = 200, description = "The lines, by id", body = LineList, examples(
            ("lines" = (summary = "One line", value = json!(documented::lines()))),
        )),
        RefusedLines,
    ),
)]
pub async fn list(State(api): State<Arc<Api>>, head: Parts) -> Response {
    answer(listed(&api, &head).await)
}

async fn listed(api: &Api, head: &Parts) -> Result<LineList, Refused> {
    let account = api.account(head, TokenScope::Read, &[]).await?;
    let records = in_time(api.store.account_lines(account)).await?;
    Ok(LineList { lines: api.line_statuses(account, &records).await? })
}

/// Get a line
#[utoipa::path(
    get,
    path = "/api/v2/lines/{app_id}",
    operation_id = "showLine",
    params(Token, LinePath),
    responses(
        (status = 200, description = "The line", body = LineStatus, examples(
            ("sending" = (summary = "It sends", value = json!(documented::line()))),
            ("paused" = (summary = "Paused by the operator", value = json!(documented::paused_line()))),
        )),
        RefusedOne,
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Response {
    answer(shown(&api, id, &head).await)
}

async fn shown(
    api: &Api,
    id: Result<Path<String>, PathRejection>,
    head: &Parts,
) -> Result<LineStatus, Refused> {
    let account = api.account(head, TokenScope::Read, &[]).await?;
    let id: LineId = id.ok().and_then(|Path(id)| trimmed(&id).parse().ok()).ok_or(Refusal::NotFound)?;
    let mut records = in_time(api.store.line_summaries(&[id])).await?;
    records.retain(|record| record.account == account);
    Ok(api.line_statuses(account, &records).await?.pop().ok_or(Refusal::NotFound)?)
}

impl Api {
    /// Return the lines as callers see them, in the same order.
    pub(super) async fn line_statuses(
        &self,
        account: AccountId,
        records: &[LineSummary],
    ) -> Result<Vec<LineStatus>, Refusal> {
        let ids: Vec<LineId> = records.iter().map(|record| record.id).collect();
        let _turn = turn(&self.lists, account).await?;
        let backlog = in_time(self.store.line_backlog(&ids)).await?;
        let uses = in_time(self.store.line_uses(&ids)).await?;
        let of_line = |record: &LineSummary| {
            let waiting = backlog.iter().find(|backlog| backlog.line == record.id);
            let status = status(record, waiting, &self.limits, OffsetDateTime::now_utc());
            match uses.iter().find(|found| found.line == record.id) {
                Some(found) => status.with(found),
                None => status,
            }
        };
        Ok(records.iter().map(of_line).collect())
    }
}

fn status(
    record: &LineSummary,
    waiting: Option<&LineBacklog>,
    limits: &LimitSettings,
    now: OffsetDateTime,
) -> LineStatus {
    let Obstacle { state, reason, until, action } = obstacle(record, now).unwrap_or_default();
    LineStatus {
        app_id: record.id,
        name: record.name.clone(),
        class: record.class,
        state,
        reason,
        until,
        action: action.map(str::to_owned),
        rate_text: per_second(record, Medium::Text, limits),
        rate_media: per_second(record, Medium::Media, limits),
        waiting: waiting.map_or(0, |backlog| backlog.waiting),
        oldest_waiting_at: waiting.and_then(|backlog| backlog.oldest),
        graph: record.login,
        token_expires_at: record.token_expires_at,
        budget_use: None,
        limited_to: None,
        day_budget: None,
    }
}

impl LineStatus {
    fn with(self, found: &LineUse) -> LineStatus {
        LineStatus {
            budget_use: found.percent.map(tenths),
            limited_to: found.limited_to.map(tenths),
            day_budget: found.day_budget,
            ..self
        }
    }

    /// Return what Meta's budgets mean for the line's campaigns.
    pub(super) fn binding(&self) -> Binding {
        Binding { line: self.app_id, limited_to: self.limited_to, day_budget: self.day_budget }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Return the limit in force.
pub fn per_second(line: &LineSummary, medium: Medium, limits: &LimitSettings) -> u32 {
    let ClassLimits { text, media } = limits.of(line.class);
    let defaults = Rates { text, media };
    let in_force = Limits::of(line.class, defaults, limits.enforce_ceilings, line.rate_text, line.rate_media);
    in_force.of_medium(medium).per_second.get()
}

/// The reason for which a line does not send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub state: &'static str,
    pub reason: Option<String>,
    pub until: Option<OffsetDateTime>,
    /// The remedy; `None`: the obstacle ends by itself.
    pub action: Option<&'static str>,
}

impl Default for Obstacle {
    /// Return no obstacle.
    fn default() -> Obstacle {
        Obstacle { state: SENDING, reason: None, until: None, action: None }
    }
}

/// Whether a line sends only after a person has acted.
pub fn needs_somebody(record: &LineSummary, now: OffsetDateTime) -> bool {
    obstacle(record, now).is_some_and(|obstacle| obstacle.action.is_some())
}

/// Return the obstacle that has to be removed first, if the line cannot send.
pub fn obstacle(record: &LineSummary, now: OffsetDateTime) -> Option<Obstacle> {
    let of = |state, reason: &str, action| {
        Some(Obstacle { state, reason: Some(reason.to_owned()), until: None, action: Some(action) })
    };
    if !record.account_active {
        return of(INACTIVE, "The account is disabled", "The operator enables it: `account enable`");
    }
    if !record.active {
        return of(
            INACTIVE,
            "The line is switched off",
            "The operator switches it on: `line set --active true`",
        );
    }
    if !record.has_token {
        return of(NO_TOKEN, "The line has no page access token", "The operator sets one: `line set-pat`");
    }
    if record.class.needs_page_id && record.page_id.as_deref().is_none_or(is_blank) {
        return of(
            INACTIVE,
            "The line has no Facebook Page id",
            "The operator sets it: `line set --page-id`",
        );
    }
    if record.lacks_account_id() {
        let reason = "The line has no Instagram account id, which Unified Login needs";
        return of(INACTIVE, reason, "The operator sets it: `line set --ig-account-id`");
    }
    let until = record.paused_until.filter(|until| *until > now)?;
    let reason = record.pause_reason.clone();
    let begins = |start: &str| reason.as_deref().is_some_and(|reason| reason.starts_with(start));
    let is_endless = until - now > LONGEST_PAUSE;
    let action = if begins(REFUSED_PAUSE) {
        let of_code = reason.as_deref().and_then(remedy_of_pause);
        of_code.or(Some(
            "The operator mends the cause at Meta (`line resume`), or sets a new token (`line set-pat`)",
        ))
    } else if begins(UNOPENED_PAUSE) {
        Some("The operator puts the key into `security.key`, or sets a new token (`line set-pat`)")
    } else {
        is_endless.then_some("The operator ends the pause: `line resume`")
    };
    Some(Obstacle { state: PAUSED, reason, until: Some(until).filter(|_| !is_endless), action })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);
    const SOON: OffsetDateTime = datetime!(2026-11-25 12:30 UTC);
    const NEVER: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

    fn line() -> LineSummary {
        LineSummary {
            id: LineId(7),
            account: AccountId(1),
            name: Some("Acme".into()),
            class: Class::MESSENGER,
            active: true,
            account_active: true,
            has_token: true,
            page_id: Some("1".into()),
            instagram_account_id: None,
            login: None,
            token_expires_at: None,
            rate_text: Some(5_000),
            rate_media: None,
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    fn paused(until: OffsetDateTime, reason: &str) -> LineSummary {
        LineSummary { paused_until: Some(until), pause_reason: Some(reason.into()), ..line() }
    }

    #[rstest]
    #[case::it_sends(line(), SENDING, None, false)]
    #[case::switched_off(LineSummary { active: false, has_token: false, ..line() }, INACTIVE, None, true)]
    #[case::without_a_token(LineSummary { has_token: false, ..line() }, NO_TOKEN, None, true)]
    #[case::without_a_page(LineSummary { page_id: None, ..line() }, INACTIVE, None, true)]
    #[case::unified_without_an_account(
        LineSummary { login: Some(Login::Unified), ..line() }, INACTIVE, None, true
    )]
    #[case::slowed_down(paused(SOON, "Graph: slowed down: 613"), PAUSED, Some(SOON), false)]
    #[case::refused(paused(SOON, "Graph: cannot send: 190/460"), PAUSED, Some(SOON), true)]
    #[case::by_the_operator(paused(NEVER, "new page"), PAUSED, None, true)]
    #[case::not_opened(paused(NEVER, "page token cannot be opened: why"), PAUSED, None, true)]
    #[case::pause_has_ended(paused(NOW, "new page"), SENDING, None, false)]
    fn state_names_the_remedy(
        #[case] record: LineSummary,
        #[case] state: &str,
        #[case] until: Option<OffsetDateTime>,
        #[case] somebody: bool,
    ) {
        let limits = LimitSettings {
            enforce_ceilings: true,
            classes: Class::ALL.iter().map(|own| (*own, ClassLimits { text: 40, media: 10 })).collect(),
        };
        let shown = status(&record, None, &limits, NOW);
        assert_eq!((shown.state, shown.until, shown.action.is_some()), (state, until, somebody));
        assert_eq!(needs_somebody(&record, NOW), somebody);
        assert_eq!(shown.reason.is_none(), state == SENDING);
        assert_eq!((shown.rate_text, shown.rate_media, shown.waiting), (300, 10, 0));
    }
}
