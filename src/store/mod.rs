//! The log and what stands beside it: the only module that knows SQL.
//!
//! [`Store`] is written in use cases: each method is one statement or one transaction, so that no transaction
//! leaks and both databases can do it their own way. `postgres` is for production, `sqlite` is built in. One
//! contract suite (`tests/it/store_contract.rs`) runs on both.
//!
//! Never here: policy (what a Graph answer means, how long to wait), and secrets in error texts.

mod change;
mod enquiry;
mod once;
mod open;
pub mod postgres;
mod records;
mod settle;
pub mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

pub use change::{Change, RowChange};
pub use enquiry::{CampaignCount, CancelledRow, MessageFilter, Way};
pub use once::{BatchLine, IdempotencyKey, Inserted, LONGEST_HTTPDUP, NewMessage, Once, RememberedKey};
pub use open::{open, open_for_serving};
pub use records::*;
pub use settle::*;

use crate::message::{AccountId, CampaignState, Lane, LineId, MessageId, Partition, Submission};

/// A store behind its trait. Cheap to clone.
pub type SharedStore = Arc<dyn Store>;

/// Why a use case of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke. Nothing was written, or (for idempotent calls)
    /// repeating the call is safe.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// A commit was sent and its outcome could not be found out.
    #[error("outcome of the commit unknown: {0}")]
    CommitUnknown(String),
    /// The database refuses a value of this batch; smaller batches may pass.
    #[error("the database refuses the data: {0}")]
    Rejected(String),
    /// The schema is missing or too old.
    #[error("database schema: {0}")]
    Schema(String),
    /// A wrong command of an operator, such as a line for an account that does not exist.
    #[error("{0}")]
    Invalid(String),
}

/// What the schema of the database is, compared with what this program was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    Current,
    /// Written by a later version; additive, so this one works with it.
    Newer,
    /// `migrate` has to be run before this process is ready.
    Older,
}

/// Everything the program asks of a database.
///
/// Durations are relative to the database's clock, so that processes need not agree on the time.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- schema ------------------------------------------------------------------------------------------

    /// Creates or upgrades the schema; returns how many migrations were applied.
    async fn migrate(&self) -> Result<usize, StoreError>;

    /// Compares the schema with this program's. A database without any schema is `Older`.
    async fn schema(&self) -> Result<SchemaState, StoreError>;

    /// Makes room for the ids to come (PostgreSQL: partitions of `cdls`). Returns how many ranges were made.
    async fn ensure_room(&self) -> Result<usize, StoreError>;

    // ---- ingest ------------------------------------------------------------------------------------------

    /// Logs messages as PENDING rows in one commit, but for those that were logged before or are refused as a
    /// repetition; ids in the order given, ascending. What keeps a message from being logged again is committed with it.
    ///
    /// `Ok` means committed. When the connection breaks at the commit, the store finds out whether it took place
    /// before it answers; `CommitUnknown` only if it cannot.
    async fn accept(&self, messages: &[NewMessage]) -> Result<Vec<Inserted>, StoreError>;

    /// [`accept`](Store::accept) for messages that nothing keeps from being logged.
    async fn insert(&self, submissions: &[Submission]) -> Result<Vec<MessageId>, StoreError> {
        let messages: Vec<NewMessage> = submissions.iter().cloned().map(NewMessage::from).collect();
        let inserted = self.accept(&messages).await?;
        Ok(inserted
            .into_iter()
            .filter_map(|inserted| match inserted {
                Inserted::New(id) => Some(id),
                Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
            })
            .collect())
    }

    /// What an idempotency key of the account stands for, unless it is unknown or has expired.
    async fn remembered_key(
        &self,
        account: AccountId,
        key: &str,
    ) -> Result<Option<RememberedKey>, StoreError>;

    /// Opens a batch of the account, or the one of that name again; its lines are remembered for `kept` from now.
    /// Returns its number.
    async fn open_batch(&self, account: AccountId, batch_id: &str, kept: Duration)
    -> Result<i64, StoreError>;

    /// Lines of a batch that were logged, from `first` to `last`, in order.
    async fn batch_lines(
        &self,
        batch: i64,
        first: i64,
        last: i64,
    ) -> Result<Vec<(i64, MessageId)>, StoreError>;

    /// Forgets keys, batches and `httpdup` windows that have expired, at most `limit` rows of each. Returns the
    /// largest number of rows of a kind: less than `limit` means that nothing is left.
    async fn forget_expired(&self, limit: u32) -> Result<u64, StoreError>;

    /// The token with this identifier (first ten characters), unless it is revoked.
    async fn token(&self, token_id: &str) -> Result<Option<TokenRecord>, StoreError>;

    /// The account that a user of the broker sends for, if one is mapped.
    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError>;

    /// Lines by id, whoever owns them; the caller compares accounts. Missing ids are left out.
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError>;

    /// State of one account's campaign.
    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError>;

    /// How many rows wait (PENDING or RETRY), for the backlog bound; counting stops at `at_most`.
    async fn backlog(&self, at_most: i64) -> Result<i64, StoreError>;

    // ---- dispatch: what may be sent ----------------------------------------------------------------------

    /// Ready rows inside announced ranges: PENDING or RETRY, no `next_at`. One round trip for all ranges.
    async fn read_ranges(&self, ranges: &[RangeRead]) -> Result<Vec<ReadyRow>, StoreError>;

    /// Next ready rows of flows. One round trip for all flows; rows of a flow in id order.
    async fn read_flows(&self, reads: &[FlowRead]) -> Result<Vec<ReadyRow>, StoreError>;

    /// Every flow of these partitions that has ready rows, with the lowest ready id. Campaigns that are paused or
    /// cancelled are left out.
    async fn ready_flows(&self, partitions: &[Partition]) -> Result<Vec<(Flow, MessageId)>, StoreError>;

    /// Makes at most `limit` rows that are due ready: PENDING without a `next_at`. Of each partition the lowest due time and
    /// id first; partitions take turns. Says which rows they were.
    async fn promote_due(
        &self,
        partitions: &[Partition],
        limit: u32,
    ) -> Result<Vec<(LineId, Lane, MessageId)>, StoreError>;

    /// Recipients with a claimed row or one that waits for its next try, in these partitions: those whose call's deadline,
    /// or next try, comes `within` so long.
    async fn held_recipients(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<HeldRecipient>, StoreError>;

    /// Of these rows, those that are still SENDING, or RETRY and not made ready yet.
    async fn still_held(&self, ids: &[MessageId]) -> Result<Vec<MessageId>, StoreError>;

    // ---- dispatch: the recorder's transaction ------------------------------------------------------------

    /// Writes changes, then makes claims, in one transaction. A row is named once in it.
    ///
    /// A change applies only if the row still has the fence and a status the change allows; a claim only if the
    /// row is PENDING or RETRY, has the fence given, has not expired, its campaign runs, and `worker` holds the lease of its
    /// partition at this moment. A claim raises `fence` and `attempts` by one and skips rows that others have
    /// locked. Repeating a call whose outcome is unknown is safe: what took place matches no row any more.
    async fn record(
        &self,
        worker: &str,
        changes: &[Change],
        claims: &[Claim],
    ) -> Result<Recorded, StoreError>;

    /// Claimed rows of these partitions, whoever holds them, whose deadline comes `within` so long.
    async fn claimed_rows(
        &self,
        partitions: &[Partition],
        within: Duration,
    ) -> Result<Vec<ClaimedRow>, StoreError>;

    /// Every flow of these partitions that has ready rows, whatever the state of its campaign.
    async fn waiting_flows(&self, partitions: &[Partition]) -> Result<Vec<Flow>, StoreError>;

    /// Looks through the ready rows of flows, each from the id after the one given on, at most `limit` of each, for those
    /// that have expired. An answer for each flow, in the order given.
    async fn walk_waiting(&self, flows: &[(Flow, MessageId)], limit: u32) -> Result<Vec<Walked>, StoreError>;

    /// Ends those of these rows that are ready and have expired, as ERROR `expired`. Returns their ids and waiters.
    async fn expire(&self, ids: &[MessageId]) -> Result<Vec<(MessageId, Option<String>)>, StoreError>;

    /// Pauses until now + `length`; never shortens a pause.
    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError>;

    // ---- leases ------------------------------------------------------------------------------------------

    /// Says that `worker` is alive and prolongs what it holds; forgets workers that are gone.
    async fn renew_leases(&self, worker: &str, ttl: Duration) -> Result<LeaseReport, StoreError>;

    /// Takes at most `at_most` partitions that nobody holds, each with its epoch raised.
    async fn acquire_leases(
        &self,
        worker: &str,
        ttl: Duration,
        at_most: usize,
    ) -> Result<Vec<Lease>, StoreError>;

    /// Gives partitions back at once.
    async fn release_leases(&self, worker: &str, partitions: &[Partition]) -> Result<(), StoreError>;

    /// Withdraws `worker`: gives back whatever it holds and forgets that it was alive.
    async fn withdraw_worker(&self, worker: &str) -> Result<(), StoreError>;

    // ---- log ---------------------------------------------------------------------------------------------

    /// One row, if the scope may see it.
    async fn log_row(&self, scope: Scope, id: MessageId) -> Result<Option<LogRow>, StoreError>;

    /// Rows by id, whoever owns them; missing ids are left out. For events, which carry their account.
    async fn log_rows(&self, ids: &[MessageId]) -> Result<Vec<LogRow>, StoreError>;

    /// Rows with ids above `after`, lowest first, at most `limit`.
    async fn log_after(
        &self,
        filter: &LogFilter,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// The newest rows, newest first, at most `limit`.
    async fn log_newest(&self, filter: &LogFilter, limit: u32) -> Result<Vec<LogRow>, StoreError>;

    /// Rows by line and status; `since` counts only rows created that recently.
    async fn log_stats(&self, since: Option<Duration>) -> Result<Vec<StatusCount>, StoreError>;

    // ---- log: what operators do to rows ------------------------------------------------------------------

    /// Rows that are not final, counted over the partial indexes: the cost is bounded by what is open.
    async fn open_rows(&self) -> Result<OpenRows, StoreError>;

    /// How many rows of the range and the selection an operation would touch.
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError>;

    /// Settles at most `limit` UNKNOWN rows, lowest ids first; which they were, in order of id. None: there are no
    /// more. A row that is not UNKNOWN at that moment is left alone. They are noted for `take_settled`.
    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// At most `limit` rows that `resolve` settled, lowest ids first. Each is handed out once.
    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError>;

    /// Logs copies of at most `limit` ended rows, lowest ids first, as new PENDING rows without a waiter; in order of
    /// id. None: there are no more. A row is copied once, however often and by how many this is asked.
    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError>;

    /// The copy of a row that was sent again.
    async fn copy_of(&self, id: MessageId) -> Result<Option<MessageId>, StoreError>;

    // ---- what senders ask ----------------------------------------------------------------------------------

    /// The account's rows that match, newest first, with ids below `before`; at most `limit`. A row appears once,
    /// whatever is written meanwhile.
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError>;

    /// The account's rows of the campaign, counted by line, medium and status; empty if there are none.
    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError>;

    /// Messages of the campaign a second that ended as OK or ERROR within the last `window`.
    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError>;

    /// Puts the campaign into a state and says which one it has now: a cancelled campaign stays cancelled. From the
    /// answer on, no claim of its rows is made unless it runs.
    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError>;

    /// Campaigns in this state that were put into it less than `within` ago; `None`: whenever.
    async fn campaigns(
        &self,
        state: CampaignState,
        within: Option<Duration>,
    ) -> Result<Vec<(AccountId, String)>, StoreError>;

    /// Ends at most `limit` waiting rows (PENDING or RETRY, due or not) of a cancelled campaign with ids above `after`
    /// as CANCELLED, lowest first. Nothing, if the campaign is not cancelled.
    async fn cancel_waiting(
        &self,
        account: AccountId,
        cp_id: &str,
        after: MessageId,
        limit: u32,
    ) -> Result<Vec<CancelledRow>, StoreError>;

    // ---- accounts, tokens, lines -------------------------------------------------------------------------

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError>;
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Stores a token's identifier and hash; `Invalid` if the account does not exist.
    async fn add_token(&self, account: AccountId, token_id: &str, hash: &[u8]) -> Result<(), StoreError>;
    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;

    /// Whether there was such a token that was not revoked yet.
    async fn revoke_token(&self, token_id: &str) -> Result<bool, StoreError>;

    /// Lets a user of the broker send for an account; `Invalid` if the account does not exist or the user is mapped.
    async fn map_broker_user(&self, account: AccountId, user: &str) -> Result<(), StoreError>;

    /// Whether the user was mapped.
    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError>;

    /// All mapped users, by name.
    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError>;

    /// Adds a line; `Invalid` if the account does not exist or the id is taken.
    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError>;

    /// All lines, by id.
    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError>;

    /// Replaces the page token and ends a pause that its predecessor caused. Whether there is such a line.
    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError>;

    /// An operator's pause, replacing any other; `None` lasts until `resume_line`. Whether there is such a line.
    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError>;

    /// Ends the line's pause. Whether there is such a line.
    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError>;

    // ---- lifecycle ---------------------------------------------------------------------------------------

    /// Closes the pools; later calls fail.
    async fn close(&self);
}
