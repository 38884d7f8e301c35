//! Fetches work, rows and line records for the dispatcher, many requests in one query.
//!
//! One query of a kind is under way at a time; requests of the meantime go into the next. A failed read is
//! reported or forgotten: scans find important rows again. Rows get the facts of their recipients here, if a setting
//! asks for them: the last reading before the claim. Never here: writes.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dispatch::event::Event;
use crate::domain::{LineId, RowId, WorkId};
use crate::store::{Contact, FlowPage, FlowRead, LineRecipient, ReadyRow, SharedStore, StoreError, WorkRead};

/// Requests answered by one round of queries.
const MAX_ROUND: usize = 512;
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// A request of the dispatcher.
pub enum Request {
    Work(LineId, WorkId),
    Flow(FlowRead),
    /// Work whose messages a job carried, read but for the facts of its recipients.
    Carried(LineId, WorkRead),
    Line(LineId),
    StillHeld(Vec<RowId>),
}

/// The facts of recipients that end messages: `dispatch.window_check` and `dispatch.suppress_unreachable`.
#[derive(Debug, Clone, Copy)]
pub struct RecipientChecks {
    pub window: bool,
    pub unreachable: bool,
}

impl RecipientChecks {
    pub fn are_any(self) -> bool {
        self.window || self.unreachable
    }

    /// Give the rows the facts that count.
    async fn check(self, store: &SharedStore, rows: Vec<&mut ReadyRow>) -> Result<(), StoreError> {
        if !self.are_any() || rows.is_empty() {
            return Ok(());
        }
        let recipient = |row: &&mut ReadyRow| LineRecipient { line: row.line, dest: row.dest.clone() };
        let recipients: Vec<LineRecipient> = rows.iter().map(recipient).collect();
        let contacts = store.contacts(&recipients).await?;
        for (row, contact) in rows.into_iter().zip(contacts) {
            row.contact = Contact {
                closes: contact.closes.filter(|_| self.window),
                is_unreachable: contact.is_unreachable && self.unreachable,
            };
        }
        Ok(())
    }
}

/// Serve requests until the dispatcher is gone or `stop`.
pub async fn run(
    store: SharedStore,
    checks: RecipientChecks,
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
            answered = round.answer(&store, checks, &events) => answered,
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
    carried: Vec<(LineId, WorkRead)>,
    lines: HashSet<LineId>,
    held: Vec<RowId>,
}

impl Round {
    fn add(&mut self, request: Request) {
        match request {
            Request::Work(line, work) => self.work.push((line, work)),
            Request::Flow(read) => self.flows.push(read),
            Request::Carried(line, read) => self.carried.push((line, read)),
            Request::Line(line) => drop(self.lines.insert(line)),
            Request::StillHeld(ids) => self.held.extend(ids),
        }
    }

    /// Answer requests whose senders would wait for ever.
    fn fail(self, events: &mpsc::UnboundedSender<Event>) {
        // The dispatcher is gone only when the process ends.
        let tell = |event| drop(events.send(event));
        let carried = self.carried.into_iter().map(|(line, read)| (line, read.position.work));
        let unread: Vec<(LineId, WorkId)> = self.work.into_iter().chain(carried).collect();
        if !unread.is_empty() {
            tell(Event::WorkUnread(unread));
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
        checks: RecipientChecks,
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
        if !self.carried.is_empty() {
            let rows = self.carried.iter_mut().flat_map(|(_, read)| &mut read.rows).collect();
            match checks.check(store, rows).await {
                Ok(()) => {
                    let carried = std::mem::take(&mut self.carried);
                    let asked = carried.iter().map(|(line, read)| (*line, read.position.work)).collect();
                    let read = carried.into_iter().map(|(_, read)| read).collect();
                    tell(Event::WorkRead { asked, read });
                }
                Err(error) => result = Err(error),
            }
        }
        // Carried work is older: while it cannot be checked, no other goes before it.
        if !self.work.is_empty() && self.carried.is_empty() {
            let numbers: Vec<WorkId> = self.work.iter().map(|(_, work)| *work).collect();
            match read_work(store, checks, &numbers).await {
                Ok(read) => {
                    tell(Event::WorkRead { asked: std::mem::take(&mut self.work), read });
                }
                Err(error) => result = Err(error),
            }
        }
        if !self.flows.is_empty() {
            match read_flows(store, checks, &self.flows).await {
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

async fn read_work(
    store: &SharedStore,
    checks: RecipientChecks,
    numbers: &[WorkId],
) -> Result<Vec<WorkRead>, StoreError> {
    let mut read = store.read_work(numbers).await?;
    checks.check(store, read.iter_mut().flat_map(|work| &mut work.rows).collect()).await?;
    Ok(read)
}

async fn read_flows(
    store: &SharedStore,
    checks: RecipientChecks,
    flows: &[FlowRead],
) -> Result<Vec<FlowPage>, StoreError> {
    let mut pages = store.read_flows(flows).await?;
    let work = pages.iter_mut().flat_map(|page| &mut page.work);
    checks.check(store, work.flat_map(|work| &mut work.rows).collect()).await?;
    Ok(pages)
}
