//! The questions of senders: an account's messages by filter, newest first, each way along one index backwards; and campaigns.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};

use super::error::failed;
use super::log::{log_row, log_select};
use super::row::readable;
use super::{SqliteStore, campaign};
use crate::message::{AccountId, CampaignState, LineId, MessageId, Status};
use crate::store::{CampaignCount, EnquiryStore, LogRow, MessageFilter, StoreError, Way};

/// The filters that are looked at row by row: line ?4, status ?5, campaign ?6, reference ?7, recipient ?8. Account ?1, ids
/// below ?2, at most ?3 rows.
macro_rules! by {
    ($index:literal, $found:literal) => {
        by!($index, "c.cdls_id < ?2", $found)
    };
    ($index:literal, $below:literal, $found:literal) => {
        concat!(
            log_select!($index),
            "where c.cdcs_id = ?1 and ",
            $below,
            " and ",
            $found,
            " and (?4 is null or c.v8l_id = ?4) and (?5 is null or iif(s.cdls_id is null, c.status, 'SENDING') = ?5)
              and (?6 is null or c.cp_id = ?6) and (?7 is null or c.msg_id = ?7) and (?8 is null or c.dest = ?8)
            order by c.cdls_id desc limit ?3"
        )
    };
}

pub(super) const BY_MSG_ID: &str = by!("indexed by cdls_msg_id", "c.msg_id = ?7");
pub(super) const BY_DEST: &str = by!("indexed by cdls_dest", "c.dest = ?8");
pub(super) const BY_CAMPAIGN: &str = by!("indexed by cdls_campaign", "c.cp_id = ?6");
pub(super) const BY_LINE: &str = by!("indexed by cdls_account", "c.v8l_id = ?4");
/// A row that waits for its next try has left the ordinary way, and is SENDING meanwhile.
pub(super) const BY_EXCEPTION: &str =
    by!("indexed by cdls_exception", "c.exception is not null and c.exception = ?5");
pub(super) const BY_CAMPAIGN_EXCEPTION: &str = by!(
    "indexed by cdls_campaign_exception",
    "c.cp_id = ?6 and c.exception is not null and c.exception = ?5"
);

/// Rows that wait for their turn, or that a worker calls Graph for, are found in the queue. The sign keeps SQLite from
/// walking over the log below the bound.
pub(super) const BY_QUEUE: &str = by!(
    "not indexed",
    "+c.cdls_id < ?2",
    "c.cdls_id in (
         select cdls_id from claim_row where ?5 = 'SENDING'
         union all
         select o.cdls_id from cdls_open o
         where ?5 = 'PENDING' and o.kind = 'schedule' and o.cdcs_id = ?1 and (?6 is null or o.campaign = ?6)
         union all
         select i.value from work w cross join json_each(w.ids) i
         where ?5 = 'PENDING' and w.cdcs_id = ?1 and (?6 is null or w.campaign = ?6))"
);

/// The first line with rows of account ?1 after line ?2.
pub(super) const NEXT_LINE: &str = "
select min(c.v8l_id) from cdls c indexed by cdls_account where c.cdcs_id = ?1 and c.v8l_id > ?2";

#[async_trait]
impl EnquiryStore for SqliteStore {
    /// One read transaction: a row that changes its state meanwhile appears once.
    async fn messages(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        before: MessageId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let mut transaction = self.reader.begin().await.map_err(failed)?;
        let page = Page { account, filter, before, limit };
        match page.statement() {
            Some(statement) => page.read(&mut transaction, statement).await,
            None => page.of_all_lines(&mut transaction).await,
        }
    }

    async fn campaign_counts(
        &self,
        account: AccountId,
        cp_id: &str,
    ) -> Result<Vec<CampaignCount>, StoreError> {
        campaign::counts(&self.reader, account, cp_id).await
    }

    async fn campaign_rate(
        &self,
        account: AccountId,
        cp_id: &str,
        window: Duration,
    ) -> Result<f64, StoreError> {
        campaign::rate(&self.reader, account, cp_id, window).await
    }

    async fn fold_counts(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        campaign::fold(&self.reader, &self.writer, age, limit).await
    }

    async fn campaign_state(&self, account: AccountId, cp_id: &str) -> Result<CampaignState, StoreError> {
        campaign::state(&self.reader, account, cp_id).await
    }

    async fn set_campaign(
        &self,
        account: AccountId,
        cp_id: &str,
        state: CampaignState,
    ) -> Result<CampaignState, StoreError> {
        campaign::set(&self.writer, account, cp_id, state).await
    }
}

/// The rows that are listed.
#[derive(Clone, Copy)]
struct Page<'a> {
    account: AccountId,
    filter: &'a MessageFilter,
    before: MessageId,
    limit: u32,
}

impl Page<'_> {
    /// How its rows are found; `None`: line by line.
    fn statement(&self) -> Option<&'static str> {
        let is_campaign = match self.filter.way() {
            Way::MsgId => return Some(BY_MSG_ID),
            Way::Dest => return Some(BY_DEST),
            Way::Campaign => true,
            Way::Account => false,
        };
        match self.filter.status {
            Some(Status::Pending | Status::Sending) => Some(BY_QUEUE),
            Some(Status::Retry | Status::Error | Status::Unknown | Status::Cancelled) if is_campaign => {
                Some(BY_CAMPAIGN_EXCEPTION)
            }
            Some(Status::Retry | Status::Error | Status::Unknown | Status::Cancelled) => Some(BY_EXCEPTION),
            Some(Status::Ok) | None if is_campaign => Some(BY_CAMPAIGN),
            Some(Status::Ok) | None => self.filter.line.map(|_| BY_LINE),
        }
    }

    async fn read(
        &self,
        connection: &mut SqliteConnection,
        statement: &'static str,
    ) -> Result<Vec<LogRow>, StoreError> {
        let found = self.bind(statement, self.filter.line).fetch_all(connection).await.map_err(failed)?;
        Ok(readable(&found, log_row))
    }

    fn bind<'q>(
        &'q self,
        statement: &'static str,
        line: Option<LineId>,
    ) -> sqlx::query::Query<'q, Sqlite, SqliteArguments<'q>> {
        sqlx::query(statement)
            .bind(self.account.0)
            .bind(self.before.0)
            .bind(self.limit)
            .bind(line.map(|line| line.0))
            .bind(self.filter.status.map(Status::as_str))
            .bind(self.filter.cp_id.as_deref())
            .bind(self.filter.msg_id.as_deref())
            .bind(self.filter.dest.as_deref())
    }

    /// The rows of an account's lines stand apart in the index: the newest of each line are merged.
    async fn of_all_lines(&self, connection: &mut SqliteConnection) -> Result<Vec<LogRow>, StoreError> {
        let mut page: Vec<LogRow> = Vec::new();
        let mut line = i64::MIN;
        loop {
            let next: Option<i64> = sqlx::query_scalar(NEXT_LINE)
                .bind(self.account.0)
                .bind(line)
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?;
            let Some(next) = next else { return Ok(page) };
            line = next;
            let of_line = self.bind(BY_LINE, Some(LineId(line)));
            let found = of_line.fetch_all(&mut *connection).await.map_err(failed)?;
            page.extend(readable(&found, log_row));
            page.sort_unstable_by_key(|row| std::cmp::Reverse(row.cdls_id));
            page.truncate(self.limit as usize);
        }
    }
}
