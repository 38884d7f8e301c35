//! The commands of operators: settling UNKNOWN rows, sending ended rows again.

mod resend;
pub(super) mod selection;
pub(super) mod settle;

use async_trait::async_trait;

use super::SqliteStore;
use super::clock::Now;
use super::error::failed;
use super::row::get;
use crate::domain::RowId;
use crate::store::{
    IdRange, Matching, Operation, OperatorStore, Resend, Resent, Resolution, Selection, SettledRow,
    StoreError,
};
use resend::COUNT_ENDED;
use selection::select;
use settle::COUNT_UNKNOWN;

#[async_trait]
impl OperatorStore for SqliteStore {
    async fn matching(
        &self,
        range: IdRange,
        selection: &Selection,
        operation: Operation<'_>,
    ) -> Result<Matching, StoreError> {
        let now = Now::read();
        let query = match operation {
            Operation::Resolve(resolution) => select(COUNT_UNKNOWN, range, selection, now)
                .bind(*resolution == Resolution::Retry)
                .bind(now.text()),
            Operation::Resend(resend) => select(COUNT_ENDED, range, selection, now)
                .bind(resend.status.as_str())
                .bind(resend.cp_id.as_deref()),
        };
        let row = query.fetch_one(&self.reader).await.map_err(failed)?;
        let last: Option<i64> = get(&row, "last")?;
        Ok(Matching {
            rows: get(&row, "rows")?,
            last: RowId(last.unwrap_or(0)),
            left_out: get(&row, "left_out")?,
        })
    }

    async fn resolve(
        &self,
        range: IdRange,
        selection: &Selection,
        resolution: &Resolution,
        limit: u32,
    ) -> Result<Vec<RowId>, StoreError> {
        settle::resolve(&self.writer, range, selection, resolution, limit).await
    }

    async fn take_settled(&self, limit: u32) -> Result<Vec<SettledRow>, StoreError> {
        settle::take_settled(self, limit).await
    }

    async fn resend(
        &self,
        range: IdRange,
        selection: &Selection,
        resend: &Resend,
        limit: u32,
    ) -> Result<Vec<Resent>, StoreError> {
        resend::send_again(&self.writer, range, selection, resend, limit).await
    }

    async fn copy_of(&self, id: RowId) -> Result<Option<RowId>, StoreError> {
        let copy: Option<i64> = sqlx::query_scalar("select copy_id from resend where cdls_id = ?1")
            .bind(id.0)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        Ok(copy.map(RowId))
    }
}
