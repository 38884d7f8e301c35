//! Events for listeners (contract: RabbitMQ, `cdls.events` and `cdls.events.<cdcs_id>`): one for each change, built
//! from the change and its row.
//!
//! Rows are read a batch at a time and after the commit, so that dispatch carries nothing for them. A batch
//! that cannot be read is dropped: events are best effort. Never here: message texts.

use std::collections::HashMap;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::row_event::{RowEvent, RowEventError};
use crate::broker::SharedBroker;
use crate::channel::Class;
use crate::domain::{AccountId, LineId, RowId};
use crate::store::{LogRow, SharedStore};

/// How many rows one look-up reads at most.
const MAX_BATCH_ROWS: usize = 500;

/// The publisher of events.
pub struct EventPublisher {
    store: SharedStore,
    broker: SharedBroker,
    waiting: mpsc::Receiver<RowEvent>,
}

#[derive(Serialize)]
struct EventBody<'a> {
    cdls_id: RowId,
    cdcs_id: AccountId,
    v8l_id: LineId,
    class: Class,
    dest: &'a str,
    msg_id: Option<&'a str>,
    cp_id: Option<&'a str>,
    status: &'static str,
    status_code: i32,
    message_id: Option<&'a str>,
    error_code: Option<i32>,
    error_subcode: Option<i32>,
    error_kind: Option<&'a str>,
    #[serde(serialize_with = "crate::text::time")]
    at: OffsetDateTime,
}

impl EventPublisher {
    pub(super) fn new(
        store: SharedStore,
        broker: SharedBroker,
        waiting: mpsc::Receiver<RowEvent>,
    ) -> EventPublisher {
        EventPublisher { store, broker, waiting }
    }

    /// Publish until `ended`, and then the waiting events.
    pub async fn run(mut self, ended: CancellationToken) {
        let mut batch = Vec::with_capacity(MAX_BATCH_ROWS);
        loop {
            let received = tokio::select! {
                received = self.waiting.recv_many(&mut batch, MAX_BATCH_ROWS) => received,
                () = ended.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            self.publish(&batch).await;
            batch.clear();
        }
    }

    async fn publish(&self, batch: &[RowEvent]) {
        let ids: Vec<_> = batch.iter().map(|row_event| row_event.id).collect();
        let rows = match self.store.log_rows(&ids).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, events = batch.len(), "cannot read rows of events: events dropped");
                return;
            }
        };
        let rows: HashMap<RowId, LogRow> = rows.into_iter().map(|row| (row.cdls_id, row)).collect();
        for row_event in batch {
            if let Some(row) = rows.get(&row_event.id) {
                let event = event(row_event, row);
                let json = serde_json::to_vec(&event).expect("texts and integers are always JSON");
                self.broker.event(event.cdcs_id, &key(&event), json);
            }
        }
    }
}

/// Return the routing key `<class>.<status>.<v8l_id>`.
fn key(event: &EventBody<'_>) -> String {
    format!("{}.{}.{}", event.class, event.status.to_ascii_lowercase(), event.v8l_id)
}

fn event<'a>(row_event: &'a RowEvent, row: &'a LogRow) -> EventBody<'a> {
    let (error_code, error_subcode, error_kind) = match row_event.error {
        RowEventError::Of { code, subcode, kind } => (code, subcode, kind),
        RowEventError::OfTheRow => {
            (row.error_code, row.error_subcode, row.error_kind.map(|kind| kind.as_str()))
        }
    };
    let (status_code, message_id) = match row_event.news.is_receipt() {
        true => (row.status_code, row.message_id.as_deref()),
        false => (row_event.status_code, row_event.graph_id.as_deref()),
    };
    EventBody {
        cdls_id: row.cdls_id,
        cdcs_id: row.cdcs_id,
        v8l_id: row.v8l_id,
        class: row.class,
        dest: &row.dest,
        msg_id: row.msg_id.as_deref(),
        cp_id: row.cp_id.as_deref(),
        status: row_event.news.as_str(),
        status_code,
        message_id,
        error_code,
        error_subcode,
        error_kind,
        at: row_event.at,
    }
}
