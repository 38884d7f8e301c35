//! Accounts, their broker users, and the lines they send from.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::error::ErrorKind;

use super::SqliteStore;
use super::clock::{self, Now};
use super::error::{begin, commit, failed};
use super::line::{line_select, records, summaries, summary_select};
use super::row::{get, list, readable, time};
use crate::channel::Login;
use crate::domain::{AccountId, LineId};
use crate::store::{
    AccountRow, BrokerUser, BrokerUserRow, DirectoryStore, LineChange, LineRecord, LineSummary, NewLine,
    PauseScope, StoreError,
};

#[async_trait]
impl DirectoryStore for SqliteStore {
    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError> {
        let found = sqlx::query(
            "select u.cdcs_id, a.cdcs_active <> 0 as active from broker_user u join account a using (cdcs_id)
             where u.broker_user = ?1",
        )
        .bind(user)
        .fetch_optional(&self.reader)
        .await
        .map_err(failed)?;
        let Some(row) = found else { return Ok(None) };
        Ok(Some(BrokerUser {
            account: AccountId(get(&row, "cdcs_id")?),
            account_active: get(&row, "active")?,
        }))
    }

    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError> {
        let found = sqlx::query(concat!(
            line_select!(),
            "where l.v8l_id in (select value from json_each(?1)) order by l.v8l_id"
        ))
        .bind(list(ids.iter().map(|id| id.0)))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        records(&found)
    }

    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError> {
        let found = sqlx::query(concat!(line_select!(), "order by l.v8l_id"))
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        records(&found)
    }

    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError> {
        let only = match scope {
            PauseScope::Line(line) => Some(line.0),
            PauseScope::App => None,
        };
        let (mut transaction, now) = begin(&self.writer).await?;
        let until = now.after(length);
        let lines: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
            "select v8l_id, cast(v8l_paused_until as blob) from cd_v8_line where ?1 is null or v8l_id = ?1",
        )
        .bind(only)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        // Compared as times: another program may have written them in another notation.
        let end = clock::parse(&until);
        let sooner = lines.into_iter().filter(|(_, paused_until)| {
            paused_until.as_deref().and_then(|text| clock::parse(&String::from_utf8_lossy(text))) < end
        });
        sqlx::query(
            "update cd_v8_line set v8l_paused_until = ?2, v8l_pause_reason = ?3
             where v8l_id in (select value from json_each(?1))",
        )
        .bind(list(sooner.map(|(id, _)| id)))
        .bind(&until)
        .bind(reason)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        commit(transaction).await
    }

    async fn line_summaries(&self, ids: &[LineId]) -> Result<Vec<LineSummary>, StoreError> {
        let found = sqlx::query(concat!(
            summary_select!(),
            "where l.v8l_id in (select value from json_each(?1)) order by l.v8l_id"
        ))
        .bind(list(ids.iter().map(|id| id.0)))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        summaries(&found)
    }

    async fn account_lines(&self, account: AccountId) -> Result<Vec<LineSummary>, StoreError> {
        let found = sqlx::query(concat!(summary_select!(), "where l.cdcs_id = ?1 order by l.v8l_id"))
            .bind(account.0)
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        summaries(&found)
    }

    async fn stopped_lines(&self) -> Result<Vec<LineSummary>, StoreError> {
        let found = sqlx::query(concat!(
            summary_select!(),
            "where l.v8l_paused_until is not null or not has_token order by l.v8l_id"
        ))
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(summaries(&found)?.into_iter().filter(LineSummary::is_stopped).collect())
    }

    async fn update_line(&self, line: LineId, change: &LineChange) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set
                 v8l_name = coalesce(?2, v8l_name), v8l_active = coalesce(?3, v8l_active),
                 v8l_rate_text = iif(?4, ?5, v8l_rate_text), v8l_rate_media = iif(?6, ?7, v8l_rate_media),
                 v8l_fb_page_id = coalesce(?8, v8l_fb_page_id),
                 v8l_ig_account_id = coalesce(?9, v8l_ig_account_id), v8l_graph = iif(?10, ?11, v8l_graph)
             where v8l_id = ?1",
        )
        .bind(line.0)
        .bind(change.name.as_deref())
        .bind(change.active)
        .bind(change.rate_text.is_some())
        .bind(change.rate_text.flatten())
        .bind(change.rate_media.is_some())
        .bind(change.rate_media.flatten())
        .bind(change.page_id.as_deref())
        .bind(change.instagram_account_id.as_deref())
        .bind(change.login.is_some())
        .bind(change.login.flatten().map(Login::as_str))
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn remove_line(&self, line: LineId) -> Result<bool, StoreError> {
        sqlx::query("delete from cd_v8_line where v8l_id = ?1")
            .bind(line.0)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn set_account_active(&self, account: AccountId, active: bool) -> Result<bool, StoreError> {
        sqlx::query("update account set cdcs_active = ?2 where cdcs_id = ?1")
            .bind(account.0)
            .bind(active)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError> {
        let added = sqlx::query("insert into account (cdcs_name, created_at) values (?1, ?2)")
            .bind(name)
            .bind(Now::read().text())
            .execute(&self.writer)
            .await
            .map_err(failed)?;
        Ok(AccountId(added.last_insert_rowid()))
    }

    /// Return the accounts by id.
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        let found = sqlx::query(
            "select a.cdcs_id, a.cdcs_name, a.cdcs_active <> 0 as active, a.created_at,
                    (select group_concat(n.network) from (select network from account_network
                     where cdcs_id = a.cdcs_id order by network) n) as networks
             from account a order by a.cdcs_id",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, |row| {
            let networks: Option<&str> = get(row, "networks")?;
            Ok(AccountRow {
                cdcs_id: AccountId(get(row, "cdcs_id")?),
                cdcs_name: get(row, "cdcs_name")?,
                cdcs_active: get(row, "active")?,
                networks: networks.unwrap_or_default().split_terminator(',').map(str::to_owned).collect(),
                created_at: time(row, "created_at")?,
            })
        }))
    }

    async fn map_broker_user(
        &self,
        account: AccountId,
        user: &str,
        submit_queue: bool,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "insert into broker_user (broker_user, cdcs_id, submit_queue, created_at) values (?1, ?2, ?3, ?4)
             on conflict (broker_user) do update set submit_queue = 1
             where broker_user.cdcs_id = excluded.cdcs_id
               and excluded.submit_queue <> 0 and broker_user.submit_queue = 0",
        )
        .bind(user)
        .bind(account.0)
        .bind(submit_queue)
        .bind(Now::read().text())
        .execute(&self.writer)
        .await
        .map_err(|error| match kind(&error) {
            Some(ErrorKind::ForeignKeyViolation) => no_account(account),
            _ => failed(error),
        })?;
        if changed.rows_affected() == 0 {
            return Err(StoreError::Invalid(format!(
                "user {user} is mapped already (account unmap-user --user {user} ends that)"
            )));
        }
        Ok(())
    }

    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError> {
        sqlx::query("delete from broker_user where broker_user = ?1")
            .bind(user)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn submit_queues(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("select broker_user from broker_user where submit_queue <> 0 order by broker_user")
            .fetch_all(&self.reader)
            .await
            .map_err(failed)
    }

    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError> {
        let found = sqlx::query(
            "select broker_user, cdcs_id, submit_queue <> 0 as has_queue, created_at from broker_user
             order by broker_user",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(failed)?;
        Ok(readable(&found, |row| {
            Ok(BrokerUserRow {
                broker_user: get(row, "broker_user")?,
                cdcs_id: AccountId(get(row, "cdcs_id")?),
                submit_queue: get(row, "has_queue")?,
                created_at: time(row, "created_at")?,
            })
        }))
    }

    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError> {
        let added = sqlx::query(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_name, v8l_class, v8l_wa_api_key, v8l_fb_page_id,
                                     v8l_ig_account_id, v8l_rate_text, v8l_rate_media, v8l_graph, v8l_pat_refreshed_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .bind(line.id.map(|id| id.0))
        .bind(line.account.0)
        .bind(&line.name)
        .bind(line.class.as_str())
        .bind(line.page_token.expose_secret())
        .bind(&line.page_id)
        .bind(&line.instagram_account_id)
        .bind(line.rate_text)
        .bind(line.rate_media)
        .bind(line.login.map(Login::as_str))
        .bind(Now::read().text())
        .execute(&self.writer)
        .await
        .map_err(|error| line_refused(error, line))?;
        Ok(LineId(added.last_insert_rowid()))
    }

    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_wa_api_key = ?2, v8l_paused_until = null, v8l_pause_reason = null,
                 v8l_pat_version = v8l_pat_version + 1, v8l_pat_expires_at = null, v8l_pat_refreshed_at = ?3,
                 v8l_pat_next_try_at = null, v8l_pat_error = null
             where v8l_id = ?1",
        )
        .bind(line.0)
        .bind(page_token.expose_secret())
        .bind(Now::read().text())
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }

    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let until = length.map_or_else(|| clock::FOREVER.to_owned(), |length| Now::read().after(length));
        sqlx::query("update cd_v8_line set v8l_paused_until = ?2, v8l_pause_reason = ?3 where v8l_id = ?1")
            .bind(line.0)
            .bind(until)
            .bind(reason)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed)
    }

    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError> {
        sqlx::query(
            "update cd_v8_line set v8l_paused_until = null, v8l_pause_reason = null where v8l_id = ?1",
        )
        .bind(line.0)
        .execute(&self.writer)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed)
    }
}

fn line_refused(error: sqlx::Error, line: &NewLine) -> StoreError {
    match (kind(&error), line.id) {
        (Some(ErrorKind::ForeignKeyViolation), _) => no_account(line.account),
        (Some(ErrorKind::UniqueViolation), Some(id)) => {
            StoreError::Invalid(format!("line {id} exists already"))
        }
        (Some(ErrorKind::CheckViolation), _) => {
            StoreError::Invalid("a line's id and its rates must be positive".into())
        }
        _ => failed(error),
    }
}

pub fn no_account(account: AccountId) -> StoreError {
    StoreError::Invalid(format!("account {account} does not exist"))
}

pub fn kind(error: &sqlx::Error) -> Option<ErrorKind> {
    error.as_database_error().map(|error| error.kind())
}
