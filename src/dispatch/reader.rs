//! Fetches rows and line records for the dispatcher, many wishes in one query.
//!
//! One query of a kind is under way at a time; what is asked meanwhile goes into the next. A failed read is
//! reported or forgotten: scans find again what matters. Writes nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Event;
use crate::message::{LineId, MessageId};
use crate::store::{Flow, FlowRead, RangeRead, ReadyRow, SharedStore, StoreError};

/// Wishes answered by one round of queries.
const ROUND: usize = 512;
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What the dispatcher wants to know.
pub enum Request {
    Range(RangeRead),
    Flow(FlowRead),
    Line(LineId),
    StillHeld(Vec<MessageId>),
}

/// Serves requests until the dispatcher is gone or `stop`.
pub async fn run(
    store: SharedStore,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut received = Vec::new();
    loop {
        let count = tokio::select! {
            count = requests.recv_many(&mut received, ROUND) => count,
            () = stop.cancelled() => return,
        };
        if count == 0 {
            return;
        }
        let mut round = Round::default();
        for request in received.drain(..) {
            round.add(request);
        }
        if let Err(error) = round.answer(&store, &events).await {
            tracing::warn!(%error, "rows cannot be read; trying again");
            tokio::time::sleep(AFTER_FAILURE).await;
            // What was asked meanwhile would only pile up while the log is away.
            let mut round = Round::default();
            while let Ok(request) = requests.try_recv() {
                round.add(request);
            }
            round.fail(&events);
        }
    }
}

/// The requests of one round, by kind.
#[derive(Default)]
struct Round {
    ranges: Vec<RangeRead>,
    flows: Vec<FlowRead>,
    lines: HashSet<LineId>,
    held: Vec<MessageId>,
}

impl Round {
    fn add(&mut self, request: Request) {
        match request {
            Request::Range(read) => self.ranges.push(read),
            Request::Flow(read) => self.flows.push(read),
            Request::Line(line) => drop(self.lines.insert(line)),
            Request::StillHeld(ids) => self.held.extend(ids),
        }
    }

    /// Answers those who would wait for ever for an answer.
    fn fail(self, events: &mpsc::UnboundedSender<Event>) {
        // The dispatcher is gone only when the process ends.
        let tell = |event| drop(events.send(event));
        if !self.flows.is_empty() {
            tell(Event::FlowsFailed(self.flows.into_iter().map(|read| read.flow).collect()));
        }
        if !self.held.is_empty() {
            tell(Event::StillHeld { asked: self.held.clone(), held: self.held });
        }
    }

    /// Answers each kind whatever becomes of the others; the last failure is returned.
    async fn answer(
        self,
        store: &SharedStore,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<(), StoreError> {
        // The dispatcher is gone only when the process ends.
        let tell = |event| drop(events.send(event));
        let mut result = Ok(());
        if !self.lines.is_empty() {
            let asked: Vec<LineId> = self.lines.into_iter().collect();
            match store.lines(&asked).await {
                Ok(records) => tell(Event::Lines { asked, records, pause_written: false }),
                Err(error) => result = Err(error),
            }
        }
        let mut are_ranges_read = true;
        if !self.ranges.is_empty() {
            match store.read_ranges(&self.ranges).await {
                Ok(rows) => tell(Event::Rows(rows)),
                Err(error) => {
                    are_ranges_read = false;
                    result = Err(error);
                }
            }
        }
        if !self.flows.is_empty() {
            match store.read_flows(&self.flows).await {
                Ok(rows) => tell(Event::Flows(by_flow(self.flows, rows))),
                Err(error) => {
                    tell(Event::FlowsFailed(self.flows.into_iter().map(|read| read.flow).collect()));
                    result = Err(error);
                }
            }
        }
        if !self.held.is_empty() {
            let asked = match are_ranges_read {
                true => store.still_held(&self.held).await,
                // A recipient is let go only when its row was read and is not ready.
                false => Ok(self.held.clone()),
            };
            // What cannot be asked is asked again later, as if nothing had changed.
            let held = asked.unwrap_or_else(|error| {
                result = Err(error);
                self.held.clone()
            });
            tell(Event::StillHeld { asked: self.held, held });
        }
        result
    }
}

/// Deals the rows out to the reads that asked for them.
fn by_flow(reads: Vec<FlowRead>, rows: Vec<ReadyRow>) -> Vec<(FlowRead, Vec<ReadyRow>)> {
    let mut rows_of: HashMap<Flow, Vec<ReadyRow>> = HashMap::new();
    for row in rows {
        rows_of.entry(row.flow()).or_default().push(row);
    }
    reads
        .into_iter()
        .map(|read| {
            let rows = rows_of.remove(&read.flow).unwrap_or_default();
            (read, rows)
        })
        .collect()
}
