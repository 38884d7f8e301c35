//! Poolers between the program and PostgreSQL, such as PgBouncer: whether a session stays this program's own.
//!
//! A pooler that gives each transaction another session (`pool_mode = transaction`) loses the limits and the
//! search path of a session, and gives them to others. The program cannot work so, and reports it before any
//! other failure.

use std::sync::atomic::Ordering;

use sqlx::{Connection, Error, PgConnection};

use super::PostgresStore;
use super::error::{SHARED_SESSIONS, failed, shares_sessions};
use crate::store::StoreError;

const MARK: &str = "select set_config('meta_dispatch.session', $1, false)";
const READ_MARK: &str = "select current_setting('meta_dispatch.session', true)";

impl PostgresStore {
    /// Refuse a pooler that gives sessions away. Checked until there is known to be none.
    pub(super) async fn check_sessions(&self) -> Result<(), StoreError> {
        if self.are_sessions_kept.load(Ordering::Relaxed) {
            return Ok(());
        }
        let refused = || StoreError::Invalid(format!("database.url: {SHARED_SESSIONS}"));
        let cannot_lend = |error| if shares_sessions(&error) { refused() } else { failed(error) };
        let mut one = self.background.lend().await.map_err(cannot_lend)?;
        let mut other = match self.ingest.lend().await.map_err(cannot_lend) {
            Ok(other) => other,
            Err(error @ StoreError::Invalid(_)) => return Err(error),
            // The next statements report the fault.
            Err(_) => {
                one.give_back();
                return Ok(());
            }
        };
        let mark = format!("{:016x}", rand::random::<u64>());
        match self.ingest.wait_for(is_kept(&mut one, &mut other, &mark)).await {
            Ok(true) => {}
            Ok(false) => return Err(refused()),
            Err(_) => return Ok(()),
        }
        other.give_back();
        one.give_back();
        self.are_sessions_kept.store(true, Ordering::Relaxed);
        Ok(())
    }
}

async fn is_kept(one: &mut PgConnection, other: &mut PgConnection, mark: &str) -> Result<bool, StoreError> {
    match keeps_mark(one, other, mark).await {
        Err(error) if shares_sessions(&error) => Ok(false),
        kept => kept.map_err(failed),
    }
}

/// Whether a setting of one session stays with it, and with it alone, while another session is in a
/// transaction. A pooler that gives sessions away lends the one that was used last.
async fn keeps_mark(one: &mut PgConnection, other: &mut PgConnection, mark: &str) -> Result<bool, Error> {
    sqlx::query(MARK).bind(mark).execute(&mut *one).await?;
    let mut holding = other.begin().await?;
    let of_other: Option<String> = sqlx::query_scalar(READ_MARK).fetch_one(&mut *holding).await?;
    let of_one: Option<String> = sqlx::query_scalar(READ_MARK).fetch_one(&mut *one).await?;
    holding.rollback().await?;
    Ok(of_one.as_deref() == Some(mark) && of_other.as_deref() != Some(mark))
}
