//! The end of waiting rows that nobody wants to be sent any more.
//!
//! A row that a worker calls Graph for is on its way and left alone, and no claim of a cancelled row is ever made: on each
//! database the cancelling transaction and claims exclude each other.

use async_trait::async_trait;

use super::{MessageFilter, Scope, StoreError};
use crate::domain::{AccountId, RowId};

/// The most rows that one call of [`CancelStore::cancel`] is given: claims wait meanwhile.
pub const CANCELLED_AT_ONCE: usize = 200;

/// The statements that cancel rows.
#[async_trait]
pub trait CancelStore: Send + Sync {
    /// Return the ids of rows of the scope that match and wait (PENDING or RETRY in the log), above `after`, lowest first; at
    /// most `limit`. Some of them may be on their way.
    async fn waiting(
        &self,
        scope: Scope,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError>;

    /// End those of these rows as CANCELLED that are of the scope, wait, and are not on their way; return them, in order of id.
    /// They are noted for `take_settled`, and their campaigns count them.
    async fn cancel(&self, scope: Scope, ids: &[RowId]) -> Result<Vec<RowId>, StoreError>;

    /// Return the name of the batch that brought a row of the account, as long as it is remembered. Reads all batches of the
    /// account.
    async fn batch_of(&self, account: AccountId, id: RowId) -> Result<Option<String>, StoreError>;
}
