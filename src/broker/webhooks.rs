//! Bodies of Meta's webhooks on their way: handed over to be kept, and taken out of the queue to be applied.
//!
//! Plain data. Never here: the check of a signature, and the meaning of a body.

use bytes::Bytes;
use tokio::sync::oneshot;

/// A verified body, as it came.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub body: Bytes,
    /// Meta's word for the kind of the events, such as `page`.
    pub object: &'static str,
    /// The app whose secret has signed the body; `None`: that of the settings.
    pub app: Option<String>,
    /// Unix seconds.
    pub received_at: u64,
}

/// A body that the broker has kept.
#[derive(Debug, Clone)]
pub struct KeptWebhook {
    pub body: Vec<u8>,
    pub app: Option<String>,
    /// Unix seconds; `None` where another program has put the body there.
    pub received_at: Option<u64>,
}

/// Kept bodies, oldest first. Dropping the batch without [`WebhookBatch::settle`] leaves all of them to redelivery.
pub struct WebhookBatch {
    pub webhooks: Vec<KeptWebhook>,
    settled: oneshot::Sender<Vec<usize>>,
}

impl WebhookBatch {
    pub fn new(webhooks: Vec<KeptWebhook>, settled: oneshot::Sender<Vec<usize>>) -> WebhookBatch {
        WebhookBatch { webhooks, settled }
    }

    /// Have these bodies, by their places, set aside, and all others acknowledged.
    pub fn settle(self, aside: Vec<usize>) {
        // Without effect when the session is over: the bodies are delivered again.
        let _ = self.settled.send(aside);
    }
}
