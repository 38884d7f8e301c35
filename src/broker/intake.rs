//! Submissions of producers, as they come from the queue, and what goes back to producers and listeners.
//!
//! Plain data. What a submission means, and whether it is accepted, is decided by `ingest`.

use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A submission as its producer published it.
#[derive(Debug)]
pub struct Submitted {
    /// The class, if the producer published as documented.
    pub routing_key: String,
    /// Empty if it was longer than the longest body.
    pub body: Vec<u8>,
    /// How long it was.
    pub body_bytes: usize,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    /// The producer's name at the broker, which the broker has checked.
    pub user_id: Option<String>,
    pub tsid: TokenHeader,
    /// The header `v`; without it 1, and 0 where it is no integer.
    pub version: i64,
    /// The broker has delivered it before: it may have been logged then.
    pub redelivered: bool,
}

/// The header `tsid`.
#[derive(Debug)]
pub enum TokenHeader {
    Absent,
    Text(SecretString),
    WrongType,
}

/// Submissions in the order in which the queue holds them. Dropping it without [`IntakeBatch::settle`] leaves all of
/// them to redelivery.
pub struct IntakeBatch {
    pub submitted: Vec<Submitted>,
    gone: CancellationToken,
    settled: oneshot::Sender<()>,
}

impl IntakeBatch {
    /// `gone` is cancelled when the broker will deliver the batch again, perhaps to another process.
    pub fn new(
        submitted: Vec<Submitted>,
        gone: CancellationToken,
        settled: oneshot::Sender<()>,
    ) -> IntakeBatch {
        IntakeBatch { submitted, gone, settled }
    }

    /// Cancelled when the batch is no longer this process's: the broker delivers it again.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Every one of them was logged, or its refusal is with the broker: they are acknowledged.
    pub fn settle(self) {
        // Without effect when the session is over.
        let _ = self.settled.send(());
    }
}

/// A refused submission, without its token.
#[derive(Debug, Clone)]
pub struct Rejected {
    pub status_code: i32,
    pub status: String,
    /// Why, in a sentence.
    pub detail: String,
    /// Empty where it cannot be told from its token.
    pub body: Vec<u8>,
    /// How long the submission's body was.
    pub body_bytes: usize,
    pub routing_key: String,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub user_id: Option<String>,
    /// Unix seconds.
    pub at: u64,
}
