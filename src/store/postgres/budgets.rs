//! The budgets that Meta keeps for lines and apps.

use async_trait::async_trait;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::error::failed;
use super::parameters::{length, milliseconds};
use super::rows;
use crate::domain::LineId;
use crate::store::budgets::{BindingRow, COUNT_LASTS, ROWS_LAST, line_uses};
use crate::store::{BudgetRow, BudgetScope, BudgetStore, LineUse, StoreError};

/// Rows of worker $1. In one order, so that two processes never wait for each other.
const WRITE: &str = "
    insert into budget as b (scope, worker, percent, limited_to, calls, cost, window_ms, held_until, heard_at, learned)
    select u.scope, $1, u.percent, u.limited_to, u.calls, u.cost, u.window_ms,
           case when u.held_ms > 0 then now() + u.held_ms * interval '1 millisecond' end,
           now() - u.heard_ms * interval '1 millisecond', u.learned
    from unnest($2::text[], $3::double precision[], $4::double precision[], $5::bigint[], $6::double precision[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])
        as u(scope, percent, limited_to, calls, cost, window_ms, held_ms, heard_ms, learned)
    order by u.scope
    on conflict (scope, worker) do update set
        percent = excluded.percent, limited_to = excluded.limited_to, calls = excluded.calls, cost = excluded.cost,
        window_ms = excluded.window_ms, held_until = excluded.held_until, heard_at = excluded.heard_at,
        learned = excluded.learned, updated_at = now()";

const READ: &str = "
    select b.scope, b.worker, b.percent, b.limited_to, b.calls, b.cost, b.window_ms, b.learned,
           (extract(epoch from b.held_until - now()) * 1000)::bigint as held_ms,
           (extract(epoch from now() - b.heard_at) * 1000)::bigint as heard_ms,
           (extract(epoch from now() - b.updated_at) * 1000)::bigint as updated_ms,
           exists (select from worker_lease w where w.worker = b.worker and w.expires_at > now()) as is_alive
    from budget b where b.scope = any ($1)";

const OF_LINES: &str = "
    select l.v8l_id, b.scope like 'app:%' as of_app, b.percent, b.limited_to, b.window_ms,
           (extract(epoch from now() - b.updated_at) * 1000)::bigint as updated_ms
    from cd_v8_line l
    join budget b on b.scope in ('line:' || l.v8l_id, 'app:' || coalesce(l.v8l_meta_app, ''))
    where l.v8l_id = any ($1)";

const ENGAGED: &str = "
    select v8l_id, engaged from budget_day
    where v8l_id = any ($1) and counted_at > now() - $2 * interval '1 millisecond'";

/// Each line's persons are counted in the index of `last_inbound_at`.
const COUNT: &str = "
    insert into budget_day as d (v8l_id, engaged)
    select l.v8l_id, c.engaged
    from unnest($1::bigint[]) as l(v8l_id)
    cross join lateral (
        select count(*) as engaged from cd_recipient r
        where r.v8l_id = l.v8l_id and r.last_inbound_at > now() - interval '24 hours') as c
    where c.engaged > 0
    order by l.v8l_id
    on conflict (v8l_id) do update set engaged = excluded.engaged, counted_at = now()
    returning d.v8l_id, d.engaged";

#[async_trait]
impl BudgetStore for PostgresStore {
    async fn write_budgets(&self, worker: &str, rows: &[BudgetRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(WRITE)
            .bind(worker)
            .bind(rows.iter().map(|row| row.scope.text()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.percent).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.limited_to).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.calls).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.cost).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.window.map(milliseconds)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| milliseconds(row.held_for)).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| milliseconds(row.heard_ago)).collect::<Vec<_>>())
            .bind(rows.iter().map(BudgetRow::learned).collect::<Vec<_>>())
            .execute(&self.scans)
            .await
            .map(drop)
            .map_err(failed)
    }

    async fn budgets(&self, scopes: &[BudgetScope]) -> Result<Vec<BudgetRow>, StoreError> {
        let found = sqlx::query(READ)
            .bind(scopes.iter().map(BudgetScope::text).collect::<Vec<_>>())
            .fetch_all(&self.scans)
            .await
            .map_err(failed)?;
        Ok(rows::readable(&found, budget))
    }

    async fn line_uses(&self, lines: &[LineId]) -> Result<Vec<LineUse>, StoreError> {
        let ids: Vec<i64> = lines.iter().map(|line| line.0).collect();
        let found = sqlx::query(OF_LINES).bind(&ids).fetch_all(&self.enquiries).await.map_err(failed)?;
        let engaged: Vec<(i64, i64)> = sqlx::query_as(ENGAGED)
            .bind(&ids)
            .bind(milliseconds(COUNT_LASTS))
            .fetch_all(&self.enquiries)
            .await
            .map_err(failed)?;
        let engaged: Vec<(LineId, i64)> =
            engaged.into_iter().map(|(id, count)| (LineId(id), count)).collect();
        Ok(line_uses(lines, &rows::readable(&found, binding), &engaged))
    }

    async fn count_engaged(&self, lines: &[LineId]) -> Result<Vec<(LineId, i64)>, StoreError> {
        let counted: Vec<(i64, i64)> = sqlx::query_as(COUNT)
            .bind(lines.iter().map(|line| line.0).collect::<Vec<_>>())
            .fetch_all(&self.scans)
            .await
            .map_err(failed)?;
        Ok(counted.into_iter().map(|(id, count)| (LineId(id), count)).collect())
    }

    async fn drop_old_budgets(&self) -> Result<u64, StoreError> {
        sqlx::query("delete from budget where updated_at < now() - $1 * interval '1 millisecond'")
            .bind(milliseconds(ROWS_LAST))
            .execute(&self.scans)
            .await
            .map(|done| done.rows_affected())
            .map_err(failed)
    }
}

fn scope(row: &PgRow) -> Result<BudgetScope, StoreError> {
    let text: String = rows::get(row, "scope")?;
    BudgetScope::parse(&text).ok_or_else(|| StoreError::Rejected(format!("{text:?} is no scope of a budget")))
}

fn budget(row: &PgRow) -> Result<BudgetRow, StoreError> {
    let learned: String = rows::get(row, "learned")?;
    Ok(BudgetRow {
        scope: scope(row)?,
        worker: rows::get(row, "worker")?,
        percent: rows::get(row, "percent")?,
        heard_ago: length(rows::get(row, "heard_ms")?),
        limited_to: rows::get(row, "limited_to")?,
        calls: rows::get(row, "calls")?,
        cost: rows::get(row, "cost")?,
        window: rows::get::<Option<i64>>(row, "window_ms")?.map(length),
        held_for: length(rows::get::<Option<i64>>(row, "held_ms")?.unwrap_or_default()),
        details: serde_json::from_str(&learned).unwrap_or_default(),
        updated_ago: length(rows::get(row, "updated_ms")?),
        is_alive: rows::get(row, "is_alive")?,
    })
}

fn binding(row: &PgRow) -> Result<BindingRow, StoreError> {
    Ok(BindingRow {
        line: LineId(rows::get(row, "v8l_id")?),
        of_app: rows::get(row, "of_app")?,
        percent: rows::get(row, "percent")?,
        limited_to: rows::get(row, "limited_to")?,
        window: rows::get::<Option<i64>>(row, "window_ms")?.map(length),
        updated_ago: length(rows::get(row, "updated_ms")?),
    })
}
