//! The questions of senders: an account's messages by filter, each way along one index;
//! and campaigns.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, SqliteConnection};
use time::OffsetDateTime;

use super::error::failed;
use super::log::{log_row, log_select};
use super::row::readable;
use super::{SqliteStore, backlog, campaign, clock, span};
use crate::domain::{AccountId, CampaignState, ErrorKind, LineId, RowId, Status};
use crate::store::{
    CampaignCount, CampaignFilter, CampaignLabel, EnquiryStore, ErrorCount, FilterIndex, LineBacklog, LogRow,
    MessageFilter, Receipts, StoreError,
};

/// The filters that are checked row by row: line ?4, status ?5, campaign ?6, reference ?7, recipient ?8, statuses ?10 (between
/// commas), code ?11, kind ?12, created from ?13 and before ?14. Account ?1, ids below ?2 and above ?9, at most ?3 rows; newest
/// first, and oldest first.
macro_rules! by {
    ($index:literal, $found:literal) => {
        by!($index, "c.cdls_id", $found)
    };
    ($index:literal, $id:literal, $found:literal) => {
        [by!($index, $id, $found, "desc"), by!($index, $id, $found, "asc")]
    };
    ($index:literal, $id:literal, $found:literal, $order:literal) => {
        concat!(
            log_select!($index),
            "where c.cdcs_id = ?1 and ",
            $id,
            " < ?2 and ",
            $id,
            " > ?9 and ",
            $found,
            " and (?4 is null or c.v8l_id = ?4) and (?5 is null or iif(s.cdls_id is null, c.status, 'SENDING') = ?5)
              and (?6 is null or c.cp_id = ?6) and (?7 is null or c.msg_id = ?7) and (?8 is null or c.dest = ?8)
              and (?10 is null or instr(?10, ',' || iif(s.cdls_id is null, c.status, 'SENDING') || ',') > 0)
              and (?11 is null or c.error_code = ?11) and (?12 is null or c.error_kind = ?12)
              and (?13 is null or c.created_at >= ?13) and (?14 is null or c.created_at < ?14)
            order by c.cdls_id ",
            $order,
            " limit ?3"
        )
    };
}

/// A statement for each order.
type BothWays = [&'static str; 2];

pub(super) const BY_MSG_ID: BothWays = by!("indexed by cdls_msg_id", "c.msg_id = ?7");
pub(super) const BY_DEST: BothWays = by!("indexed by cdls_dest", "c.dest = ?8");
pub(super) const BY_CAMPAIGN: BothWays = by!("indexed by cdls_campaign", "c.cp_id = ?6");
pub(super) const BY_LINE: BothWays = by!("indexed by cdls_account", "c.v8l_id = ?4");
/// A row that waits for a retry is in this index, and is SENDING during the call.
pub(super) const BY_EXCEPTION: BothWays =
    by!("indexed by cdls_exception", "c.exception is not null and c.exception = ?5");
pub(super) const BY_CAMPAIGN_EXCEPTION: BothWays = by!(
    "indexed by cdls_campaign_exception",
    "c.cp_id = ?6 and c.exception is not null and c.exception = ?5"
);

/// Rows that wait for their turn, or that a worker calls Graph for, are found in the queue. The sign keeps
/// SQLite from walking over the log between the bounds.
pub(super) const BY_QUEUE: BothWays = by!(
    "not indexed",
    "+c.cdls_id",
    "c.cdls_id in (
         select cdls_id from claim_row where ?5 = 'SENDING'
         union all
         select o.cdls_id from cdls_open o
         where ?5 = 'PENDING' and o.kind = 'schedule' and o.cdcs_id = ?1 and (?6 is null or o.campaign = ?6)
         union all
         select i.value from work w cross join json_each(w.ids) i
         where ?5 = 'PENDING' and w.cdcs_id = ?1 and (?6 is null or w.campaign = ?6))"
);

/// The rows of batch ?15.
const BY_BATCH: BothWays = by!(
    "not indexed",
    "+c.cdls_id",
    "c.cdls_id in (
         select l.cdls_id from batch b cross join batch_line l
         where b.cdcs_id = ?1 and b.batch_id = ?15 and l.batch_no = b.batch_no)"
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
        before: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let bounds = (-1, before.0.saturating_sub(1));
        self.listed(account, filter, Order::NewestFirst, bounds, limit).await
    }

    async fn messages_after(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        after: RowId,
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        self.listed(account, filter, Order::OldestFirst, (after.0, i64::MAX - 1), limit).await
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

    async fn campaign_errors(&self, account: AccountId, cp_id: &str) -> Result<Vec<ErrorCount>, StoreError> {
        campaign::errors(&self.reader, account, cp_id).await
    }

    async fn campaign_receipts(&self, account: AccountId, cp_id: &str) -> Result<Receipts, StoreError> {
        campaign::receipts(&self.reader, account, cp_id).await
    }

    async fn campaigns(
        &self,
        account: AccountId,
        filter: &CampaignFilter,
        limit: u32,
    ) -> Result<Vec<CampaignLabel>, StoreError> {
        campaign::list(&self.reader, account, filter, limit).await
    }

    async fn line_backlog(&self, lines: &[LineId]) -> Result<Vec<LineBacklog>, StoreError> {
        backlog::of_lines(&self.reader, lines).await
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    fn sort(self, rows: &mut [LogRow]) {
        match self {
            Order::NewestFirst => rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.cdls_id)),
            Order::OldestFirst => rows.sort_unstable_by_key(|row| row.cdls_id),
        }
    }
}

impl SqliteStore {
    /// Return matching rows with ids above the first of `bounds` and up to the second, inclusive.
    async fn listed(
        &self,
        account: AccountId,
        filter: &MessageFilter,
        order: Order,
        bounds: (i64, i64),
        limit: u32,
    ) -> Result<Vec<LogRow>, StoreError> {
        let mut transaction = self.reader.begin().await.map_err(failed)?;
        let (after, last) = span::ids(&mut transaction, filter.since, filter.until).await?;
        let (after, before) = (bounds.0.max(after), bounds.1.min(last) + 1);
        let mut rows = Vec::new();
        for filter in &filter.parts() {
            // One look a reference: the index keeps the rows of each apart.
            let msg_ids: Vec<Option<&str>> = match filter.msg_ids.is_empty() {
                true => vec![None],
                false => filter.msg_ids.iter().map(|msg_id| Some(msg_id.as_str())).collect(),
            };
            for msg_id in msg_ids {
                let page = PageQuery { account, filter, msg_id, order, after, before, limit };
                rows.extend(match page.statement() {
                    Some(statement) => page.read(&mut transaction, statement).await?,
                    None => page.of_all_lines(&mut transaction).await?,
                });
            }
        }
        order.sort(&mut rows);
        rows.dedup_by_key(|row| row.cdls_id);
        rows.truncate(limit as usize);
        Ok(rows)
    }
}

/// The rows of one page that are found in one place.
#[derive(Clone, Copy)]
struct PageQuery<'a> {
    account: AccountId,
    filter: &'a MessageFilter,
    msg_id: Option<&'a str>,
    order: Order,
    after: i64,
    before: i64,
    limit: u32,
}

impl PageQuery<'_> {
    /// Return the statement that finds the rows; `None`: line by line.
    fn statement(&self) -> Option<&'static str> {
        let [newest_first, oldest_first] = self.statements()?;
        Some(match self.order {
            Order::NewestFirst => newest_first,
            Order::OldestFirst => oldest_first,
        })
    }

    fn statements(&self) -> Option<BothWays> {
        let is_campaign = match self.filter.index() {
            FilterIndex::Batch => return Some(BY_BATCH),
            FilterIndex::MsgId => return Some(BY_MSG_ID),
            FilterIndex::Dest => return Some(BY_DEST),
            FilterIndex::Campaign => true,
            FilterIndex::Account => false,
        };
        match self.filter.statuses.as_slice() {
            [Status::Pending | Status::Sending] => Some(BY_QUEUE),
            [Status::Retry | Status::Error | Status::Unknown | Status::Cancelled] if is_campaign => {
                Some(BY_CAMPAIGN_EXCEPTION)
            }
            [Status::Retry | Status::Error | Status::Unknown | Status::Cancelled] => Some(BY_EXCEPTION),
            _ if is_campaign => Some(BY_CAMPAIGN),
            _ => self.filter.line.map(|_| BY_LINE),
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
        let filter = self.filter;
        let (status, statuses) = match filter.statuses.as_slice() {
            [] => (None, None),
            [status] => (Some(status.as_str()), None),
            several => {
                let words: Vec<&str> = several.iter().map(|status| status.as_str()).collect();
                (None, Some(format!(",{},", words.join(","))))
            }
        };
        let time = |at: Option<OffsetDateTime>| at.map(|at| clock::later(at, Duration::ZERO));
        sqlx::query(statement)
            .bind(self.account.0)
            .bind(self.before)
            .bind(self.limit)
            .bind(line.map(|line| line.0))
            .bind(status)
            .bind(filter.cp_id.as_deref())
            .bind(self.msg_id)
            .bind(filter.dest.as_deref())
            .bind(self.after)
            .bind(statuses)
            .bind(filter.error_code)
            .bind(filter.error_kind.map(ErrorKind::as_str))
            .bind(time(filter.since))
            .bind(time(filter.until))
            .bind(filter.batch_id.as_deref())
    }

    /// Return the first rows of each of the account's lines, merged: the index keeps the rows of each line
    /// apart.
    async fn of_all_lines(&self, connection: &mut SqliteConnection) -> Result<Vec<LogRow>, StoreError> {
        let [newest_first, oldest_first] = BY_LINE;
        let statement = if self.order == Order::NewestFirst { newest_first } else { oldest_first };
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
            let of_line = self.bind(statement, Some(LineId(line)));
            let found = of_line.fetch_all(&mut *connection).await.map_err(failed)?;
            page.extend(readable(&found, log_row));
            self.order.sort(&mut page);
            page.truncate(self.limit as usize);
        }
    }
}
