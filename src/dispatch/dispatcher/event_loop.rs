//! The loop over events, and the state that they change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budgets::Budgets;
use super::held_rows::HeldRows;
use super::hosts::HostBreakers;
use crate::broker::JobDelivery;
use crate::dispatch::event::Event;
use crate::dispatch::line::{Line, UploadOrder};
use crate::dispatch::memory::RowMemory;
use crate::dispatch::options::DispatchOptions;
use crate::dispatch::send::{CallInFlight, Finished, SendContext};
use crate::dispatch::tasks::budgets::BudgetOrder;
use crate::dispatch::tasks::lease::SendUntil;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recipients::RecipientOrder;
use crate::dispatch::tasks::recorder::{Entry, WriteProgress};
use crate::dispatch::tasks::upkeep::PauseOrder;
use crate::domain::{BreakerState, Lane, LineId, Partition, RowId, WorkId};
use crate::metrics::METRICS;
use crate::store::{Change, ReadyRow};

/// The pause between readings of line records: changes by SQL take effect within ten seconds.
const REFRESH_EVERY: Duration = Duration::from_secs(3);

/// The pause between counts of the persons who wrote to lines.
const COUNT_EVERY: Duration = Duration::from_secs(300);

/// Events handled before lines are pumped.
const EVENTS_AT_ONCE: usize = 256;

/// The dispatcher's ends of its channels.
pub struct Channels {
    pub inbox: mpsc::UnboundedReceiver<Event>,
    pub jobs: mpsc::Receiver<JobDelivery>,
    pub entries: mpsc::UnboundedSender<Entry>,
    pub requests: mpsc::UnboundedSender<Request>,
    pub orders: mpsc::UnboundedSender<PauseOrder>,
    /// Recipients that cannot be reached, and looks at closing windows.
    pub recipients: mpsc::UnboundedSender<RecipientOrder>,
    /// Meta's budgets to be shared with other workers.
    pub budgets: mpsc::UnboundedSender<BudgetOrder>,
    /// Questions about assets.
    pub uploads: mpsc::UnboundedSender<UploadOrder>,
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
    pub(super) breakers: HostBreakers,
    /// The state of the host that most lines call, for health checks and leases.
    pub(super) breaker_state: watch::Sender<BreakerState>,
    /// Meta's budgets of the lines and their apps.
    pub(super) budgets: Budgets,
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
    /// Rows that are being ended because of their recipients, until the log has answered.
    pub(super) withheld: HashMap<RowId, ReadyRow>,
    /// The line whose closing windows were looked at last.
    pub(super) looked_at: Option<LineId>,
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
    count_at: Instant,
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
            breakers: HostBreakers::default(),
            breaker_state,
            memory: RowMemory::of(options.memory),
            options,
            send_context: Arc::new(send_context),
            channels,
            progress,
            send_until,
            budgets: Budgets::default(),
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
            withheld: HashMap::new(),
            looked_at: None,
            refused: BTreeSet::new(),
            calls: JoinSet::new(),
            in_flight: HashMap::new(),
            reserved: 0,
            abandoned: HashMap::new(),
            refresh_at: Instant::now() + REFRESH_EVERY,
            count_at: Instant::now() + REFRESH_EVERY,
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
        let is_due = now >= self.refresh_at;
        self.share_budgets(is_due, now);
        if is_due {
            self.refresh_at = now + REFRESH_EVERY;
            self.lines.retain(|_, line| !line.is_idle(now));
            for (id, line) in &mut self.lines {
                line.queue.forget();
                let _ = self.channels.requests.send(Request::Line(*id));
                self.dirty.insert(*id);
            }
            self.count_resting(now);
            self.forget_assets(now);
            self.show_breaker();
            self.look_at_closing_windows(now);
            if now >= self.count_at {
                self.count_at = now + COUNT_EVERY;
                self.count_engaged();
            }
        }
    }

    /// Count the lines that rest, for the metric.
    pub(super) fn count_resting(&self, now: Instant) {
        let resting = self.lines.values().filter(|line| line.is_resting(now)).count();
        METRICS.dispatch.resting.set(resting as f64);
    }

    /// Forget assets that have not been used for a while, and count the messages that wait for one.
    fn forget_assets(&mut self, now: Instant) {
        if self.options.attachments.is_some() {
            let waiting: usize = self.lines.values_mut().map(|line| line.forget_assets(now)).sum();
            METRICS.attachments.waiting.set(waiting as f64);
        }
    }

    fn next_wake(&self) -> Instant {
        let line = self.wakes.first().map(|(at, _)| *at);
        let held = self.held.next_look();
        let breaker = self.breakers.wakes_at().map(Instant::from_std);
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
        self.lines
            .entry(id)
            .or_insert_with(|| Line::new(id, self.memory.clone()).with_assets(self.options.attachments))
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
