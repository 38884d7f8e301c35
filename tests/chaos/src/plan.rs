//! The schedule of faults: every step of a run, made from its seed alone, so that a seed replays it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::defects::Defect;

/// A fault of the system. Slots are numbers of processes; a victim that is down already passes the fault on
/// to the next one that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillIngest(usize),
    KillWorker(usize),
    KillBroker,
    KillPostgres,
    StopIngest(usize),
    StopWorker(usize),
    /// SIGTERM, and another this much later, which ends the process at once.
    StopIngestTwice(usize, Duration),
    StopWorkerTwice(usize, Duration),
    /// SIGSTOP, and SIGCONT after this long, which is past the lease.
    FreezeWorker(usize, Duration),
    PurgeQueues,
    DeleteQueues,
    /// The broker's node takes no messages for this long: a limit is set so that it alarms at once.
    Alarm(Alarm, Duration),
    /// `pg_terminate_backend` for every connection of the product.
    TerminateBackends,
    Cut(Link),
    Delay(Link, Duration, Duration),
    /// No bytes pass for this long; then the connections are lost, with the bytes on their way.
    Blackhole(Link, Duration),
    /// `basic.ack` is dropped in both directions: acknowledgements and confirms.
    DropAcks(Duration),
}

/// The connections that pass through a proxy of the harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Amqp,
    Postgres,
    Graph,
}

/// The resource that the broker's node runs out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    Memory,
    Disk,
}

impl Fault {
    /// Return the fault's name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillIngest(_) => "kill -9 ingest",
            Fault::KillWorker(_) => "kill -9 worker",
            Fault::KillBroker => "kill -9 broker node",
            Fault::KillPostgres => "kill -9 postmaster",
            Fault::StopIngest(_) => "SIGTERM ingest",
            Fault::StopWorker(_) => "SIGTERM worker",
            Fault::StopIngestTwice(..) => "SIGTERM twice ingest",
            Fault::StopWorkerTwice(..) => "SIGTERM twice worker",
            Fault::FreezeWorker(..) => "SIGSTOP worker past its lease",
            Fault::PurgeQueues => "work queues purged",
            Fault::DeleteQueues => "work queues deleted",
            Fault::Alarm(Alarm::Memory, _) => "broker memory alarm",
            Fault::Alarm(Alarm::Disk, _) => "broker disk alarm",
            Fault::TerminateBackends => "pg_terminate_backend",
            Fault::Cut(Link::Amqp) => "AMQP cut",
            Fault::Cut(Link::Postgres) => "PostgreSQL cut",
            Fault::Cut(Link::Graph) => "Graph cut",
            Fault::Delay(Link::Amqp, ..) => "AMQP delayed",
            Fault::Delay(Link::Postgres, ..) => "PostgreSQL delayed",
            Fault::Delay(Link::Graph, ..) => "Graph delayed",
            Fault::Blackhole(Link::Amqp, _) => "AMQP blackholed",
            Fault::Blackhole(Link::Postgres, _) => "PostgreSQL blackholed",
            Fault::Blackhole(Link::Graph, _) => "Graph blackholed",
            Fault::DropAcks(_) => "basic.ack dropped",
        }
    }

    pub fn is_kill(self) -> bool {
        matches!(self, Fault::KillIngest(_) | Fault::KillWorker(_) | Fault::KillBroker | Fault::KillPostgres)
    }
}

/// A fault, and the pause before it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub after: Duration,
    pub fault: Fault,
}

/// The steps at which the product can be made to die, for the role that reaches them.
const INGEST_FAILPOINTS: &[&str] = &["after_insert", "after_commit", "after_publish", "after_confirm"];
const WORKER_FAILPOINTS: &[&str] = &[
    "after_claim_commit",
    "before_call",
    "after_call",
    "before_result_commit",
    "after_result_commit",
    "before_job_ack",
    "in_drain",
    "in_scan",
    "in_promote",
];

/// The dealer of failpoints to processes that are started, in an order that the seed fixes.
pub struct Failpoints {
    rng: StdRng,
    share: f64,
}

impl Failpoints {
    /// Return a dealer that gives one to `share` of the started processes.
    pub fn new(seed: u64, share: f64) -> Failpoints {
        Failpoints { rng: StdRng::seed_from_u64(seed ^ 0xFA11), share }
    }

    /// Return `name:n` for the next process of this role, or `None`.
    pub fn next(&mut self, is_ingest: bool) -> Option<String> {
        let names = if is_ingest { INGEST_FAILPOINTS } else { WORKER_FAILPOINTS };
        let name = names.choose(&mut self.rng)?;
        let nth = match *name {
            "in_drain" => 1,
            "in_scan" | "in_promote" => self.rng.random_range(1..6),
            _ => self.rng.random_range(1..12),
        };
        self.rng.random_bool(self.share).then(|| format!("{name}:{nth}"))
    }
}

/// One kill in this many is the broker's: it takes longest to come back, and would be away most of the time.
const KILLS_A_BROKER: usize = 20;

/// Return the schedule of a tier: as many kills as asked for, and other faults between them, with pauses of
/// up to `longest`.
pub fn tier(seed: u64, kills: usize, longest: Duration) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let (mut killed, mut others) = (0, Vec::new());
    while killed < kills {
        let fault = match rng.random_bool(0.6) {
            true if killed % KILLS_A_BROKER == KILLS_A_BROKER / 2 => Fault::KillBroker,
            true => kill(&mut rng),
            false => other(&mut rng, &mut others),
        };
        killed += usize::from(fault.is_kill());
        steps.push(Step { after: milliseconds(&mut rng, 50, longest.as_millis() as u64), fault });
    }
    steps
}

/// Return the schedule that brings one defect to light, for about 15 seconds.
pub fn for_defect(seed: u64, defect: Defect) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (shortest, longest) = if defect == Defect::LeaseIgnored { (1_200, 1_800) } else { (300, 900) };
    let mut steps = Vec::new();
    let mut length = Duration::ZERO;
    while length < Duration::from_secs(15) {
        let after = milliseconds(&mut rng, shortest, longest);
        length += after;
        steps.push(Step { after, fault: defect.provoke(&mut rng) });
    }
    steps
}

fn kill(rng: &mut StdRng) -> Fault {
    match rng.random_range(0..100) {
        0..48 => Fault::KillWorker(rng.random_range(0..3)),
        48..80 => Fault::KillIngest(rng.random_range(0..2)),
        _ => Fault::KillPostgres,
    }
}

/// A maker of faults of one kind.
type Kind = fn(&mut StdRng) -> Fault;

/// The faults that kill no process from outside, the more frequent ones more than once. They come in rounds,
/// each shuffled, so that a short run also meets nearly all of them.
const OTHERS: [Kind; 21] = [
    stop_worker,
    stop_worker,
    |rng| Fault::StopIngest(rng.random_range(0..2)),
    |rng| Fault::StopWorkerTwice(rng.random_range(0..3), milliseconds(rng, 5, 300)),
    |rng| Fault::StopIngestTwice(rng.random_range(0..2), milliseconds(rng, 5, 300)),
    freeze,
    freeze,
    freeze,
    |_| Fault::PurgeQueues,
    |_| Fault::DeleteQueues,
    |rng| Fault::Alarm(Alarm::Memory, milliseconds(rng, 500, 4_000)),
    |rng| Fault::Alarm(Alarm::Disk, milliseconds(rng, 500, 4_000)),
    |_| Fault::TerminateBackends,
    |_| Fault::TerminateBackends,
    |rng| Fault::Cut(link(rng)),
    |rng| Fault::Cut(link(rng)),
    |rng| Fault::Delay(link(rng), milliseconds(rng, 20, 300), milliseconds(rng, 500, 2_000)),
    blackhole,
    blackhole,
    drop_acks,
    drop_acks,
];

fn other(rng: &mut StdRng, round: &mut Vec<Kind>) -> Fault {
    if round.is_empty() {
        round.extend(OTHERS);
        round.shuffle(rng);
    }
    round.pop().map_or(Fault::PurgeQueues, |kind| kind(rng))
}

fn stop_worker(rng: &mut StdRng) -> Fault {
    Fault::StopWorker(rng.random_range(0..3))
}

fn freeze(rng: &mut StdRng) -> Fault {
    Fault::FreezeWorker(rng.random_range(0..3), milliseconds(rng, 1_200, 3_000))
}

fn blackhole(rng: &mut StdRng) -> Fault {
    Fault::Blackhole(link(rng), milliseconds(rng, 300, 2_500))
}

fn drop_acks(rng: &mut StdRng) -> Fault {
    Fault::DropAcks(milliseconds(rng, 500, 4_000))
}

fn link(rng: &mut StdRng) -> Link {
    *[Link::Amqp, Link::Postgres, Link::Graph].choose(rng).unwrap_or(&Link::Amqp)
}

pub fn milliseconds(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}
