//! Ready rows become `work`: one row of the queue for the messages of a transaction that are served in turn
//! together.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::error::failed;
use crate::channel::Medium;
use crate::domain::{AccountId, RowId, WorkId};
use crate::store::{Flow, StoreError, WORK_ROWS, Work};

/// A row that enters `work`.
pub struct QueuedRow {
    pub id: RowId,
    pub account: AccountId,
    pub flow: Flow,
    pub expires_at: String,
}

const ADD: &str = "
insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, again, expires_at)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->'$[7]', ?2, value->>8
from json_each(?1) order by key
returning work_id";

/// Add work for these rows; `again`: they were scheduled or tried before. Return the work in order of number,
/// which is the order of the first ids.
pub async fn add(
    connection: &mut SqliteConnection,
    rows: Vec<QueuedRow>,
    again: bool,
) -> Result<Vec<Work>, StoreError> {
    let parts = parts(rows);
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<Value> = parts.iter().map(WorkPart::values).collect();
    let mut numbers: Vec<i64> = sqlx::query_scalar(ADD)
        .bind(Value::Array(values).to_string())
        .bind(again)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    // Numbers are given in the order of insertion (AUTOINCREMENT); only the order of RETURNING is not
    // promised.
    numbers.sort_unstable();
    if numbers.len() != parts.len() {
        return Err(StoreError::Unavailable("a row of work was not inserted".into()));
    }
    let numbered = numbers.into_iter().zip(parts);
    Ok(numbered.map(|(id, part)| Work { id: WorkId(id), flow: part.flow, ids: part.ids }).collect())
}

/// The rows of one `work`.
struct WorkPart {
    account: AccountId,
    flow: Flow,
    ids: Vec<RowId>,
    expires_at: String,
}

impl WorkPart {
    fn values(&self) -> Value {
        json!([
            self.flow.line.partition(),
            self.account,
            self.flow.line,
            self.flow.lane,
            i32::from(self.flow.medium == Medium::Media),
            self.flow.campaign,
            self.ids.first(),
            self.ids,
            self.expires_at,
        ])
    }
}

/// Return the rows by flow, in order of id, in parts of a bounded size; the parts in order of their first
/// rows.
fn parts(mut rows: Vec<QueuedRow>) -> Vec<WorkPart> {
    rows.sort_unstable_by_key(|row| row.id);
    let mut parts: Vec<WorkPart> = Vec::new();
    let mut open: BTreeMap<(AccountId, Flow), usize> = BTreeMap::new();
    for QueuedRow { id, account, flow, expires_at } in rows {
        let place = open.entry((account, flow.clone())).or_insert(usize::MAX);
        match parts.get_mut(*place).filter(|part| part.ids.len() < WORK_ROWS) {
            Some(part) => {
                part.ids.push(id);
                part.expires_at = expires_at.min(std::mem::take(&mut part.expires_at));
            }
            None => {
                *place = parts.len();
                parts.push(WorkPart { account, flow, ids: vec![id], expires_at });
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Lane, LineId};

    #[test]
    fn splits_rows_by_flow_in_order_of_id() {
        let flow = |line| Flow {
            line: LineId(line),
            lane: Lane::High,
            medium: Medium::Text,
            campaign: String::new(),
        };
        let row = |id: i64, line| QueuedRow {
            id: RowId(id),
            account: AccountId(1),
            flow: flow(line),
            expires_at: format!("2030-01-{:02}", 31 - id % 10),
        };
        let mut rows: Vec<QueuedRow> = (0..70).rev().map(|id| row(id, 1)).collect();
        rows.push(row(3, 2));
        let parts = parts(rows);
        let sizes: Vec<(i64, i64, usize)> =
            parts.iter().map(|part| (part.ids[0].0, part.flow.line.0, part.ids.len())).collect();
        assert_eq!(sizes, [(0, 1, 64), (3, 2, 1), (64, 1, 6)]);
        assert!(parts.iter().all(|part| part.ids.is_sorted()));
        assert_eq!(parts[0].expires_at, "2030-01-22");
    }
}
