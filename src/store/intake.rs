//! The way into the log: messages are committed together with the queue's `work` that announces them, and
//! with the guard that keeps a message from being logged twice (an idempotency key, a place in a batch, an
//! `httpdup` window).
//!
//! Also here: the bookkeeping over one commit that both databases share. Never here: SQL.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

use async_trait::async_trait;

use super::{Flow, StoreError};
use crate::domain::{AccountId, LineId, RowId, Submission, WorkId};

/// Longest `httpdup` window (contract: Parameters); older windows may be forgotten.
pub const LONGEST_HTTPDUP: Duration = Duration::from_secs(600);

/// A message to be logged.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub submission: Submission,
    pub idempotency: Option<Idempotency>,
    /// Refuse the message if another one to the same line and dest, itself with a window, was logged less
    /// than this long ago.
    pub httpdup: Option<Duration>,
}

impl From<Submission> for NewMessage {
    fn from(submission: Submission) -> NewMessage {
        NewMessage { submission, idempotency: None, httpdup: None }
    }
}

/// The mark by which a repetition is recognised, within the account.
#[derive(Debug, Clone)]
pub enum Idempotency {
    Key(IdempotencyKey),
    Item(BatchItem),
}

/// A key of the caller (`Idempotency-Key`, AMQP `message_id`), and a hash of the parameters it was first used
/// with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    pub key: String,
    pub request_hash: Vec<u8>,
    /// How long the key is remembered.
    pub kept: Duration,
}

/// An item of a batch that [`open_batch`](IntakeStore::open_batch) opened for the message's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchItem {
    pub batch: i64,
    pub number: i64,
}

/// The verdict on a [`NewMessage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    New(RowId),
    /// Logged before, as this row.
    Replay(RowId),
    /// The key was used with other parameters.
    KeyReused,
    /// Inside the `httpdup` window of another message.
    Duplicate,
}

/// The request that first used a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedKey {
    pub request_hash: Vec<u8>,
    pub id: RowId,
}

impl RememberedKey {
    /// Return the verdict on a repetition with these parameters.
    pub fn verdict(&self, request_hash: &[u8]) -> Inserted {
        if self.request_hash == request_hash { Inserted::Replay(self.id) } else { Inserted::KeyReused }
    }
}

/// Messages of one commit that are served in turn together, in order of id: a row of the queue's `work`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub id: WorkId,
    pub flow: Flow,
    pub ids: Vec<RowId>,
}

/// The answer to a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The verdict on each message, in the order given.
    pub inserted: Vec<Inserted>,
    /// The work that the commit added; scheduled messages are not in it.
    pub work: Vec<Work>,
}

/// Rows one `work` row holds at most: a flow is read by whole rows of it.
pub const WORK_ROWS: usize = 64;

/// The statements of ingest.
#[async_trait]
pub trait IntakeStore: Send + Sync {
    /// Log messages as PENDING rows in one commit, except those that were logged before or are refused as a
    /// repetition; ids in the order given, ascending. The guard against logging a message again is committed
    /// with the row, and so is its `work`, or its place among the scheduled rows if its `send_at` has not
    /// come.
    ///
    /// `Ok` means committed. When the connection breaks at the commit, the store finds out whether the commit
    /// took place before it answers; `CommitUnknown` only if it cannot.
    async fn accept(&self, messages: &[NewMessage]) -> Result<Accepted, StoreError>;

    /// Return the request that first used an idempotency key of the account; `None` if the key is unknown or
    /// has expired.
    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError>;

    /// Open a batch of the account, or the one of that name again; its items are remembered for `kept` from
    /// now. Return its number.
    async fn open_batch(&self, account: AccountId, batch_id: &str, kept: Duration)
    -> Result<i64, StoreError>;

    /// Return the items of a batch that were logged, from `first` to `last`, in order.
    async fn batch_items(&self, batch: i64, first: i64, last: i64) -> Result<Vec<(i64, RowId)>, StoreError>;

    /// Forget keys, batches and `httpdup` windows that have expired, at most `limit` rows of each. Return the
    /// largest number of rows of a kind: less than `limit` means that nothing is left.
    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError>;

    /// Count the waiting rows for the backlog bound, in the queue by whole rows of `work`; counting stops at
    /// `at_most`.
    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError>;

    /// Count the waiting rows of an account's lines for its quota, as [`backlog`](IntakeStore::backlog) does.
    /// The cost follows these rows, not the queue.
    async fn account_backlog(&self, account: AccountId, at_most: i64) -> Result<i64, StoreError>;
}

impl NewMessage {
    pub(super) fn key(&self) -> Option<(AccountId, &IdempotencyKey)> {
        match &self.idempotency {
            Some(Idempotency::Key(key)) => Some((self.submission.account, key)),
            _ => None,
        }
    }

    pub(super) fn batch_item(&self) -> Option<BatchItem> {
        match self.idempotency {
            Some(Idempotency::Item(item)) => Some(item),
            _ => None,
        }
    }

    pub(super) fn window(&self) -> Option<(LineId, &str, Duration)> {
        self.httpdup.map(|window| (self.submission.line, self.submission.dest.as_str(), window))
    }

    /// Whether a guard against repetition may keep the message from being logged.
    pub(super) fn is_guarded(&self) -> bool {
        self.idempotency.is_some() || self.httpdup.is_some()
    }
}

/// A message with an `httpdup` window: its place, line, recipient and window.
type WindowedMessage<'a> = (usize, LineId, &'a str, Duration);

/// Return the undecided messages with a window, one for each recipient: the one with the shortest window,
/// since a refusal of that one refuses all. Second, the places of the messages that lose to it either way.
pub(super) fn windows<'a>(
    messages: &'a [NewMessage],
    verdicts: &[Option<Inserted>],
) -> (Vec<WindowedMessage<'a>>, Vec<usize>) {
    let mut with: Vec<_> = messages
        .iter()
        .enumerate()
        .filter(|(place, _)| verdicts[*place].is_none())
        .filter_map(|(place, message)| {
            message.window().map(|(line, dest, window)| (place, line, dest, window))
        })
        .collect();
    with.sort_by_key(|(place, _, _, window)| (*window, *place));
    let mut seen = HashSet::new();
    let (first, later): (Vec<_>, Vec<_>) =
        with.into_iter().partition(|(_, line, dest, _)| seen.insert((*line, *dest)));
    (first, later.into_iter().map(|(place, ..)| place).collect())
}

/// Return the places of the first message of each kind.
pub(super) fn firsts<'a, K: Hash + Eq>(
    messages: &'a [NewMessage],
    of: impl Fn(&'a NewMessage) -> Option<K>,
) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut places = Vec::new();
    for (place, message) in messages.iter().enumerate() {
        if of(message).is_some_and(|key| seen.insert(key)) {
            places.push(place);
        }
    }
    places
}
