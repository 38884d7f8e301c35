//! The queue as dispatch sees it: work and its rows, due rows, claims, and the recorder's transaction.
//!
//! Each row of the log that has not ended is in `work` (it waits for its turn), in `cdls_open` (for a time,
//! or an operator) or in `claim` (a worker calls Graph for it). Only the owner of a line's partition changes
//! its waiting rows, in order, so that a claim locks no row of the log. Never here: the choice of the next
//! row, and the meaning of an answer of Graph.

use std::time::Duration;

use async_trait::async_trait;
use md5::{Digest, Md5};
use time::OffsetDateTime;

use super::{Change, Contact, StoreError};
use crate::channel::{Medium, MessageKind};
use crate::domain::{AccountId, Lane, LineId, Partition, RowId, Status, WorkId};

/// A row that may be claimed, as a line's actor holds it.
#[derive(Debug, Clone)]
pub struct ReadyRow {
    pub id: RowId,
    /// The work that holds the row.
    pub work: WorkId,
    pub line: LineId,
    pub account: AccountId,
    pub lane: Lane,
    pub kind: MessageKind,
    pub cp_id: Option<String>,
    pub dest: String,
    pub mdata: String,
    /// The row's fence in the log; its next claim has one more.
    pub fence: i32,
    /// Calls begun so far.
    pub attempts: i32,
    /// The number of retried answers about the message itself.
    pub tries: i32,
    /// How long the row is still valid, by the database's clock; zero or less has expired.
    pub valid_for: time::Duration,
    pub waiter: Option<String>,
    /// The facts of the recipient that count: the reader adds those that a setting asks for.
    pub contact: Contact,
}

impl ReadyRow {
    /// Return the flow of this row.
    pub fn flow(&self) -> Flow {
        Flow {
            line: self.line,
            lane: self.lane,
            medium: self.kind.medium(),
            campaign: self.cp_id.clone().unwrap_or_default(),
        }
    }
}

/// Ready rows of one line that are served in turn with its other flows: one lane, one medium, one campaign
/// (the empty campaign holds the rows without a `cp_id`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    pub line: LineId,
    pub lane: Lane,
    pub medium: Medium,
    pub campaign: String,
}

/// The place of work in its flow: by its first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub first: RowId,
    pub work: WorkId,
}

/// One `work` row with its ready rows, in order of id. Rows that have ended, or wait for a time, are left
/// out; with none left the work has ended.
#[derive(Debug, Clone)]
pub struct WorkRead {
    pub position: Position,
    pub flow: Flow,
    pub rows: Vec<ReadyRow>,
}

/// A request for the next work of a flow, behind `after`: as many whole rows of `work` as hold `limit`
/// messages, at least one.
#[derive(Debug, Clone)]
pub struct FlowRead {
    pub flow: Flow,
    /// `None`: from its beginning.
    pub after: Option<Position>,
    pub limit: u32,
}

/// The answer to a [`FlowRead`].
#[derive(Debug, Clone)]
pub struct FlowPage {
    pub work: Vec<WorkRead>,
    /// Whether more work of the flow may follow.
    pub more: bool,
}

/// Work that is known to exist, its rows unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkHead {
    pub position: Position,
    pub flow: Flow,
    /// The number of rows that the work was made with.
    pub rows: u32,
}

/// The answer of [`promote_due`](DispatchStore::promote_due).
#[derive(Debug, Clone, Default)]
pub struct Promoted {
    pub work: Vec<WorkHead>,
    /// More rows are due than were made ready.
    pub more: bool,
    /// No remaining row is due earlier, except rows committed late.
    pub reached: Option<OffsetDateTime>,
    /// The time until the next row is due.
    pub next: Option<Duration>,
}

/// Work added since an earlier look.
#[derive(Debug, Clone, Default)]
pub struct NewWork {
    pub work: Vec<WorkHead>,
    /// The highest number looked at, in whichever partition.
    pub reached: WorkId,
    /// More work may follow, behind `reached`.
    pub is_full: bool,
    /// A campaign was resumed within the last seconds.
    pub campaign_resumed: bool,
}

/// A claim to be made: the row as read, with the fence it had then.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub id: RowId,
    pub line: LineId,
    pub fence: i32,
    /// [`digest`] of the message to be sent; a claim of a row with another message is not made. Ids may be
    /// used twice: by a database that was restored, or beside another one. `None`: any message.
    pub digest: Option<i64>,
    /// Whether the row had a campaign when it was read.
    pub in_campaign: bool,
    /// How long other workers leave the claimed row alone: the call's total timeout and two seconds.
    pub call_deadline: Duration,
}

/// Return the first eight bytes of the MD5 of account, line, recipient and text, each but the text followed
/// by a slash.
pub fn digest(account: AccountId, line: LineId, dest: &str, mdata: &str) -> i64 {
    let md5 = Md5::digest(format!("{}/{}/{dest}/{mdata}", account.0, line.0));
    let first = md5.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    first.cast_signed()
}

/// One transaction of the recorder.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub worker: &'a str,
    pub changes: &'a [Change],
    pub claims: &'a [Claim],
    /// The number of these claims; each batch of a worker's claims has a higher one.
    pub claim_no: i64,
    /// Work all of whose rows have ended, or moved to `cdls_open`, in earlier transactions or by these
    /// changes.
    pub ended_work: &'a [WorkId],
    /// The worker's batches of claims whose calls have all ended, in earlier transactions or by these
    /// changes.
    pub ended_claims: &'a [i64],
    /// Whether some changes may be written already: the answer to an earlier transaction was lost. Such
    /// changes count as made.
    pub repeated: bool,
}

/// The answer to one recorder transaction: for each change and each claim, in the order given, whether it
/// took place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub changed: Vec<bool>,
    pub claimed: Vec<bool>,
    /// The number of changes that were successes of rows that others had settled, or that waited for another
    /// call.
    pub late: usize,
}

/// A recipient whose next message has to wait: an earlier row is claimed, or waits for a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecipient {
    pub line: LineId,
    pub lane: Lane,
    pub dest: String,
    pub by: RowId,
    /// SENDING (claimed) or RETRY.
    pub status: Status,
    /// The time until the row is due (RETRY) or may be settled (SENDING), by the database's clock.
    pub wait: Duration,
}

/// A row with an open claim, as the owner of its partition compares it with its own calls in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRow {
    pub id: RowId,
    pub line: LineId,
    pub lane: Lane,
    pub dest: String,
    /// The claim's fence, one above the row's.
    pub fence: i32,
    pub worker: String,
    /// The number of calls begun, this one included.
    pub attempts: i32,
    /// The number of retried answers about the message itself.
    pub tries: i32,
    /// The number of workers that died inside a call of this row.
    pub crashes: i32,
    /// How long the row is still valid, by the database's clock; zero or less has expired.
    pub valid_for: time::Duration,
    /// How long ago the claim was made.
    pub age: Duration,
    /// Whether the claim's deadline has passed by the database's clock.
    pub overdue: bool,
    pub waiter: Option<String>,
}

/// A waiting row that is to be ended without a call: an expired one, or one of a cancelled campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoomedRow {
    pub id: RowId,
    pub line: LineId,
    pub lane: Lane,
    pub medium: Medium,
    pub dest: String,
    /// The row's fence in the log.
    pub fence: i32,
    pub waiter: Option<String>,
}

/// The statements of dispatch.
#[async_trait]
pub trait DispatchStore: Send + Sync {
    /// Read work by number, with its ready rows: PENDING, and for work of rows that were scheduled or tried
    /// before also RETRY. Work that has ended, and that of campaigns which do not run, is left out. One round
    /// trip.
    async fn read_work(&self, work: &[WorkId]) -> Result<Vec<WorkRead>, StoreError>;

    /// Read the next work of flows, with its ready rows; a page for each read, in the order given. One round
    /// trip.
    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<FlowPage>, StoreError>;

    /// Return every flow of these partitions that has work, with its first. Campaigns that do not run are
    /// left out, and with `sendable` also lines that cannot send at this moment (inactive, paused, without a
    /// token).
    async fn ready_flows(
        &self,
        partitions: &[Partition],
        sendable: bool,
    ) -> Result<Vec<(Flow, Position)>, StoreError>;

    /// Return work of these partitions with numbers above `after`, lowest first; at most `limit` rows of all
    /// partitions' work are looked at. `None`: no work, only the highest number.
    async fn new_work(
        &self,
        partitions: &[Partition],
        after: Option<WorkId>,
        limit: u32,
    ) -> Result<NewWork, StoreError>;

    /// Turn at most `limit` due rows, schedules and retries, into work: the earliest of each partition first;
    /// partitions take turns. Rows due before `from` are not looked at.
    async fn promote_due(
        &self,
        partitions: &[Partition],
        from: Option<OffsetDateTime>,
        limit: u32,
    ) -> Result<Promoted, StoreError>;

    /// Return recipients in these partitions with a row that waits for a retry, due `within` this time, or
    /// with an open claim. The retries due first, at most `limit`.
    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
        limit: u32,
    ) -> Result<Vec<HeldRecipient>, StoreError>;

    /// Return the rows among these that have not ended: PENDING or RETRY in the log, claimed or not.
    async fn still_held(&self, ids: &[RowId]) -> Result<Vec<RowId>, StoreError>;

    /// Return the rows among these that another transaction has locked at this moment.
    async fn locked(&self, ids: &[RowId]) -> Result<Vec<RowId>, StoreError>;

    /// Write changes, then make claims, and remove work and claims that have ended, in one transaction. A row
    /// is named once among changes and claims.
    ///
    /// A change applies only if the row still has the fence and a status the change allows; a claim only if
    /// the row is PENDING or RETRY, has the fence given, has not expired, its campaign runs, and `worker`
    /// holds the lease of its partition at this moment. The claim is a row of `claim`, its fence the row's
    /// and one; the log is not written. Repeating a call whose outcome is unknown is safe: changes and claims
    /// that took place match no row any more.
    async fn record(&self, record: Record<'_>) -> Result<Recorded, StoreError>;

    /// Return the open claims of rows of these partitions, of any worker. A worker that takes partitions over asks
    /// this: the claims of a worker that has died are among them.
    async fn open_claims(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError>;

    /// Return the same for partitions that the caller has owned since its last look, without walking over the claims
    /// that were gone then. Claims of a worker that came and died in between are missing: such a worker had other
    /// partitions.
    async fn open_claims_since(&self, partitions: &[Partition]) -> Result<Vec<ClaimedRow>, StoreError>;

    /// Forget claims of workers that are gone, once all of their rows are settled; return the number of
    /// batches.
    async fn forget_claims(&self) -> Result<u64, StoreError>;

    /// Return waiting rows of these partitions that have expired, from at most `limit` rows of `work`. Work
    /// whose expired rows have all ended is postponed to the time its next row expires, or removed if none is
    /// left.
    async fn expired_rows(&self, partitions: &[Partition], limit: u32) -> Result<Vec<DoomedRow>, StoreError>;

    /// Return at most about `limit` waiting rows of these partitions whose campaign is cancelled. Campaigns
    /// cancelled long ago without waiting rows in any partition are not looked at again.
    async fn cancelled_rows(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<DoomedRow>, StoreError>;
}
