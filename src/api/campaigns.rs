//! `GET /api/v2/campaigns/{cp_id}` and its commands: pause, resume, cancel.
//!
//! A command writes the campaign's state, which every claim asks; it then counts. So nothing of a campaign is sent after
//! the answer but calls in flight, however many rows it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use time::OffsetDateTime;

use super::documented::{self, Label, RefusedOne};
use super::progress::{Progress, eta, lines_waiting, waits};
use super::{Api, answer, in_time, turn};
use crate::ingest::Refusal;
use crate::ingest::http::documented::Token;
use crate::message::{AccountId, CampaignState, MAX_CP_ID_CHARS, MessageId, Status};
use crate::store::{CampaignCount, MessageFilter};

/// How far back the rate looks.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Counts are remembered this long, and twice as long as they took.
const REMEMBERED: Duration = Duration::from_secs(1);

type Key = (AccountId, String);

/// Counts that were taken a moment ago.
#[derive(Default)]
pub struct Standings(Mutex<HashMap<Key, (Instant, Arc<Standing>)>>);

struct Standing {
    counts: Vec<CampaignCount>,
    rate: f64,
}

impl Standings {
    fn known(&self) -> MutexGuard<'_, HashMap<Key, (Instant, Arc<Standing>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Arc<Standing>> {
        let now = Instant::now();
        self.known().get(key).filter(|(until, _)| *until > now).map(|(_, standing)| standing.clone())
    }

    fn put(&self, key: Key, standing: Arc<Standing>, took: Duration) {
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|_, (until, _)| *until > now);
        known.insert(key, (now + REMEMBERED.max(took * 2), standing));
    }
}

/// Get campaign progress
#[utoipa::path(
    get,
    path = "/api/v2/campaigns/{cp_id}",
    operation_id = "showCampaign",
    params(Token, Label),
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
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let key = api.campaign(cp_id, &uri, &headers).await?;
        let standing = api.standing(&key).await?;
        let state = in_time(api.store.campaign_state(key.0, &key.1)).await?;
        api.progress(&key, state, &standing).await
    };
    answer(shown.await)
}

/// Pause a campaign
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/pause",
    operation_id = "pauseCampaign",
    params(Token, Label),
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
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(api.command(CampaignState::Paused, cp_id, &uri, &headers).await)
}

/// Resume a campaign
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/resume",
    operation_id = "resumeCampaign",
    params(Token, Label),
    responses(
        (status = 200, description = "Progress, with the number of touched rows", body = Progress, examples(
            ("running" = (summary = "Running again", value = json!(documented::resumed()))),
        )),
        RefusedOne,
    ),
)]
pub async fn resume(
    State(api): State<Arc<Api>>,
    cp_id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(api.command(CampaignState::Running, cp_id, &uri, &headers).await)
}

/// Cancel a campaign
///
/// Waiting messages are not sent. A cancelled campaign cannot be resumed.
#[utoipa::path(
    post,
    path = "/api/v2/campaigns/{cp_id}/cancel",
    operation_id = "cancelCampaign",
    params(Token, Label),
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
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(api.command(CampaignState::Cancelled, cp_id, &uri, &headers).await)
}

impl Api {
    /// The account's campaign; a label under which it has no row is not found.
    async fn campaign(
        &self,
        cp_id: Result<Path<String>, PathRejection>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Key, Refusal> {
        let account = self.account(uri, headers).await?;
        let cp_id = cp_id.map(|Path(cp_id)| cp_id).map_err(|_| Refusal::NotFound)?;
        if cp_id.contains('\0') || cp_id.chars().count() > MAX_CP_ID_CHARS {
            return Err(Refusal::NotFound);
        }
        let filter = MessageFilter { cp_id: Some(cp_id.clone()), ..MessageFilter::default() };
        match in_time(self.store.messages(account, &filter, MessageId(i64::MAX), 1)).await?.is_empty() {
            true => Err(Refusal::NotFound),
            false => Ok((account, cp_id)),
        }
    }

    async fn command(
        &self,
        wanted: CampaignState,
        cp_id: Result<Path<String>, PathRejection>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Progress, Refusal> {
        let key = self.campaign(cp_id, uri, headers).await?;
        let before = in_time(self.store.campaign_state(key.0, &key.1)).await?;
        let state = in_time(self.store.set_campaign(key.0, &key.1, wanted)).await?;
        let _turn = turn(&self.commands).await?;
        let standing = self.count(&key).await?;
        let mut progress = self.progress(&key, state, &standing).await?;
        // A cancelled campaign stays so. Rows of one that is cancelled now may be ended already by those who send.
        let is_cancelled_now = state == CampaignState::Cancelled && before != CampaignState::Cancelled;
        let concerned = |count: &&CampaignCount| {
            waits(count.status) || (is_cancelled_now && count.status == Status::Cancelled)
        };
        let rows = standing.counts.iter().filter(concerned).map(|count| count.rows).sum();
        progress.touched = Some(if state == wanted { rows } else { 0 });
        Ok(progress)
    }

    async fn standing(&self, key: &Key) -> Result<Arc<Standing>, Refusal> {
        if let Some(standing) = self.standings.get(key) {
            return Ok(standing);
        }
        let _turn = turn(&self.turns).await?;
        // Whoever counted before may have counted the same.
        match self.standings.get(key) {
            Some(standing) => Ok(standing),
            None => self.count(key).await,
        }
    }

    async fn count(&self, key: &Key) -> Result<Arc<Standing>, Refusal> {
        let started = Instant::now();
        let (account, cp_id) = key;
        let counts = in_time(self.store.campaign_counts(*account, cp_id)).await?;
        let rate = in_time(self.store.campaign_rate(*account, cp_id, RATE_WINDOW)).await?;
        let standing = Arc::new(Standing { counts, rate });
        self.standings.put(key.clone(), standing.clone(), started.elapsed());
        Ok(standing)
    }

    async fn progress(
        &self,
        (_, cp_id): &Key,
        state: CampaignState,
        standing: &Standing,
    ) -> Result<Progress, Refusal> {
        let waiting = lines_waiting(&standing.counts);
        let lines = in_time(self.store.lines(&waiting)).await?;
        let eta = eta(&standing.counts, &lines, &self.limits, OffsetDateTime::now_utc());
        Ok(Progress::of(cp_id, state, &standing.counts, standing.rate, eta))
    }
}
