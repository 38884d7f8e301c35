//! Submissions of producers, as they come from the queue, and what goes back to producers and listeners.
//!
//! Plain data. What a submission means, and whether it is accepted, is decided by `ingest`.

use secrecy::SecretString;
use tokio::sync::{oneshot, watch};
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
    /// The mark of the delivery, which acknowledges it.
    pub delivery_tag: u64,
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
    is_from_own_queue: bool,
    gone: CancellationToken,
    settled: oneshot::Sender<Settlement>,
}

/// The end of a batch.
pub enum Settlement {
    /// All of them are acknowledged.
    Done,
    /// These deliveries go back to the queue, and the others are acknowledged. The queue is consumed again when there
    /// is `room`.
    GivenBack { unsettled: Vec<u64>, room: watch::Receiver<bool> },
}

impl IntakeBatch {
    /// `gone` is cancelled when the broker will deliver the batch again, perhaps to another process.
    pub fn new(
        submitted: Vec<Submitted>,
        gone: CancellationToken,
        settled: oneshot::Sender<Settlement>,
    ) -> IntakeBatch {
        IntakeBatch { submitted, is_from_own_queue: false, gone, settled }
    }

    /// Note whether the submissions come from a queue that belongs to one user of the broker.
    pub fn from_own_queue(self, is_from_own_queue: bool) -> IntakeBatch {
        IntakeBatch { is_from_own_queue, ..self }
    }

    /// Whether only submissions of the same user wait behind these.
    pub fn is_from_own_queue(&self) -> bool {
        self.is_from_own_queue
    }

    /// Cancelled when the batch is no longer this process's: the broker delivers it again.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Every one of them was logged, or its refusal is with the broker: they are acknowledged.
    pub fn settle(self) {
        // Without effect when the session is over.
        let _ = self.settled.send(Settlement::Done);
    }

    /// Give these deliveries back, and have the others acknowledged. The queue is not consumed until the returned
    /// sender says that there is room.
    pub fn give_back(self, unsettled: Vec<u64>) -> watch::Sender<bool> {
        let (has_room, room) = watch::channel(false);
        // Without effect when the session is over.
        let _ = self.settled.send(Settlement::GivenBack { unsettled, room });
        has_room
    }
}

/// A refused submission, without a token.
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
    /// Whether its sender is not known: it is kept apart from those of accounts.
    pub is_unauthenticated: bool,
    /// Unix seconds.
    pub at: u64,
}
