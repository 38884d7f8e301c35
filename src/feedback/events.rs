//! Events for listeners (contract 4, `cdls.events`): one for each change, built from the change and its row.
//!
//! Rows are read a batch at a time and after the commit, so that dispatch carries nothing for them. A batch that
//! cannot be read is dropped: events are best effort. Never here: message texts.

use std::collections::HashMap;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Happened, HappenedError};
use crate::broker::SharedBroker;
use crate::message::{AccountId, Class, LineId, MessageId, Status};
use crate::store::{LogRow, SharedStore};

/// Rows one look-up reads at most.
const BATCH: usize = 500;

/// Publishes what happened.
pub struct EventPublisher {
    store: SharedStore,
    broker: SharedBroker,
    waiting: mpsc::Receiver<Happened>,
}

#[derive(Serialize)]
struct Event<'a> {
    cdls_id: MessageId,
    cdcs_id: AccountId,
    v8l_id: LineId,
    class: Class,
    dest: &'a str,
    msg_id: Option<&'a str>,
    cp_id: Option<&'a str>,
    status: Status,
    status_code: i32,
    message_id: Option<&'a str>,
    error_code: Option<i32>,
    error_subcode: Option<i32>,
    error_kind: Option<&'a str>,
    #[serde(serialize_with = "crate::message::time")]
    at: OffsetDateTime,
}

impl EventPublisher {
    pub(super) fn new(
        store: SharedStore,
        broker: SharedBroker,
        waiting: mpsc::Receiver<Happened>,
    ) -> EventPublisher {
        EventPublisher { store, broker, waiting }
    }

    /// Until `ended`, and what waits then.
    pub async fn run(mut self, ended: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let received = tokio::select! {
                received = self.waiting.recv_many(&mut batch, BATCH) => received,
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

    async fn publish(&self, batch: &[Happened]) {
        let ids: Vec<_> = batch.iter().map(|happened| happened.id).collect();
        let rows = match self.store.log_rows(&ids).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, events = batch.len(), "cannot read rows of events: events dropped");
                return;
            }
        };
        let rows: HashMap<MessageId, LogRow> = rows.into_iter().map(|row| (row.cdls_id, row)).collect();
        for happened in batch {
            if let Some(row) = rows.get(&happened.id) {
                let event = event(happened, row);
                let json = serde_json::to_vec(&event).expect("texts and integers are always JSON");
                self.broker.event(&key(&event), json);
            }
        }
    }
}

/// `<class>.<status>.<v8l_id>`
fn key(event: &Event<'_>) -> String {
    format!("{}.{}.{}", event.class, event.status.as_str().to_ascii_lowercase(), event.v8l_id)
}

fn event<'a>(happened: &'a Happened, row: &'a LogRow) -> Event<'a> {
    let (error_code, error_subcode, error_kind) = match happened.error {
        HappenedError::Of { code, subcode, kind } => (code, subcode, kind),
        HappenedError::OfTheRow => {
            (row.error_code, row.error_subcode, row.error_kind.map(|kind| kind.as_str()))
        }
    };
    Event {
        cdls_id: row.cdls_id,
        cdcs_id: row.cdcs_id,
        v8l_id: row.v8l_id,
        class: row.class,
        dest: &row.dest,
        msg_id: row.msg_id.as_deref(),
        cp_id: row.cp_id.as_deref(),
        status: happened.status,
        status_code: happened.status_code,
        message_id: happened.message_id.as_deref(),
        error_code,
        error_subcode,
        error_kind,
        at: happened.at,
    }
}
