//! The event loop: one task that holds the line actors, deals out permits, and carries out the actions of
//! lines.
//!
//! Each event changes the state of lines; then every line concerned is pumped once. Never here: I/O and
//! locks. Other tasks read, write and call.

mod calls;
#[cfg(test)]
mod fixture;
mod held;
mod learn;
mod outage;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::line::{Line, LineActions, PermitBudget};
use super::memory::RowMemory;
use super::options::DispatchOptions;
use super::send::{CallInFlight, Finished, SendContext, call_deadline};
use super::tasks::lease::SendUntil;
use super::tasks::reader::Request;
use super::tasks::recorder::{Entry, WriteProgress};
use super::tasks::upkeep::PauseOrder;
use crate::broker::JobDelivery;
use crate::domain::{BreakerState, Lane, LineId, Partition, RowId, WorkId};
use crate::policy::breaker::Breaker;
use crate::store::{Change, Claim, ReadyRow, digest};

/// The shortest time ahead of its call that a row is claimed; slow commits lengthen it.
const SHORTEST_HORIZON: Duration = Duration::from_millis(15);
const LONGEST_HORIZON: Duration = Duration::from_secs(1);
/// The pause between readings of line records: changes by SQL take effect within ten seconds.
const REFRESH_EVERY: Duration = Duration::from_secs(3);
/// The time after which the log is asked about a held recipient that is due.
const HELD_SLACK: Duration = Duration::from_secs(2);
/// Rows that a line may end at once without sending them; only one while this many entries wait for the log,
/// so that claims and results do not wait behind a campaign that has expired.
const ENDED_AT_ONCE: usize = 64;
const MANY_ENTRIES: usize = 1_000;
/// Events handled before lines are pumped.
const EVENTS_AT_ONCE: usize = 256;

/// The dispatcher's ends of its channels.
pub struct Channels {
    pub inbox: mpsc::UnboundedReceiver<Event>,
    pub jobs: mpsc::Receiver<JobDelivery>,
    pub entries: mpsc::UnboundedSender<Entry>,
    pub requests: mpsc::UnboundedSender<Request>,
    pub orders: mpsc::UnboundedSender<PauseOrder>,
    /// Requests a full look at the queue.
    pub look: Arc<Notify>,
    /// Requests a look at the rows that are due next.
    pub due: Arc<Notify>,
}

pub struct Dispatcher {
    worker: String,
    options: DispatchOptions,
    memory: RowMemory,
    send_context: Arc<SendContext>,
    channels: Channels,
    progress: WriteProgress,
    send_until: SendUntil,
    breaker: Breaker,
    breaker_state: watch::Sender<BreakerState>,
    owned: BTreeSet<Partition>,
    /// Owned partitions without a complete scan that began after this time: work announced in them waits, or
    /// it would go before older rows.
    unscanned: BTreeMap<Partition, Instant>,
    lines: HashMap<LineId, Line>,
    /// Lines to be pumped before the next wait.
    dirty: HashSet<LineId>,
    /// Lines that wait for permits; the first to come is served first.
    hungry: VecDeque<LineId>,
    is_hungry: HashSet<LineId>,
    wakes: BTreeSet<(Instant, LineId)>,
    wake_of: HashMap<LineId, Instant>,
    /// Recipients whose held row is looked up when its time has passed.
    held: BTreeMap<(Instant, RowId), (LineId, Lane, String)>,
    /// Held recipients that the log is being asked about.
    asked_held: HashMap<RowId, (LineId, Lane, String)>,
    /// Rows given back, until that is written; with the fence that each has then.
    returning: HashMap<RowId, ReadyRow>,
    /// Lines with work to read again because claims of its rows were refused, and the time of the reading.
    refused: BTreeSet<(Instant, LineId)>,
    calls: JoinSet<Finished>,
    /// Calls in flight, to record those that outlast the grace.
    in_flight: HashMap<RowId, CallInFlight>,
    /// Permits held for calls that have not begun.
    reserved: usize,
    /// Open claims of lines that were let go, with the fence that each gets: their rows are given back.
    abandoned: HashMap<RowId, VecDeque<(i32, Lane)>>,
    refresh_at: Instant,
}

impl Dispatcher {
    pub fn new(
        worker: String,
        send_context: SendContext,
        options: DispatchOptions,
        channels: Channels,
        progress: WriteProgress,
        send_until: SendUntil,
        breaker_state: watch::Sender<BreakerState>,
    ) -> Dispatcher {
        Dispatcher {
            worker,
            breaker: Breaker::default(),
            breaker_state,
            memory: RowMemory::of(options.memory),
            options,
            send_context: Arc::new(send_context),
            channels,
            progress,
            send_until,
            owned: BTreeSet::new(),
            unscanned: BTreeMap::new(),
            lines: HashMap::new(),
            dirty: HashSet::new(),
            hungry: VecDeque::new(),
            is_hungry: HashSet::new(),
            wakes: BTreeSet::new(),
            wake_of: HashMap::new(),
            held: BTreeMap::new(),
            asked_held: HashMap::new(),
            returning: HashMap::new(),
            refused: BTreeSet::new(),
            calls: JoinSet::new(),
            in_flight: HashMap::new(),
            reserved: 0,
            abandoned: HashMap::new(),
            refresh_at: Instant::now() + REFRESH_EVERY,
        }
    }

    /// Run until `shutdown`, then drain; `quiet` is answered when no further call can begin.
    pub async fn run(mut self, shutdown: CancellationToken, quiet: oneshot::Sender<()>) {
        let mut events = Vec::new();
        while !shutdown.is_cancelled() {
            let wake = self.next_wake();
            tokio::select! {
                _ = self.channels.inbox.recv_many(&mut events, EVENTS_AT_ONCE) => {
                    for event in events.drain(..) {
                        self.handle(event);
                    }
                }
                Some(delivery) = self.channels.jobs.recv() => self.take_jobs(delivery),
                Some(finished) = self.calls.join_next() => self.finish_calls(finished),
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => {}
            }
            self.tick();
            self.pump();
        }
        self.drain(quiet).await;
    }

    fn pump(&mut self) {
        let now = Instant::now();
        if !self.send_until.allows_any(now) || self.progress.is_stalled() {
            return;
        }
        if matches!(self.breaker.state(), BreakerState::Stalled | BreakerState::HalfOpen) {
            self.pump_texts(now);
        }
        self.pump_fresh(now);
        // Lines that wait for permits go first, the longest waiting before the others.
        for _ in 0..self.hungry.len().min(self.free_permits()) {
            self.pump_hungriest(now, true);
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, true);
        }
    }

    /// Pump the texts of all lines before any media, while calls are tried one by one.
    fn pump_texts(&mut self, now: Instant) {
        for _ in 0..self.hungry.len() {
            if self.free_permits() == 0 {
                return;
            }
            self.pump_hungriest(now, false);
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, false);
        }
    }

    /// Pump the line that has waited longest, of the lines that may call although the breaker holds the
    /// others back.
    fn pump_fresh(&mut self, now: Instant) {
        if !self.breaker.lets_fresh_out() {
            return;
        }
        let first = self.hungry.iter().position(|id| self.breaker.lets_out(*id));
        if let Some(id) = first.and_then(|first| self.hungry.remove(first)) {
            self.is_hungry.remove(&id);
            self.dirty.remove(&id);
            self.pump_line(id, now, true);
        }
    }

    /// Pump the line that has waited longest for permits.
    fn pump_hungriest(&mut self, now: Instant, media: bool) {
        if let Some(id) = self.hungry.pop_front() {
            self.is_hungry.remove(&id);
            self.dirty.remove(&id);
            self.pump_line(id, now, media);
        }
    }

    fn pump_line(&mut self, id: LineId, now: Instant, media: bool) {
        let horizon = (self.progress.latency() * 2).clamp(SHORTEST_HORIZON, LONGEST_HORIZON);
        let (spare, free) = (self.spare_permits(), self.free_permits());
        let is_let_out = self.breaker.lets_out(id);
        let budget = PermitBudget {
            spare,
            room: if is_let_out { spare.min(1) } else { free },
            media,
            ends: if self.progress.waiting() < MANY_ENTRIES { ENDED_AT_ONCE } else { 1 },
        };
        if !self.send_until.allows(id.partition(), now) {
            return;
        }
        let Some(line) = self.lines.get_mut(&id) else { return };
        let mut actions = LineActions::default();
        self.reserved -= line.reserved();
        if self.breaker.withholds(id) {
            line.abandon(&mut actions);
        }
        line.pump(now, horizon, budget, &mut actions);
        self.reserved += line.reserved();
        if is_let_out && !actions.claims.is_empty() {
            self.breaker.let_out(id, now.into_std());
        }
        if actions.wants_permits && self.is_hungry.insert(id) {
            self.hungry.push_back(id);
        }
        self.set_wake(id, actions.wake);
        for row in std::mem::take(&mut actions.claims) {
            let call_deadline = call_deadline(self.send_context.graph.total_timeout(row.kind));
            let digest = Some(digest(row.account, id, &row.dest, &row.mdata));
            let in_campaign = row.cp_id.is_some();
            let claim = Claim { id: row.id, line: id, fence: row.fence, digest, in_campaign, call_deadline };
            self.entry(Entry::Claim { line: id, lane: row.lane, claim });
        }
        for read in std::mem::take(&mut actions.reads) {
            self.request(Request::Flow(read));
        }
        for call in std::mem::take(&mut actions.calls) {
            self.begin(call);
        }
        self.carry_out(actions);
    }

    /// Record the changes that lines ask for, and remember the rows that come back.
    fn carry_out(&mut self, actions: LineActions) {
        let lanes: HashMap<RowId, Lane> = actions.returned.iter().map(|row| (row.id, row.lane)).collect();
        for (change, waiter) in actions.changes {
            let lane = lanes.get(&change.id).copied().unwrap_or(Lane::Bulk);
            self.entry(Entry::Change { change, lane, waiter });
        }
        for row in actions.returned {
            self.returning.insert(row.id, row);
        }
    }

    fn work_ended(&self, work: impl IntoIterator<Item = WorkId>) {
        work.into_iter().for_each(|work| self.entry(Entry::WorkEnded(work)));
    }

    /// Return the number of free permits.
    fn spare_permits(&self) -> usize {
        self.options.concurrency.saturating_sub(self.reserved + self.in_flight.len())
    }

    /// Return the number of free permits that the breaker lets out.
    fn free_permits(&self) -> usize {
        self.spare_permits().min(self.breaker.room(self.reserved))
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.wakes.first().copied()
            && at <= now
        {
            self.wakes.remove(&(at, id));
            self.wake_of.remove(&id);
            self.dirty.insert(id);
        }
        self.ask_held(now);
        self.ask_refused(now);
        self.tick_breaker(now);
        if now >= self.refresh_at {
            self.refresh_at = now + REFRESH_EVERY;
            self.lines.retain(|_, line| !line.is_idle(now));
            for (id, line) in &mut self.lines {
                line.queue.forget();
                let _ = self.channels.requests.send(Request::Line(*id));
                self.dirty.insert(*id);
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let line = self.wakes.first().map(|(at, _)| *at);
        let held = self.held.first_key_value().map(|((at, _), _)| *at);
        let breaker = self.breaker.wakes_at().map(Instant::from_std);
        let refused = self.refused.first().map(|(at, _)| *at);
        [line, held, breaker, refused].into_iter().flatten().fold(self.refresh_at, Instant::min)
    }

    fn set_wake(&mut self, id: LineId, at: Option<Instant>) {
        self.forget_wake(id);
        if let Some(at) = at {
            self.wakes.insert((at, id));
            self.wake_of.insert(id, at);
        }
    }

    fn forget_wake(&mut self, id: LineId) {
        if let Some(at) = self.wake_of.remove(&id) {
            self.wakes.remove(&(at, id));
        }
    }

    fn owns(&self, line: LineId) -> bool {
        self.owned.contains(&line.partition())
    }

    fn line(&mut self, id: LineId) -> Option<&mut Line> {
        let line = self.lines.get_mut(&id)?;
        self.dirty.insert(id);
        Some(line)
    }

    fn line_or_new(&mut self, id: LineId) -> &mut Line {
        self.dirty.insert(id);
        if !self.lines.contains_key(&id) {
            self.request(Request::Line(id));
        }
        self.lines.entry(id).or_insert_with(|| Line::new(id, self.memory.clone()))
    }

    fn change(&self, change: Change, lane: Lane, waiter: Option<String>) {
        self.entry(Entry::Change { change, lane, waiter });
    }

    fn entry(&self, entry: Entry) {
        // The recorder outlives the dispatcher; it is gone only after a panic, which ends the process.
        let _ = self.channels.entries.send(entry);
    }

    fn request(&self, request: Request) {
        // As above, for the reader.
        let _ = self.channels.requests.send(request);
    }
}
