//! Fetches work, rows and line records for the dispatcher, many requests in one query.
//!
//! One query of a kind is under way at a time; requests of the meantime go into the next. A failed read is
//! reported or forgotten: scans find important rows again. Never here: writes.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::{LineId, RowId, WorkId};
use crate::store::{FlowRead, SharedStore, StoreError};

/// Requests answered by one round of queries.
const MAX_ROUND: usize = 512;
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// A request of the dispatcher.
pub enum Request {
    Work(LineId, WorkId),
    Flow(FlowRead),
    Line(LineId),
    StillHeld(Vec<RowId>),
}

/// Serve requests until the dispatcher is gone or `stop`.
pub async fn run(
    store: SharedStore,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut received = Vec::new();
    loop {
        let count = tokio::select! {
            count = requests.recv_many(&mut received, MAX_ROUND) => count,
            () = stop.cancelled() => return,
        };
        if count == 0 {
            return;
        }
        let mut round = Round::default();
        for request in received.drain(..) {
            round.add(request);
        }
        let answered = tokio::select! {
            answered = round.answer(&store, &events) => answered,
            () = stop.cancelled() => return,
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "cannot read rows: retrying");
            tokio::time::sleep(AFTER_FAILURE).await;
            // Requests of the meantime would only pile up while the log is away.
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
    work: Vec<(LineId, WorkId)>,
    flows: Vec<FlowRead>,
    lines: HashSet<LineId>,
    held: Vec<RowId>,
}

impl Round {
    fn add(&mut self, request: Request) {
        match request {
            Request::Work(line, work) => self.work.push((line, work)),
            Request::Flow(read) => self.flows.push(read),
            Request::Line(line) => drop(self.lines.insert(line)),
            Request::StillHeld(ids) => self.held.extend(ids),
        }
    }

    /// Answer requests whose senders would wait for ever.
    fn fail(self, events: &mpsc::UnboundedSender<Event>) {
        // The dispatcher is gone only when the process ends.
        let tell = |event| drop(events.send(event));
        if !self.work.is_empty() {
            tell(Event::WorkUnread(self.work));
        }
        if !self.flows.is_empty() {
            tell(Event::FlowsUnread(self.flows.into_iter().map(|read| read.flow).collect()));
        }
        if !self.held.is_empty() {
            tell(Event::StillHeld { asked: self.held.clone(), held: self.held });
        }
    }

    /// Answer each kind even if others fail; return the last failure.
    async fn answer(
        mut self,
        store: &SharedStore,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Result<(), StoreError> {
        // The dispatcher is gone only when the process ends.
        let tell = |event| drop(events.send(event));
        let mut result = Ok(());
        if !self.lines.is_empty() {
            let asked: Vec<LineId> = self.lines.drain().collect();
            match store.lines(&asked).await {
                Ok(records) => tell(Event::Lines { asked, records, pause_written: false }),
                Err(error) => result = Err(error),
            }
        }
        if !self.work.is_empty() {
            let numbers: Vec<WorkId> = self.work.iter().map(|(_, work)| *work).collect();
            match store.read_work(&numbers).await {
                Ok(read) => {
                    tell(Event::WorkRead { asked: std::mem::take(&mut self.work), read });
                }
                Err(error) => result = Err(error),
            }
        }
        if !self.flows.is_empty() {
            match store.read_flows(&self.flows).await {
                Ok(pages) => {
                    tell(Event::Flows(std::mem::take(&mut self.flows).into_iter().zip(pages).collect()));
                }
                Err(error) => result = Err(error),
            }
        }
        if !self.held.is_empty() {
            match store.still_held(&self.held).await {
                Ok(held) => tell(Event::StillHeld { asked: std::mem::take(&mut self.held), held }),
                Err(error) => result = Err(error),
            }
        }
        // The dispatcher repeats the request later, as if no row had changed.
        self.fail(events);
        result
    }
}
