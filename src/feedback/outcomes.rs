//! The outcomes of committed changes: to callers and producers that wait, and on to the publisher of events.

use tokio::sync::mpsc;

use super::events::EventPublisher;
use super::row_event::{RowEvent, RowEventError, RowNews};
use crate::broker::{BrokerState, SharedBroker};
use crate::domain::{ErrorKind, Outcome, Reply, RowId, Status, Waiter};
use crate::edge::Envelope;
use crate::settings::EventScope;
use crate::store::{Change, ChangeKind, Received, RowChange, SharedStore};

/// Changes that wait to become events; more are dropped.
const MAX_QUEUED_EVENTS: usize = 20_000;

/// Answers waiters and publishes events. Cheap to clone.
#[derive(Clone)]
pub struct Feedback {
    broker: SharedBroker,
    scope: EventScope,
    row_events: Option<mpsc::Sender<RowEvent>>,
}

impl Feedback {
    /// Return the feedback and, unless the scope is `none`, the publisher of events, which the caller has to
    /// run.
    pub fn new(
        broker: SharedBroker,
        store: SharedStore,
        scope: EventScope,
    ) -> (Feedback, Option<EventPublisher>) {
        if scope == EventScope::None {
            return (Feedback { broker, scope, row_events: None }, None);
        }
        let (row_events, waiting) = mpsc::channel(MAX_QUEUED_EVENTS);
        let publisher = EventPublisher::new(store, broker.clone(), waiting);
        (Feedback { broker, scope, row_events: Some(row_events) }, Some(publisher))
    }

    /// Answer the row's waiter and publish the event of a committed change.
    pub fn changed(&self, change: &Change, waiter: Option<&str>) {
        let row = change.row();
        let kind = row.error_kind.and_then(|kind| kind.parse::<ErrorKind>().ok());
        let without_answer = kind.is_some_and(ErrorKind::is_without_answer);
        let status_code = if without_answer { 0 } else { row.status_code.unwrap_or(0) };
        if row.to.is_outcome() && waiter.is_some() {
            self.answer_waiter(waiter, outcome(change, &row, status_code));
        } else if let Some(detail) = held_up(change).filter(|_| waiter.is_some()) {
            // The request would wait in vain: its line sends only after a person has acted.
            let outcome = Outcome { detail: Some(detail), ..outcome(change, &row, 0) };
            self.answer_waiter(waiter, outcome);
        }
        let error = match row.writes_error {
            true => {
                RowEventError::Of { code: row.error_code, subcode: row.error_subcode, kind: row.error_kind }
            }
            false => RowEventError::OfTheRow,
        };
        self.publish(RowEvent {
            error,
            status_code,
            graph_id: row.graph_id,
            ..RowEvent::now(change.id, row.to)
        });
    }

    /// Publish events of rows of which the status alone changed.
    pub fn became(&self, ids: impl IntoIterator<Item = RowId>, status: Status) {
        for id in ids {
            self.publish(RowEvent::now(id, status));
        }
    }

    /// Publish the events of receipts: of each row what was not known before.
    pub fn received(&self, received: &[Received]) {
        for row in received {
            for (news, at) in [(RowNews::Delivered, row.delivered_at), (RowNews::Read, row.read_at)] {
                if let Some(at) = at {
                    self.publish(RowEvent::at(row.id, news, at));
                }
            }
        }
    }

    /// Publish the event of a row that ended without a call, and answer its waiter.
    pub fn ended(&self, outcome: Outcome, waiter: Option<&str>) {
        self.publish(RowEvent {
            status_code: outcome.status_code,
            graph_id: Some(outcome.message_id.clone()).filter(|id| !id.is_empty()),
            ..RowEvent::now(outcome.cdls_id, outcome.status)
        });
        self.answer_waiter(waiter, outcome);
    }

    /// Whether answers and events of this moment reach the broker.
    pub fn can_publish(&self) -> bool {
        self.broker.state() == BrokerState::Up
    }

    /// Answer the waiter. Only requests receive UNKNOWN: a producer receives the outcome when the row is
    /// settled.
    fn answer_waiter(&self, waiter: Option<&str>, outcome: Outcome) {
        match waiter.and_then(Waiter::read) {
            Some(Waiter::Request { address, ticket }) => {
                self.broker.reply(&address, Reply { ticket, outcome })
            }
            Some(Waiter::Producer(reply_to)) if outcome.status.is_final() => {
                self.broker.answer(&reply_to, Envelope::of(&outcome).to_json());
            }
            Some(Waiter::Producer(_)) | None => {}
        }
    }

    fn publish(&self, event: RowEvent) {
        let Some(row_events) = &self.row_events else { return };
        if self.scope == EventScope::Outcomes && !event.news.is_outcome() {
            return;
        }
        if row_events.try_send(event).is_err() {
            tracing::debug!("event dropped: the message log has the same data");
        }
    }
}

fn outcome(change: &Change, row: &RowChange, status_code: i32) -> Outcome {
    Outcome {
        status: row.to,
        status_code,
        message_id: row.graph_id.clone().unwrap_or_default(),
        error_code: row.error_code,
        error_subcode: row.error_subcode,
        error_kind: row.error_kind.and_then(|kind| kind.parse().ok()),
        error_message: row.error_message.clone(),
        ..Outcome::queued(change.id)
    }
}

/// Return why the row waits, if its line cannot send before a person acts. An answer that is not Graph's
/// stops the line for a moment only.
fn held_up(change: &Change) -> Option<String> {
    let (error, whose) = match &change.kind {
        ChangeKind::Suspected { error, .. } => (error, "the message or its line"),
        ChangeKind::WaitForLine { error, .. } if error.http_status.is_none() || error.code.is_some() => {
            (error, "the line")
        }
        _ => return None,
    };
    let reason = error.code.map_or_else(|| error.message.clone(), |code| format!("Graph's code {code}"));
    Some(format!(
        "Graph refuses {whose} ({reason}): the message waits until the line sends again, or expires."
    ))
}
