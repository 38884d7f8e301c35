//! Uploads the assets that messages wait for, each once: the row of the asset has a lease, so that the worker that takes a
//! line over waits for an upload that is still in progress.
//!
//! Never here: which messages wait, and what happens to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::SendUntil;
use crate::dispatch::event::Event;
use crate::dispatch::line::{AssetAnswer, UploadOrder};
use crate::domain::{ErrorDetail, LineId};
use crate::graph::{Caller, GraphClient, Upload};
use crate::metrics::{METRICS, UploadResult};
use crate::policy::Backoff;
use crate::policy::classify::{UploadVerdict, judge_upload};
use crate::settings::OnUnfetchable;
use crate::store::{AttachmentKey, SharedStore, UploadClaim, UploadEnd, UploadTurn};

/// The life of an id: Meta's 90 days, less a day.
const ID_LIVES: Duration = Duration::from_secs(89 * 86_400);
/// The time for which a URL that Meta cannot fetch is not tried again.
const REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);
/// The lease of an upload, and the pause between its renewals.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// The pause between questions while another worker uploads, or the database does not answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Questions in a row that the database may leave unanswered.
const STORE_TRIES: u32 = 5;
/// Tries of an upload that fails for a passing reason.
const PASSING_TRIES: u32 = 3;
/// The longest delay between two tries.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Uploads of a process and of one line in progress at a time: those of a slow host hold no others up.
const UPLOADS_AT_ONCE: usize = 128;
const OF_A_LINE: usize = 32;
/// The pause between deletions of rows whose time has passed.
const DROP_EVERY: Duration = Duration::from_secs(3_600);

/// The task that uploads.
pub struct Uploader {
    pub worker: String,
    pub store: SharedStore,
    pub graph: GraphClient,
    pub send_until: SendUntil,
    /// Delays begin with `retry.base`, and are no longer than `retry.cap`.
    pub delays: Backoff,
    pub policy: OnUnfetchable,
    pub orders: mpsc::UnboundedReceiver<UploadOrder>,
    pub events: mpsc::UnboundedSender<Event>,
}

/// The parts that each upload needs.
struct Shared {
    worker: String,
    store: SharedStore,
    graph: GraphClient,
    send_until: SendUntil,
    delays: Backoff,
    policy: OnUnfetchable,
    permits: Semaphore,
}

impl Uploader {
    /// Answer orders until the dispatcher is gone or `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Uploader { worker, store, graph, send_until, delays, policy, mut orders, events } = self;
        let permits = Semaphore::new(UPLOADS_AT_ONCE);
        let shared = Arc::new(Shared { worker, store, graph, send_until, delays, policy, permits });
        let mut of_lines: HashMap<LineId, Arc<Semaphore>> = HashMap::new();
        let mut uploads = JoinSet::new();
        let mut dropped: Option<Instant> = None;
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                Some(_) = uploads.join_next() => continue,
                () = stop.cancelled() => return,
            };
            let Some(order) = order else { return };
            // A line without an upload in progress needs no permits.
            of_lines.retain(|_, permits| Arc::strong_count(permits) > 1);
            let of_line =
                of_lines.entry(order.key.line).or_insert_with(|| Arc::new(Semaphore::new(OF_A_LINE)));
            let (of_line, shared, events) = (of_line.clone(), shared.clone(), events.clone());
            let drops = dropped.is_none_or(|at| at.elapsed() >= DROP_EVERY);
            if drops {
                dropped = Some(Instant::now());
            }
            uploads.spawn(async move {
                let answer = shared.answer(&order, &of_line).await;
                // The dispatcher is gone only when the process ends.
                let _ = events.send(Event::Asset { key: order.key, answer });
                if drops && let Err(error) = shared.store.drop_ended_attachments().await {
                    tracing::debug!(%error, "ended attachments: not deleted, tried again later");
                }
            });
        }
    }
}

/// The end of an upload that this process has made.
enum Made {
    Known(AssetAnswer),
    /// The asset was forgotten meanwhile, or another worker has it.
    Lost,
}

impl Shared {
    /// Return what is known of an asset; upload it, if nothing is.
    async fn answer(&self, order: &UploadOrder, of_line: &Semaphore) -> AssetAnswer {
        let mut failures = 0;
        loop {
            let holder = format!("{}/{}", self.worker, Uuid::now_v7());
            let refused_id = order.refused_id.as_deref();
            let claim = UploadClaim { key: &order.key, holder: &holder, lease: LEASE, refused_id };
            match self.store.begin_upload(&claim).await {
                Ok(UploadTurn::Ready { attachment_id, left }) => {
                    return AssetAnswer::Ready { attachment_id: attachment_id.into(), left };
                }
                Ok(UploadTurn::Unfetchable { error, left }) => {
                    return AssetAnswer::Unfetchable { error, left };
                }
                Ok(UploadTurn::Ours) => {
                    let made = tokio::select! {
                        made = self.upload(order, &holder, of_line) => made,
                        () = self.keep(&order.key, &holder) => Made::Lost,
                    };
                    if let Made::Known(answer) = made {
                        return answer;
                    }
                }
                Ok(UploadTurn::Elsewhere) => sleep(ASK_EVERY).await,
                Err(error) => {
                    failures += 1;
                    if failures >= STORE_TRIES {
                        tracing::warn!(%error, line = %order.key.line, "cannot look up an attachment: messages are sent with its URL for a while");
                        return AssetAnswer::GivenUp;
                    }
                    sleep(ASK_EVERY).await;
                }
            }
            if !self.owns(order) {
                return AssetAnswer::GivenUp;
            }
        }
    }

    /// Whether this process may call Graph for the line.
    fn owns(&self, order: &UploadOrder) -> bool {
        self.send_until.allows(order.key.line.partition(), Instant::now())
    }

    /// Renew the lease; return when it is lost.
    async fn keep(&self, key: &AttachmentKey, holder: &str) {
        loop {
            sleep(RENEW_EVERY).await;
            if matches!(self.store.renew_upload(key, holder, LEASE).await, Ok(false)) {
                return;
            }
        }
    }

    /// Upload an asset, several times if need be, and store the result.
    async fn upload(&self, order: &UploadOrder, holder: &str, of_line: &Semaphore) -> Made {
        let key = &order.key;
        let (end, answer, result) = self.tried(order, of_line).await;
        METRICS.attachments.ended(result);
        match self.store.end_upload(key, holder, &end).await {
            Ok(true) => Made::Known(answer),
            Ok(false) => Made::Lost,
            // The lease ends, and the next worker uploads again.
            Err(error) => {
                tracing::warn!(%error, line = %key.line, "cannot store an attachment: this process alone uses it");
                Made::Known(answer)
            }
        }
    }

    async fn tried(
        &self,
        order: &UploadOrder,
        of_line: &Semaphore,
    ) -> (UploadEnd, AssetAnswer, UploadResult) {
        let UploadOrder { key, sender, .. } = order;
        let (line, kind) = (key.line, key.kind);
        let caller = Caller {
            endpoint: &sender.endpoint,
            app_secret: sender.app_secret.as_deref(),
            page_token: &sender.page_token,
        };
        let upload = Upload { caller, class: sender.class, kind, url: &key.url };
        let mut tries = 0;
        loop {
            // Neither is ever closed.
            let permits = (of_line.acquire().await, self.permits.acquire().await);
            if !self.owns(order) {
                return (UploadEnd::Dropped, AssetAnswer::GivenUp, UploadResult::GivenUp);
            }
            tries += 1;
            METRICS.attachments.calls.increment(1);
            let judged = judge_upload(&self.graph.upload(&upload).await, &sender.subject);
            let (code, subcode) = (judged.error.code, judged.error.subcode);
            match judged.verdict {
                UploadVerdict::Uploaded { attachment_id } => {
                    tracing::debug!(%line, %kind, "asset uploaded");
                    let end = UploadEnd::Ready { attachment_id: attachment_id.clone(), valid_for: ID_LIVES };
                    let answer = AssetAnswer::Ready { attachment_id: attachment_id.into(), left: ID_LIVES };
                    return (end, answer, UploadResult::Uploaded);
                }
                UploadVerdict::Unfetchable { tries: most } if tries >= most => {
                    let consequence = match self.policy {
                        OnUnfetchable::Refuse => "end as ERROR",
                        OnUnfetchable::Hold => "wait",
                    };
                    tracing::warn!(%line, %kind, code, subcode, "Meta cannot fetch an asset: messages with its URL {consequence}; find it with `attachment list`, mend it, then `attachment forget`");
                    let error = explained(judged.error);
                    let end = UploadEnd::Unfetchable { error: error.clone(), remembered_for: REMEMBERED_FOR };
                    let answer = AssetAnswer::Unfetchable { error, left: REMEMBERED_FOR };
                    return (end, answer, UploadResult::Unfetchable);
                }
                UploadVerdict::Unfetchable { .. } => {}
                UploadVerdict::Passing if tries < PASSING_TRIES => {}
                UploadVerdict::Passing | UploadVerdict::Refused => {
                    let reason = &judged.error.message;
                    tracing::info!(%line, %kind, code, subcode, reason, "upload given up: messages are sent with the URL for a while");
                    return (UploadEnd::Dropped, AssetAnswer::GivenUp, UploadResult::GivenUp);
                }
            }
            drop(permits);
            sleep(self.delays.delay(tries - 1).min(LONGEST_DELAY)).await;
        }
    }
}

/// Return the error of an upload as the error of each message with its URL.
fn explained(error: ErrorDetail) -> ErrorDetail {
    let message = format!(
        "Meta cannot fetch the asset of this message, so the message was not sent; mend the URL, or name another: {}",
        error.message
    );
    ErrorDetail { message, ..error }
}
