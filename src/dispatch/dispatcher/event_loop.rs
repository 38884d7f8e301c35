//! The loop over events, and the state that they change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held_rows::HeldRows;
use crate::broker::JobDelivery;
use crate::dispatch::event::Event;
use crate::dispatch::line::Line;
use crate::dispatch::memory::RowMemory;
use crate::dispatch::options::DispatchOptions;
use crate::dispatch::send::{CallInFlight, Finished, SendContext};
use crate::dispatch::tasks::lease::SendUntil;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recorder::{Entry, WriteProgress};
use crate::dispatch::tasks::upkeep::PauseOrder;
use crate::domain::{BreakerState, Lane, LineId, Partition, RowId, WorkId};
use crate::metrics::METRICS;
use crate::policy::breaker::Breaker;
use crate::store::{Change, ReadyRow};

/// The pause between readings of line records: changes by SQL take effect within ten seconds.
const REFRESH_EVERY: Duration = Duration::from_secs(3);

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

/// The lines of this process, its calls, and the rows that wait for an answer of the log.
pub struct Dispatcher {
    pub(super) worker: String,
    pub(super) options: DispatchOptions,
    memory: RowMemory,
    pub(super) send_context: Arc<SendContext>,
    pub(super) channels: Channels,
    pub(super) progress: WriteProgress,
    pub(super) send_until: SendUntil,
    pub(super) breaker: Breaker,
    pub(super) breaker_state: watch::Sender<BreakerState>,
    pub(super) owned: BTreeSet<Partition>,
    /// Owned partitions without a complete scan that began after this time: work announced in them waits, or
    /// it would go before older rows.
    pub(super) unscanned: BTreeMap<Partition, Instant>,
    pub(super) lines: HashMap<LineId, Line>,
    /// Lines to be pumped before the next wait.
    pub(super) dirty: HashSet<LineId>,
    /// Lines that wait for permits; the first to come is served first.
    pub(super) hungry: VecDeque<LineId>,
    pub(super) is_hungry: HashSet<LineId>,
    wakes: BTreeSet<(Instant, LineId)>,
    wake_of: HashMap<LineId, Instant>,
    /// Rows that hold their recipients back, and are looked up in the log.
    pub(super) held: HeldRows,
    /// Rows given back, until that is written; with the fence that each has then.
    pub(super) returning: HashMap<RowId, ReadyRow>,
    /// Lines with work to read again because claims of its rows were refused, and the time of the reading.
    pub(super) refused: BTreeSet<(Instant, LineId)>,
    pub(super) calls: JoinSet<Finished>,
    /// Calls in flight, to record those that outlast the grace.
    pub(super) in_flight: HashMap<RowId, CallInFlight>,
    /// Permits held for calls that have not begun.
    pub(super) reserved: usize,
    /// Open claims of lines that were let go, with the fence that each gets: their rows are given back.
    pub(super) abandoned: HashMap<RowId, VecDeque<(i32, Lane)>>,
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
            held: HeldRows::default(),
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
            self.count_resting(now);
        }
    }

    /// Count the lines that rest, for the metric.
    pub(super) fn count_resting(&self, now: Instant) {
        let resting = self.lines.values().filter(|line| line.is_resting(now)).count();
        METRICS.dispatch.resting.set(resting as f64);
    }

    fn next_wake(&self) -> Instant {
        let line = self.wakes.first().map(|(at, _)| *at);
        let held = self.held.next_look();
        let breaker = self.breaker.wakes_at().map(Instant::from_std);
        let refused = self.refused.first().map(|(at, _)| *at);
        [line, held, breaker, refused].into_iter().flatten().fold(self.refresh_at, Instant::min)
    }

    pub(super) fn set_wake(&mut self, id: LineId, at: Option<Instant>) {
        self.forget_wake(id);
        if let Some(at) = at {
            self.wakes.insert((at, id));
            self.wake_of.insert(id, at);
        }
    }

    pub(super) fn forget_wake(&mut self, id: LineId) {
        if let Some(at) = self.wake_of.remove(&id) {
            self.wakes.remove(&(at, id));
        }
    }

    pub(super) fn owns(&self, line: LineId) -> bool {
        self.owned.contains(&line.partition())
    }

    pub(super) fn line(&mut self, id: LineId) -> Option<&mut Line> {
        let line = self.lines.get_mut(&id)?;
        self.dirty.insert(id);
        Some(line)
    }

    pub(super) fn line_or_new(&mut self, id: LineId) -> &mut Line {
        self.dirty.insert(id);
        if !self.lines.contains_key(&id) {
            self.request(Request::Line(id));
        }
        self.lines.entry(id).or_insert_with(|| Line::new(id, self.memory.clone()))
    }

    pub(super) fn work_ended(&self, work: impl IntoIterator<Item = WorkId>) {
        work.into_iter().for_each(|work| self.entry(Entry::WorkEnded(work)));
    }

    pub(super) fn change(&self, change: Change, lane: Lane, waiter: Option<String>) {
        self.entry(Entry::Change { change, lane, waiter });
    }

    pub(super) fn entry(&self, entry: Entry) {
        // The recorder outlives the dispatcher; it is gone only after a panic, which ends the process.
        let _ = self.channels.entries.send(entry);
    }

    pub(super) fn request(&self, request: Request) {
        // As above, for the reader.
        let _ = self.channels.requests.send(request);
    }
}
