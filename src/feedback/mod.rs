//! What goes back out: outcomes to those who wait for them, and events to listeners.
//!
//! Told after the commit, at most once, and never waited for: the log has everything that is told here.

mod events;

use time::OffsetDateTime;
use tokio::sync::mpsc;

pub use events::EventPublisher;

use crate::broker::{BrokerState, SharedBroker};
use crate::message::{Envelope, ErrorKind, MessageId, Outcome, Reply, Status, Waiter};
use crate::settings::EventScope;
use crate::store::{Change, SharedStore};

/// Changes that wait to become events; more are dropped.
const EVENTS_HELD: usize = 20_000;

/// Tells waiters and listeners. Cheap to clone.
#[derive(Clone)]
pub struct Feedback {
    broker: SharedBroker,
    scope: EventScope,
    happened: Option<mpsc::Sender<Happened>>,
}

/// A committed change of a row, as far as its event does not come from the log.
#[derive(Debug)]
pub(crate) struct Happened {
    id: MessageId,
    status: Status,
    status_code: i32,
    message_id: Option<String>,
    error: HappenedError,
    at: OffsetDateTime,
}

/// What an event says about an error.
#[derive(Debug)]
enum HappenedError {
    /// What the row says.
    OfTheRow,
    Of {
        code: Option<i32>,
        subcode: Option<i32>,
        kind: Option<&'static str>,
    },
}

impl Feedback {
    /// The second part publishes events and is to be run, where there are any.
    pub fn new(
        broker: SharedBroker,
        store: SharedStore,
        scope: EventScope,
    ) -> (Feedback, Option<EventPublisher>) {
        if scope == EventScope::None {
            return (Feedback { broker, scope, happened: None }, None);
        }
        let (happened, waiting) = mpsc::channel(EVENTS_HELD);
        let publisher = EventPublisher::new(store, broker.clone(), waiting);
        (Feedback { broker, scope, happened: Some(happened) }, Some(publisher))
    }

    /// A change was committed, of a row with this waiter.
    pub fn changed(&self, change: &Change, waiter: Option<&str>) {
        let row = change.row();
        let kind = row.error_kind.and_then(|kind| kind.parse::<ErrorKind>().ok());
        let without_answer = kind.is_some_and(ErrorKind::is_without_answer);
        let status_code = if without_answer { 0 } else { row.status_code.unwrap_or(0) };
        if row.to.is_outcome() && waiter.is_some() {
            let message_id = row.message_id.clone().unwrap_or_default();
            let outcome = Outcome { cdls_id: change.id, status: row.to, status_code, message_id };
            self.tell(waiter, outcome);
        }
        let error = match row.writes_error {
            true => {
                HappenedError::Of { code: row.error_code, subcode: row.error_subcode, kind: row.error_kind }
            }
            false => HappenedError::OfTheRow,
        };
        self.happened(Happened {
            error,
            status_code,
            message_id: row.message_id,
            ..Happened::now(change.id, row.to)
        });
    }

    /// Rows turned into this status, and nothing else of them changed.
    pub fn became(&self, ids: impl IntoIterator<Item = MessageId>, status: Status) {
        for id in ids {
            self.happened(Happened::now(id, status));
        }
    }

    /// A row was ended by other means than a call, with this waiter.
    pub fn ended(&self, outcome: Outcome, waiter: Option<&str>) {
        self.happened(Happened {
            status_code: outcome.status_code,
            message_id: Some(outcome.message_id.clone()).filter(|id| !id.is_empty()),
            ..Happened::now(outcome.cdls_id, outcome.status)
        });
        self.tell(waiter, outcome);
    }

    /// Whether what is told at this moment goes out.
    pub fn is_heard(&self) -> bool {
        self.broker.state() == BrokerState::Up
    }

    /// UNKNOWN is told to requests only: a producer hears of it when it is settled.
    fn tell(&self, waiter: Option<&str>, outcome: Outcome) {
        match waiter.and_then(Waiter::read) {
            Some(Waiter::Request { address, ticket }) => {
                self.broker.reply(&address, Reply { ticket, outcome })
            }
            Some(Waiter::Producer(reply_to)) => {
                if let Some(envelope) = Envelope::of(&outcome) {
                    self.broker.answer(&reply_to, envelope.to_json());
                }
            }
            None => {}
        }
    }

    fn happened(&self, event: Happened) {
        let Some(happened) = &self.happened else { return };
        if self.scope == EventScope::Outcomes && !event.status.is_outcome() {
            return;
        }
        if happened.try_send(event).is_err() {
            tracing::debug!("an event was dropped; the log has what it told");
        }
    }
}

impl Happened {
    fn now(id: MessageId, status: Status) -> Happened {
        Happened {
            id,
            status,
            status_code: 0,
            message_id: None,
            error: HappenedError::OfTheRow,
            at: OffsetDateTime::now_utc(),
        }
    }
}
