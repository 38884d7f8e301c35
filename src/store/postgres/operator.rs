//! The commands of operators: settling UNKNOWN rows, sending ended rows again.
//!
//! A statement concerns one range of the log, so that it locks no other; a run goes on from range to range.

mod resend;
mod selection;
mod settle;

use async_trait::async_trait;

use super::PostgresStore;
use super::error::failed;
use crate::domain::RowId;
use crate::store::{
    IdRange, Matching, Operation, OperatorStore, Resend, Resent, Resolution, Selection, SettledRow,
    StoreError,
};

#[async_trait]
impl OperatorStore for PostgresStore {
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError> {
        match operation {
            Operation::Resolve(resolution) => {
                settle::unknown_matching(&self.background, range, selection, *resolution == Resolution::Retry)
                    .await
            }
            Operation::Resend(resend) => {
                resend::ended_matching(&self.background, range, selection, resend).await
            }
        }
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        settle::resolve(&self.background, range, selection, resolution, limit).await
    }

    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        settle::take_settled(&self.dispatch, limit).await
    }

    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        resend::send_again(&self.background, range, selection, resend, limit).await
    }

    async fn copy_of(&self, id: RowId) -> Result<Option<RowId>, StoreError> {
        let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = $1")
            .bind(id.0)
            .fetch_optional(&self.background)
            .await
            .map_err(failed)?;
        Ok(copy.map(RowId))
    }
}
