//! Counters of campaigns, kept by the transactions that change rows.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::clock::Now;
use super::error::failed;
use crate::message::Status;
use crate::store::StoreError;

/// Rows of a campaign that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub account: i64,
    pub cp_id: String,
    pub line: i64,
    pub media: bool,
}

/// The rows that one transaction adds to the counters.
#[derive(Default)]
pub struct Counts(BTreeMap<(Group, String), (i64, i64)>);

impl Counts {
    /// A new row of the campaign.
    pub fn logged(&mut self, group: Group) {
        self.add(group, Status::Pending.as_str(), 1, 0);
    }

    /// A row went from one state to another; `is_sent`: by an answer of Graph that ended it.
    pub fn changed(&mut self, group: Group, from: &str, to: &str, is_sent: bool) {
        if from != to {
            self.add(group.clone(), from, -1, 0);
            self.add(group, to, 1, i64::from(is_sent));
        }
    }

    fn add(&mut self, group: Group, status: &str, rows: i64, sent: i64) {
        let entry = self.0.entry((group, status.to_owned())).or_default();
        *entry = (entry.0 + rows, entry.1 + sent);
    }

    /// Writes them.
    pub async fn write(self, connection: &mut SqliteConnection, now: Now) -> Result<(), StoreError> {
        let rows: Vec<Value> = self
            .0
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
