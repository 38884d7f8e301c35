//! `GET /api/v2/campaigns`, `GET /api/v2/campaigns/{cp_id}` and its commands: pause, resume, cancel.
//!
//! A command writes the campaign's state, which every claim checks, and then counts. After the answer only
//! calls in flight go out, however many rows the campaign has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::documented::{self, CampaignPath, CampaignsParameters, RefusedList, RefusedOne, RefusedResume};
use super::lines::LineStatus;
use super::parameters::{CampaignsRequest, OF_CAMPAIGNS, campaigns_cursor};
use super::progress::{Binding, Progress, eta, lines_of, waits};
use super::service::{Api, in_time, turn};
use crate::domain::{AccountId, CampaignState, MAX_CP_ID_CHARS, RowId, Status, TokenScope};
use crate::edge::http::answer;
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{CampaignCount, CampaignLabel, LineSummary, MessageFilter, Receipts};
use crate::text::trimmed;

/// The time over which the rate is computed.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Counts are remembered for this time, and for twice the time that they took.
const CACHE_TTL: Duration = Duration::from_secs(1);

type CampaignKey = (AccountId, String);
type FoundLines = Result<Vec<LineStatus>, Refusal>;

/// Counts that were taken a moment ago.
#[derive(Default)]
pub struct CountCache(Mutex<HashMap<CampaignKey, (Instant, Arc<CampaignSnapshot>)>>);

struct CampaignSnapshot {
    counts: Vec<CampaignCount>,
    rate: f64,
    receipts: Receipts,
}

impl CountCache {
    fn known(&self) -> MutexGuard<'_, HashMap<CampaignKey, (Instant, Arc<CampaignSnapshot>)>> {
        self.0.lock()
    }

    fn get(&self, key: &CampaignKey) -> Option<Arc<CampaignSnapshot>> {
        let now = Instant::now();
        self.known().get(key).filter(|(until, _)| *until > now).map(|(_, snapshot)| snapshot.clone())
    }

    fn put(&self, key: CampaignKey, snapshot: Arc<CampaignSnapshot>, took: Duration) {
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|_, (until, _)| *until > now);
        known.insert(key, (now + CACHE_TTL.max(took * 2), snapshot));
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Campaigns)]
struct CampaignPage {
    campaigns: Vec<Progress>,
    /// Value of `after` for the next page; null on the last page
    #[schema(required)]
    next: Option<String>,
}

/// List campaigns, newest first
#[utoipa::path(
    get,
    path = "/api/v2/campaigns",
    operation_id = "listCampaigns",
    params(Token, CampaignsParameters),
    responses(
        (status = 200, description = "One page of campaigns", body = CampaignPage, examples(
            ("campaigns" = (summary = "The last page", value = json!(documented::campaigns()))),
        )),
        RefusedList,
    ),
)]
pub async fn list(State(api): State<Arc<Api>>, head: Parts) -> Response {
    answer(api.campaigns(&head).await)
}

/// Get campaign progress
#[utoipa::path(
    get,
    path = "/api/v2/campaigns/{cp_id}",
    operation_id = "showCampaign",
    params(Token, CampaignPath),
    responses(
        (status = 200, description = "Progress", body = Progress, examples(
            ("running" = (summary = "Running", value = json!(documented::running()))),
            ("finished" = (summary = "Finished", value = json!(documented::finished()))),
        )),
        RefusedOne,
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    cp_id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Response {
    let shown = async {
        let key = api.campaign(cp_id, &head, TokenScope::Read).await?;
        let snapshot = api.snapshot(&key).await?;
        let state = in_time(api.store.campaign_state(key.0, &key.1)).await?;
        Ok::<_, Refused>(api.progress(&key, state, &snapshot, |lines| lines).await?)
    };
    answer(shown.await)
}

/// Pause a campaign
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/pause",
    operation_id = "pauseCampaign",
    params(Token, CampaignPath),
    responses(
        (status = 200, description = "Progress, with the number of touched rows", body = Progress, examples(
            ("paused" = (summary = "Paused", value = json!(documented::paused()))),
        )),
        RefusedOne,
    ),
)]
pub async fn pause(
    State(api): State<Arc<Api>>,
    cp_id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Response {
    answer(api.command(CampaignState::Paused, cp_id, &head).await)
}

/// Resume a campaign
///
/// A cancelled campaign cannot be resumed.
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/resume",
    operation_id = "resumeCampaign",
    params(Token, CampaignPath),
    responses(
        (status = 200, description = "Progress, with the number of touched rows", body = Progress, examples(
            ("running" = (summary = "Running again", value = json!(documented::resumed()))),
        )),
        RefusedResume,
    ),
)]
pub async fn resume(
    State(api): State<Arc<Api>>,
    cp_id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Response {
    answer(api.command(CampaignState::Running, cp_id, &head).await)
}

/// Cancel a campaign
///
/// Waiting messages are not sent. A cancelled campaign cannot be resumed.
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/cancel",
    operation_id = "cancelCampaign",
    params(Token, CampaignPath),
    responses(
        (status = 200, description = "Progress, with the number of touched rows", body = Progress, examples(
            ("cancelled" = (summary = "Cancelled", value = json!(documented::cancelled()))),
        )),
        RefusedOne,
    ),
)]
pub async fn cancel(
    State(api): State<Arc<Api>>,
    cp_id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Response {
    answer(api.command(CampaignState::Cancelled, cp_id, &head).await)
}

impl Api {
    /// Return the account's campaign; a label without rows is not found.
    async fn campaign(
        &self,
        cp_id: Result<Path<String>, PathRejection>,
        head: &Parts,
        scope: TokenScope,
    ) -> Result<CampaignKey, Refused> {
        let account = self.account(head, scope, &[]).await?;
        let cp_id = cp_id.map(|Path(cp_id)| trimmed(&cp_id).to_owned()).map_err(|_| Refusal::NotFound)?;
        if cp_id.contains('\0') || cp_id.chars().count() > MAX_CP_ID_CHARS {
            return Err(Refusal::NotFound.into());
        }
        let filter = MessageFilter { cp_id: Some(cp_id.clone()), ..MessageFilter::default() };
        match in_time(self.store.messages(account, &filter, RowId(i64::MAX), 1)).await?.is_empty() {
            true => Err(Refusal::NotFound.into()),
            false => Ok((account, cp_id)),
        }
    }

    async fn command(
        &self,
        wanted: CampaignState,
        cp_id: Result<Path<String>, PathRejection>,
        head: &Parts,
    ) -> Result<Progress, Refused> {
        let key = self.campaign(cp_id, head, TokenScope::Campaigns).await?;
        // The turn is taken before the command takes effect: a 503 for want of one has changed nothing.
        let turn = turn(&self.commands, key.0).await?;
        let before = in_time(self.store.campaign_state(key.0, &key.1)).await?;
        let state = in_time(self.store.set_campaign(key.0, &key.1, wanted)).await?;
        if wanted == CampaignState::Running && state == CampaignState::Cancelled {
            return Err(stays_cancelled());
        }
        // The turn ends with the count: the lines below wait for lists of the account, for which no other account
        // should wait.
        let snapshot = self.count(&key).await?;
        drop(turn);
        let mut progress = self.progress(&key, state, &snapshot, without_crowded).await?;
        // A cancelled campaign stays cancelled. Workers may already end rows of a campaign that is cancelled
        // now.
        let is_cancelled_now = state == CampaignState::Cancelled && before != CampaignState::Cancelled;
        let concerned = |count: &&CampaignCount| {
            waits(count.status) || (is_cancelled_now && count.status == Status::Cancelled)
        };
        let rows = snapshot.counts.iter().filter(concerned).map(|count| count.rows).sum();
        progress.touched = Some(if state == wanted { rows } else { 0 });
        Ok(progress)
    }

    async fn snapshot(&self, key: &CampaignKey) -> Result<Arc<CampaignSnapshot>, Refusal> {
        if let Some(snapshot) = self.count_cache.get(key) {
            return Ok(snapshot);
        }
        let _turn = turn(&self.lists, key.0).await?;
        // The caller that had the turn before may have counted the same.
        match self.count_cache.get(key) {
            Some(snapshot) => Ok(snapshot),
            None => self.count(key).await,
        }
    }

    async fn count(&self, key: &CampaignKey) -> Result<Arc<CampaignSnapshot>, Refusal> {
        let started = Instant::now();
        let (account, cp_id) = key;
        let counts = in_time(self.store.campaign_counts(*account, cp_id)).await?;
        let rate = in_time(self.store.campaign_rate(*account, cp_id, RATE_WINDOW)).await?;
        let receipts = in_time(self.store.campaign_receipts(*account, cp_id)).await?;
        let snapshot = Arc::new(CampaignSnapshot { counts, rate, receipts });
        self.count_cache.put(key.clone(), snapshot.clone(), started.elapsed());
        Ok(snapshot)
    }

    async fn progress(
        &self,
        key: &CampaignKey,
        state: CampaignState,
        snapshot: &CampaignSnapshot,
        accept: fn(FoundLines) -> FoundLines,
    ) -> Result<Progress, Refusal> {
        let (account, cp_id) = key;
        let mut records = in_time(self.store.line_summaries(&lines_of(&snapshot.counts))).await?;
        records.retain(|record| record.account == *account);
        let lines = accept(self.line_statuses(*account, &records).await)?;
        let errors = in_time(self.store.campaign_errors(*account, cp_id)).await?;
        Ok(Progress { errors: Some(errors), ..self.seen(cp_id, state, snapshot, &records, &lines) })
    }

    /// Return the progress from the counts and the account's lines.
    fn seen(
        &self,
        cp_id: &str,
        state: CampaignState,
        snapshot: &CampaignSnapshot,
        records: &[LineSummary],
        lines: &[LineStatus],
    ) -> Progress {
        let CampaignSnapshot { counts, rate, receipts } = snapshot;
        let bindings: Vec<Binding> = lines.iter().map(LineStatus::binding).collect();
        let eta = eta(counts, records, &bindings, &self.limits, OffsetDateTime::now_utc());
        let of_campaign = lines_of(counts);
        Progress {
            delivered: receipts.delivered,
            read: receipts.read,
            lines: lines.iter().filter(|line| of_campaign.contains(&line.app_id)).cloned().collect(),
            ..Progress::of(cp_id, state, counts, *rate, eta)
        }
    }

    async fn campaigns(&self, head: &Parts) -> Result<CampaignPage, Refused> {
        let account = self.account(head, TokenScope::Read, OF_CAMPAIGNS).await?;
        let CampaignsRequest { filter, limit } =
            CampaignsRequest::read(head.uri.query().unwrap_or_default())?;
        // One more than requested shows whether there is a next page.
        let mut labels = in_time(self.store.campaigns(account, &filter, limit + 1)).await?;
        let more = labels.len() > limit as usize;
        labels.truncate(limit as usize);
        let next = labels.last().filter(|_| more).map(|last| campaigns_cursor(&last.place));
        let records = in_time(self.store.account_lines(account)).await?;
        let lines = self.line_statuses(account, &records).await?;
        let mut campaigns = Vec::with_capacity(labels.len());
        for CampaignLabel { place, state } in labels {
            let key = (account, place.cp_id);
            let snapshot = self.snapshot(&key).await?;
            campaigns.push(self.seen(&key.1, state, &snapshot, &records, &lines));
        }
        Ok(CampaignPage { campaigns, next })
    }
}

/// Return no lines in place of a refusal for want of a turn: the command has taken effect, and is answered.
fn without_crowded(lines: FoundLines) -> FoundLines {
    match lines {
        Err(Refusal::Crowded) => Ok(Vec::new()),
        lines => lines,
    }
}

/// Return 247, for the resumption of a cancelled campaign.
pub fn stays_cancelled() -> Refused {
    let detail = "The campaign is cancelled and cannot be resumed: send further messages under another label";
    Refused::because(Refusal::CampaignCancelled, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_took_effect_is_answered_without_crowded_lines() {
        assert!(without_crowded(Err(Refusal::Crowded)).is_ok_and(|lines| lines.is_empty()));
        assert_eq!(without_crowded(Err(Refusal::Unavailable)).err(), Some(Refusal::Unavailable));
    }
}
