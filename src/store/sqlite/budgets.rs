//! The budgets that Meta keeps for lines and apps.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::SqliteStore;
use super::clock::Now;
use super::error::failed;
use super::row::{get, list, readable, time, time_or_null};
use crate::domain::LineId;
use crate::store::budgets::{BindingRow, COUNT_LASTS, ROWS_LAST, line_uses};
use crate::store::{BudgetRow, BudgetScope, BudgetStore, LineUse, StoreError};

/// Rows ?1, a JSON array, of worker ?2 at ?3.
const WRITE: &str = "
    insert into budget (scope, worker, percent, limited_to, calls, cost, window_ms, held_until, heard_at, learned, updated_at)
    select value ->> 'scope', ?2, value ->> 'percent', value ->> 'limited_to', value ->> 'calls', value ->> 'cost',
           value ->> 'window_ms', value ->> 'held_until', value ->> 'heard_at', value ->> 'learned', ?3
    from json_each(?1) where true
    on conflict (scope, worker) do update set
        percent = excluded.percent, limited_to = excluded.limited_to, calls = excluded.calls, cost = excluded.cost,
        window_ms = excluded.window_ms, held_until = excluded.held_until, heard_at = excluded.heard_at,
        learned = excluded.learned, updated_at = excluded.updated_at";

const READ: &str = "
    select scope, worker, percent, limited_to, calls, cost, window_ms, held_until, heard_at, learned, updated_at
    from budget where scope in (select value from json_each(?1))";

const OF_LINES: &str = "
    select l.v8l_id, b.scope like 'app:%' as of_app, b.percent, b.limited_to, b.window_ms, b.updated_at
    from cd_v8_line l
    join budget b on b.scope in ('line:' || l.v8l_id, 'app:' || coalesce(l.v8l_meta_app, ''))
    where l.v8l_id in (select value from json_each(?1))";

const ENGAGED: &str = "
    select v8l_id, engaged from budget_day where v8l_id in (select value from json_each(?1)) and counted_at > ?2";

const COUNTED: &str = "
    select r.v8l_id, count(*) from cd_recipient r
    where r.v8l_id in (select value from json_each(?1)) and r.last_inbound_at > ?2
    group by r.v8l_id";

const KEEP: &str = "
    insert into budget_day (v8l_id, engaged, counted_at)
    select value ->> 0, value ->> 1, ?2 from json_each(?1) where true
    on conflict (v8l_id) do update set engaged = excluded.engaged, counted_at = excluded.counted_at";

const DAY: Duration = Duration::from_secs(24 * 3_600);

#[async_trait]
impl BudgetStore for SqliteStore {
    async fn write_budgets(&self, worker: &str, rows: &[BudgetRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let now = Now::read();
        let values: Vec<serde_json::Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "scope": row.scope.text(), "percent": row.percent, "limited_to": row.limited_to,
                    "calls": row.calls, "cost": row.cost, "window_ms": row.window.map(milliseconds),
                    "held_until": (!row.held_for.is_zero()).then(|| now.after(row.held_for)),
                    "heard_at": now.before(row.heard_ago), "learned": row.learned(),
                })
            })
            .collect();
        sqlx::query(WRITE)
            .bind(serde_json::Value::Array(values).to_string())
            .bind(worker)
            .bind(now.text())
            .execute(&self.writer)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn budgets(&self, scopes: &[BudgetScope]) -> Result<Vec<BudgetRow>, StoreError> {
        let scopes: Vec<String> = scopes.iter().map(BudgetScope::text).collect();
        let found = sqlx::query(READ)
            .bind(serde_json::Value::from(scopes).to_string())
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        let now = Now::read();
        Ok(readable(&found, |row| {
            let worker: String = get(row, "worker")?;
            let learned: String = get(row, "learned")?;
            let held_until = time_or_null(row, "held_until")?;
            Ok(BudgetRow {
                scope: scope(row)?,
                percent: get(row, "percent")?,
                heard_ago: since(now, time(row, "heard_at")?),
                limited_to: get(row, "limited_to")?,
                calls: get(row, "calls")?,
                cost: get(row, "cost")?,
                window: get::<Option<i64>>(row, "window_ms")?.map(length),
                held_for: held_until.and_then(|until| now.until(until).try_into().ok()).unwrap_or_default(),
                details: serde_json::from_str(&learned).unwrap_or_default(),
                updated_ago: since(now, time(row, "updated_at")?),
                is_alive: self.leases.is_alive(&worker),
                worker,
            })
        }))
    }

    async fn line_uses(&self, lines: &[LineId]) -> Result<Vec<LineUse>, StoreError> {
        let ids = list(lines.iter().map(|line| line.0));
        let found = sqlx::query(OF_LINES).bind(&ids).fetch_all(&self.reader).await.map_err(failed)?;
        let now = Now::read();
        let rows = readable(&found, |row| {
            Ok(BindingRow {
                line: LineId(get(row, "v8l_id")?),
                of_app: get(row, "of_app")?,
                percent: get(row, "percent")?,
                limited_to: get(row, "limited_to")?,
                window: get::<Option<i64>>(row, "window_ms")?.map(length),
                updated_ago: since(now, time(row, "updated_at")?),
            })
        });
        let engaged: Vec<(i64, i64)> = sqlx::query_as(ENGAGED)
            .bind(&ids)
            .bind(now.before(COUNT_LASTS))
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        let engaged: Vec<(LineId, i64)> =
            engaged.into_iter().map(|(id, count)| (LineId(id), count)).collect();
        Ok(line_uses(lines, &rows, &engaged))
    }

    async fn count_engaged(&self, lines: &[LineId]) -> Result<Vec<(LineId, i64)>, StoreError> {
        let now = Now::read();
        let counted: Vec<(i64, i64)> = sqlx::query_as(COUNTED)
            .bind(list(lines.iter().map(|line| line.0)))
            .bind(now.before(DAY))
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
        if !counted.is_empty() {
            sqlx::query(KEEP)
                .bind(json!(counted).to_string())
                .bind(now.text())
                .execute(&self.writer)
                .await
                .map_err(failed)?;
        }
        Ok(counted.into_iter().map(|(id, count)| (LineId(id), count)).collect())
    }

    async fn drop_old_budgets(&self) -> Result<u64, StoreError> {
        let before = Now::read().before(ROWS_LAST);
        let is_any: Option<i64> = sqlx::query_scalar("select 1 from budget where updated_at < ?1 limit 1")
            .bind(&before)
            .fetch_optional(&self.reader)
            .await
            .map_err(failed)?;
        // An idle process writes nothing.
        if is_any.is_none() {
            return Ok(0);
        }
        sqlx::query("delete from budget where updated_at < ?1")
            .bind(before)
            .execute(&self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }
}

fn milliseconds(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

fn length(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds.max(0).unsigned_abs())
}

/// Return the time since then; none if it has not come.
fn since(now: Now, then: OffsetDateTime) -> Duration {
    (now.time() - then).try_into().unwrap_or_default()
}

fn scope(row: &SqliteRow) -> Result<BudgetScope, StoreError> {
    let text: String = get(row, "scope")?;
    BudgetScope::parse(&text).ok_or_else(|| StoreError::Schema(format!("{text:?} is no scope of a budget")))
}
