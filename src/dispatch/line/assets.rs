//! The assets of a line's media, with `attachments.reuse`: which are uploaded, which wait for an upload, and which Meta
//! cannot fetch.
//!
//! A message whose asset is not known waits in the queue until an answer is there. An answer is looked at again every few
//! seconds while it is used, so that a command takes effect. Never here: I/O. The task `uploads` uploads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::actions::{LineActions, PermitBudget};
use super::actor::Line;
use super::pump::{END_LIMIT_PAUSE, sooner};
use super::sender::Sender;
use crate::channel::Medium;
use crate::domain::ErrorDetail;
use crate::settings::OnUnfetchable;
use crate::store::{AttachmentKey, Change, ChangeKind, ReadyRow};

/// The pause between looks at a known answer, while messages use it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A question without an answer for this long is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// The time for which messages are sent with the URL when an upload failed for a reason that is not the asset's.
const GIVEN_UP_FOR: Duration = Duration::from_secs(30);
/// An id that is refused this soon after the one before is no help: the URL is sent.
const REFUSED_AGAIN: Duration = Duration::from_secs(10 * 60);
/// The time for which messages are then sent with the URL.
const NO_HELP_FOR: Duration = Duration::from_secs(15 * 60);
/// An asset that no message has used for this long is forgotten; the database remembers it.
const UNUSED: Duration = Duration::from_secs(60);

/// A question about an asset, for the task that uploads.
pub struct UploadOrder {
    pub key: AttachmentKey,
    pub sender: Sender,
    /// The id that Graph refused last.
    pub refused_id: Option<Arc<str>>,
}

/// The answer to an [`UploadOrder`].
#[derive(Debug, Clone)]
pub enum AssetAnswer {
    Ready {
        attachment_id: Arc<str>,
        left: Duration,
    },
    Unfetchable {
        error: ErrorDetail,
        left: Duration,
    },
    /// Not uploaded for a reason that is not the asset's.
    GivenUp,
}

/// The reason why a message is not claimed now, as far as its asset is concerned.
#[derive(Debug)]
pub(super) enum AssetObstacle {
    /// The asset is being uploaded, or cannot be.
    Waits(AttachmentKey),
    /// An upload is due, and the line's limit lets it begin after this time.
    Paced(Duration),
    /// Meta cannot fetch the asset, and the message ends.
    Refused(ErrorDetail),
}

/// The assets that a line has used lately.
pub(super) struct LineAssets {
    policy: Option<OnUnfetchable>,
    known: HashMap<AttachmentKey, Asset>,
}

struct Asset {
    answer: Option<KnownAnswer>,
    /// When the question was asked that has no answer yet.
    asked: Option<Instant>,
    used: Instant,
    /// The id that Graph refused last, and when.
    refused: Option<(Arc<str>, Instant)>,
}

enum KnownAnswer {
    Ready { attachment_id: Arc<str>, until: Instant, look_at: Instant },
    Unfetchable { error: ErrorDetail, until: Instant, look_at: Instant },
    UrlUntil(Instant),
}

impl LineAssets {
    /// `policy`: `None` without `attachments.reuse`.
    pub fn new(policy: Option<OnUnfetchable>) -> LineAssets {
        LineAssets { policy, known: HashMap::new() }
    }

    fn asset(&mut self, key: &AttachmentKey, now: Instant) -> &mut Asset {
        let new = || Asset { answer: None, asked: None, used: now, refused: None };
        self.known.entry(key.clone()).or_insert_with(new)
    }

    /// Return the id by which messages of the asset are sent.
    fn id_of(&self, key: &AttachmentKey, now: Instant) -> Option<Arc<str>> {
        match self.known.get(key)?.answer.as_ref()? {
            KnownAnswer::Ready { attachment_id, until, .. } if now < *until => Some(attachment_id.clone()),
            _ => None,
        }
    }

    /// Forget assets that no message has used for a while, except those for which `is_awaited`.
    fn forget(&mut self, now: Instant, is_awaited: impl Fn(&AttachmentKey) -> bool) {
        self.known.retain(|key, asset| {
            let is_by_url = matches!(&asset.answer, Some(KnownAnswer::UrlUntil(until)) if now < *until);
            is_by_url || now < asset.used + UNUSED || is_awaited(key)
        });
    }
}

impl Asset {
    /// Whether the question is to be asked, now or again.
    fn is_to_be_asked(&self, now: Instant) -> bool {
        let is_due = match &self.answer {
            None => true,
            Some(KnownAnswer::Ready { look_at, .. } | KnownAnswer::Unfetchable { look_at, .. }) => {
                now >= *look_at
            }
            Some(KnownAnswer::UrlUntil(until)) => now >= *until,
        };
        is_due && self.asked.is_none_or(|asked| now >= asked + ASK_AGAIN)
    }

    /// Forget an answer whose time has passed.
    fn expire(&mut self, now: Instant) {
        let is_over = match &self.answer {
            Some(KnownAnswer::Ready { until, .. } | KnownAnswer::Unfetchable { until, .. }) => now >= *until,
            Some(KnownAnswer::UrlUntil(until)) => now >= *until,
            None => false,
        };
        if is_over {
            self.answer = None;
        }
    }

    fn order(&mut self, key: &AttachmentKey, sender: &Sender, now: Instant) -> UploadOrder {
        self.asked = Some(now);
        let refused_id = self.refused.as_ref().map(|(id, _)| id.clone());
        UploadOrder { key: key.clone(), sender: sender.clone(), refused_id }
    }
}

impl Line {
    /// Return the obstacle that the asset of a message is to its claim, and ask about the asset. `None`: the message may be
    /// sent, by the asset's id or by its URL.
    pub(super) fn asset_obstacle(
        &mut self,
        row: &ReadyRow,
        sender: &Sender,
        now: Instant,
        actions: &mut LineActions,
    ) -> Option<AssetObstacle> {
        let policy = self.assets.policy.filter(|_| uploads(row, sender))?;
        let key = key_of(row);
        let asset = self.assets.asset(&key, now);
        asset.used = now;
        asset.expire(now);
        let is_new = asset.answer.is_none();
        if asset.is_to_be_asked(now) {
            // A look at a known answer uploads nothing, save after a command.
            if is_new && let Some(wait) = self.media.pacer.as_ref().and_then(|pacer| pacer.check().err()) {
                return Some(AssetObstacle::Paced(wait));
            }
            if is_new {
                self.media.last_call = Some(now);
            }
            actions.uploads.push(asset.order(&key, sender, now));
        }
        match (&asset.answer, policy) {
            (Some(KnownAnswer::Ready { .. } | KnownAnswer::UrlUntil(_)), _) => None,
            (Some(KnownAnswer::Unfetchable { error, .. }), OnUnfetchable::Refuse) => {
                Some(AssetObstacle::Refused(error.clone()))
            }
            (Some(KnownAnswer::Unfetchable { .. }), OnUnfetchable::Hold) | (None, _) => {
                Some(AssetObstacle::Waits(key))
            }
        }
    }

    /// Let a row that was taken wait, or end it, because of its asset. Return whether the line may take its next row.
    pub(super) fn keep_for_asset(
        &mut self,
        row: ReadyRow,
        obstacle: AssetObstacle,
        now: Instant,
        budget: &mut PermitBudget,
        actions: &mut LineActions,
    ) -> bool {
        match obstacle {
            AssetObstacle::Waits(key) => {
                self.queue.set_aside(row, key);
                true
            }
            AssetObstacle::Paced(wait) => {
                self.queue.put_back(row);
                sooner(&mut actions.wake, now + wait);
                false
            }
            AssetObstacle::Refused(error) => {
                self.end_unfetchable(row, error, actions);
                budget.ends = budget.ends.saturating_sub(1);
                if budget.ends == 0 {
                    sooner(&mut actions.wake, now + END_LIMIT_PAUSE);
                }
                budget.ends > 0
            }
        }
    }

    /// Ask again about assets that messages wait for.
    pub(super) fn look_at_assets(&mut self, sender: &Sender, now: Instant, actions: &mut LineActions) {
        for (key, asset) in &mut self.assets.known {
            if self.queue.has_aside(key) && asset.is_to_be_asked(now) {
                actions.uploads.push(asset.order(key, sender, now));
            }
        }
    }

    /// Return the id by which the message is sent; `None`: by its URL.
    pub(super) fn attachment_of(&self, row: &ReadyRow, sender: &Sender, now: Instant) -> Option<Arc<str>> {
        self.assets.policy.filter(|_| uploads(row, sender))?;
        self.assets.id_of(&key_of(row), now)
    }

    /// Apply an answer about an asset: messages that waited for it go on, or wait on.
    pub fn asset_answered(&mut self, key: &AttachmentKey, answer: AssetAnswer, now: Instant) {
        let Some(policy) = self.assets.policy else { return };
        let is_held = matches!(answer, AssetAnswer::Unfetchable { .. }) && policy == OnUnfetchable::Hold;
        let asset = self.assets.asset(key, now);
        asset.asked = None;
        let look_at = now + LOOK_EVERY;
        let refused = asset.refused.as_ref().map(|(id, _)| id.clone());
        asset.answer = match answer {
            // The answer to a question from before the refusal.
            AssetAnswer::Ready { attachment_id, .. } if refused.as_ref() == Some(&attachment_id) => None,
            AssetAnswer::Ready { attachment_id, left } => {
                Some(KnownAnswer::Ready { attachment_id, until: now + left, look_at })
            }
            AssetAnswer::Unfetchable { error, left } => {
                Some(KnownAnswer::Unfetchable { error, until: now + left, look_at })
            }
            AssetAnswer::GivenUp => Some(KnownAnswer::UrlUntil(now + GIVEN_UP_FOR)),
        };
        if !is_held {
            self.queue.release_aside(key);
        }
    }

    /// Record that Graph refused the id of a message's asset: the asset is uploaded again, unless the id before was refused
    /// a moment ago too. Return whether the id was the one in use.
    pub fn attachment_refused(&mut self, row: &ReadyRow, id: &Arc<str>, now: Instant) -> bool {
        let key = key_of(row);
        if self.assets.id_of(&key, now).as_ref() != Some(id) {
            return false;
        }
        let asset = self.assets.asset(&key, now);
        let is_again = asset.refused.as_ref().is_some_and(|(_, at)| now < *at + REFUSED_AGAIN);
        asset.answer = is_again.then(|| KnownAnswer::UrlUntil(now + NO_HELP_FOR));
        asset.asked = None;
        asset.refused = Some((id.clone(), now));
        true
    }

    /// Forget assets that have not been used for a while. Return the number of messages that wait for one.
    pub fn forget_assets(&mut self, now: Instant) -> usize {
        let waiting = self.queue.count_aside();
        let queue = &self.queue;
        self.assets.forget(now, |key| queue.has_aside(key));
        waiting
    }

    /// End a message without a call: Meta cannot fetch its asset.
    fn end_unfetchable(&mut self, row: ReadyRow, error: ErrorDetail, actions: &mut LineActions) {
        let change = Change::waiting(row.id, row.fence, ChangeKind::Refuse { error });
        actions.changes.push((change, row.waiter));
        self.queue.ended_with(row.id, row.fence + 1);
        self.queue.end_without_call(row.lane, &row.dest, row.id);
    }
}

/// Whether the asset of a message is uploaded.
fn uploads(row: &ReadyRow, sender: &Sender) -> bool {
    row.kind.medium() == Medium::Media && sender.endpoint.takes_uploads()
}

fn key_of(row: &ReadyRow) -> AttachmentKey {
    AttachmentKey { line: row.line, kind: row.kind, url: row.mdata.as_str().into() }
}
