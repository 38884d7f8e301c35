//! Counters of campaigns, kept by the transactions that change rows.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::clock::Now;
use super::error::failed;
use crate::domain::Status;
use crate::store::StoreError;

/// Rows of a campaign that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterGroup {
    pub account: i64,
    pub cp_id: String,
    pub line: i64,
    pub media: bool,
}

/// The rows that one transaction adds to the counters.
#[derive(Default)]
pub struct CampaignDeltas {
    states: BTreeMap<(CounterGroup, String), (i64, i64)>,
    errors: BTreeMap<ErrorGroup, i64>,
}

/// Account, campaign, code, subcode and kind; an empty text stands for NULL.
type ErrorGroup = (i64, String, String, String, String);

impl CampaignDeltas {
    /// Count a new row of the campaign.
    pub fn logged(&mut self, group: CounterGroup) {
        self.add(group, Status::Pending.as_str(), 1, 0);
    }

    /// Count a row that went from one state to another; `is_sent`: by an answer of Graph that ended it.
    pub fn changed(&mut self, group: CounterGroup, from: &str, to: &str, is_sent: bool) {
        if from != to {
            self.add(group.clone(), from, -1, 0);
            self.add(group, to, 1, i64::from(is_sent));
        }
    }

    /// Count a row of which Meta has told more, under the word for it.
    pub fn received(&mut self, group: CounterGroup, word: &str) {
        self.add(group, word, 1, 0);
    }

    /// Count a row that ended as ERROR.
    pub fn erred(&mut self, group: &CounterGroup, code: Option<i32>, subcode: Option<i32>, kind: &str) {
        let number = |number: Option<i32>| number.map(|number| number.to_string()).unwrap_or_default();
        let error = (group.account, group.cp_id.clone(), number(code), number(subcode), kind.to_owned());
        *self.errors.entry(error).or_default() += 1;
    }

    fn add(&mut self, group: CounterGroup, status: &str, rows: i64, sent: i64) {
        let entry = self.states.entry((group, status.to_owned())).or_default();
        *entry = (entry.0 + rows, entry.1 + sent);
    }

    /// Write the deltas.
    pub async fn write(self, connection: &mut SqliteConnection, now: Now) -> Result<(), StoreError> {
        write_errors(connection, self.errors).await?;
        let rows: Vec<Value> = self
            .states
            .into_iter()
            .filter(|(_, (rows, sent))| (*rows, *sent) != (0, 0))
            .map(|((group, status), (rows, sent))| {
                json!([group.account, group.cp_id, group.line, i32::from(group.media), status, rows, sent])
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows, sent, at)
             select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, ?2
             from json_each(?1)",
        )
        .bind(Value::Array(rows).to_string())
        .bind(now.text())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
    }
}

const ADD_ERRORS: &str = "
insert into campaign_error (cdcs_id, cp_id, code, subcode, kind, rows)
select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 from json_each(?1) where true
on conflict (cdcs_id, cp_id, code, subcode, kind) do update set rows = rows + excluded.rows";

async fn write_errors(
    connection: &mut SqliteConnection,
    errors: BTreeMap<ErrorGroup, i64>,
) -> Result<(), StoreError> {
    if errors.is_empty() {
        return Ok(());
    }
    let rows = errors.into_iter().map(|((account, cp_id, code, subcode, kind), rows)| {
        json!([account, cp_id, code, subcode, kind, rows])
    });
    sqlx::query(ADD_ERRORS)
        .bind(Value::from_iter(rows).to_string())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed)
}
