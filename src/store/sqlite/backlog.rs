//! The backlog of a line: how many messages wait, and since when.

use sqlx::SqlitePool;

use super::error::failed;
use super::row::{get, time_or_null};
use crate::domain::LineId;
use crate::store::{LineBacklog, StoreError};

/// Rows of line ?1, of partition ?2, that wait and are not in a call.
pub(super) const OF_LINE: &str = "
select count(*) as waiting, min(c.created_at) as oldest from (
    select i.value as id from work w indexed by work_flow cross join json_each(w.ids) i
    where w.partition_no = ?2 and w.v8l_id = ?1
    union
    select o.cdls_id from cdls_open o indexed by cdls_open_due
    where o.partition_no = ?2 and o.due_at is not null and o.v8l_id = ?1) q
cross join cdls c
where c.cdls_id = q.id and c.status in ('PENDING', 'RETRY')
  and not exists (select 1 from claim_row r where r.cdls_id = c.cdls_id and r.fence > c.fence)";

/// Return what waits for each of these lines; a line for which nothing waits is left out.
pub async fn of_lines(reader: &SqlitePool, lines: &[LineId]) -> Result<Vec<LineBacklog>, StoreError> {
    let mut backlog = Vec::new();
    for line in lines {
        let row = sqlx::query(OF_LINE)
            .bind(line.0)
            .bind(line.partition().0)
            .fetch_one(reader)
            .await
            .map_err(failed)?;
        let waiting: i64 = get(&row, "waiting")?;
        if waiting > 0 {
            backlog.push(LineBacklog { line: *line, waiting, oldest: time_or_null(&row, "oldest")? });
        }
    }
    Ok(backlog)
}
