//! Messages that a test logs without a guard against repetition.

use meta_dispatch::domain::{RowId, Submission};
use meta_dispatch::store::{Inserted, IntakeStore, NewMessage, StoreError};

/// The short way into the log, for tests.
pub trait Insert {
    /// [`accept`](IntakeStore::accept) messages in one commit; return their ids.
    fn insert(
        &self,
        submissions: &[Submission],
    ) -> impl Future<Output = Result<Vec<RowId>, StoreError>> + Send;
}

impl<S: IntakeStore + ?Sized> Insert for S {
    async fn insert(&self, submissions: &[Submission]) -> Result<Vec<RowId>, StoreError> {
        let messages: Vec<NewMessage> = submissions.iter().cloned().map(NewMessage::from).collect();
        let accepted = self.accept(&messages).await?;
        let ids = accepted.inserted.into_iter().filter_map(|inserted| match inserted {
            Inserted::New(id) => Some(id),
            Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
        });
        Ok(ids.collect())
    }
}
