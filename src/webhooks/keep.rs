//! The step before the 200: a body is durable, in the broker with a confirm or in the database.
//!
//! RabbitMQ keeps bodies where it is the broker. Without it the database does, and the bodies that wait are committed
//! together, as a commit of each would bound their rate. Never here: a second place; the caller repeats a body that is not
//! kept in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::notice::Notice;
use crate::broker::{SharedBroker, Webhook};
use crate::store::{NewWebhook, SharedStore};

/// How long a request waits until its body is kept. Meta waits longer.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bodies that wait for a commit; further ones wait for a place.
const MAX_QUEUED: usize = 1_024;
/// The bounds of one commit.
const COMMIT_BODIES: usize = 256;
const COMMIT_BYTES: usize = 8 << 20;

/// Keeps bodies. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    broker: SharedBroker,
    /// The way to the database; `None` where the broker keeps bodies.
    inbox: Option<mpsc::Sender<WaitingWebhook>>,
    failed: Arc<Notice>,
}

/// The task that commits bodies to the inbox of the database.
pub struct InboxWriter {
    store: SharedStore,
    waiting: mpsc::Receiver<WaitingWebhook>,
    arrived: Arc<Notify>,
}

struct WaitingWebhook {
    webhook: NewWebhook,
    kept: oneshot::Sender<bool>,
}

impl Keeper {
    /// Return the keeper and, where the database keeps bodies, the task that commits them. `arrived` hears of each commit.
    pub fn new(
        broker: SharedBroker,
        store: SharedStore,
        arrived: Arc<Notify>,
    ) -> (Keeper, Option<InboxWriter>) {
        let failed = Arc::<Notice>::default();
        if broker.keeps_webhooks() {
            return (Keeper { broker, inbox: None, failed }, None);
        }
        let (inbox, waiting) = mpsc::channel(MAX_QUEUED);
        (Keeper { broker, inbox: Some(inbox), failed }, Some(InboxWriter { store, waiting, arrived }))
    }

    /// Keep a body; return whether it is durable. If not, it may still be kept later: the caller repeats it in any case.
    pub async fn keep(&self, webhook: Webhook) -> bool {
        let kept = match &self.inbox {
            None => timeout(PATIENCE, self.broker.keep_webhook(webhook)).await,
            Some(inbox) => timeout(PATIENCE, commit(inbox, webhook)).await,
        };
        let is_kept = kept.unwrap_or(false);
        if !is_kept && self.failed.is_due() {
            let place = if self.inbox.is_some() { "the database" } else { "RabbitMQ" };
            tracing::warn!(place, "webhook not kept: answered 503, and Meta repeats it");
        }
        is_kept
    }
}

async fn commit(inbox: &mpsc::Sender<WaitingWebhook>, webhook: Webhook) -> bool {
    let (kept, is_kept) = oneshot::channel();
    let webhook = NewWebhook { body: webhook.body, app: webhook.app };
    inbox.send(WaitingWebhook { webhook, kept }).await.is_ok() && is_kept.await.unwrap_or(false)
}

impl InboxWriter {
    /// Commit bodies until no more can come.
    pub async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let (webhooks, callers) = self.batch(first);
            if webhooks.is_empty() {
                continue;
            }
            let committed = self.store.keep_webhooks(&webhooks).await;
            if let Err(error) = &committed {
                tracing::debug!(%error, bodies = webhooks.len(), "webhooks cannot be kept: answered 503");
            }
            for caller in callers {
                // The caller may have given up.
                let _ = caller.send(committed.is_ok());
            }
            self.arrived.notify_one();
        }
    }

    /// Return the bodies that wait and whose callers do, up to the bounds of a commit.
    fn batch(&mut self, first: WaitingWebhook) -> (Vec<NewWebhook>, Vec<oneshot::Sender<bool>>) {
        let (mut webhooks, mut callers) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(WaitingWebhook { webhook, kept }) = next {
            if !kept.is_closed() {
                bytes += webhook.body.len();
                webhooks.push(webhook);
                callers.push(kept);
            }
            let has_room = webhooks.len() < COMMIT_BODIES && bytes < COMMIT_BYTES;
            next = if has_room { self.waiting.try_recv().ok() } else { None };
        }
        (webhooks, callers)
    }
}
