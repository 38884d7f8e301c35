//! A model of a row's life beside the real SQL of both stores: random histories of claims, results of every kind (late
//! and repeated ones too), lost leases, dead workers, due and expired rows.
//!
//! After each step the log must say what the model says. What holds besides: only a claim raises `fence`; final rows
//! never change; deliveries − 1 ≤ `ambiguous_attempts`; every row that is not final is found by a scan. A failing
//! history is shrunk and printed with its seed; `MODEL_SEED` runs it again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use meta_dispatch::message::{
    AccountId, Class, ErrorDetail, ErrorKind, Lane, LineId, MessageId, MessageKind, Partition, Status,
    Submission,
};
use meta_dispatch::store::{Change, Claim, Flow, FlowRead, LogFilter, SharedStore};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rstest::rstest;
use time::OffsetDateTime;

use crate::support::store::{Backend, Fixture};

const WORKERS: [&str; 2] = ["a", "b"];
const LINE: LineId = LineId(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A step of a history. Numbers choose among what there is, modulo its count.
#[derive(Debug, Clone)]
enum Step {
    Log {
        expired: bool,
        scheduled: bool,
    },
    /// The worker becomes the owner of all partitions; its lease may have run out again at once.
    Own {
        worker: usize,
        lapsed: bool,
    },
    /// `stale`: with the fence before the row's. `overdue`: the claim's deadline has passed at once.
    Claim {
        row: usize,
        worker: usize,
        stale: bool,
        overdue: bool,
    },
    /// The call of a claim is made, and Graph takes the message or not.
    Call {
        claim: usize,
        taken: bool,
    },
    /// The holder of a claim writes how its call ended; again, too, and after others settled the row.
    Result {
        claim: usize,
        result: Told,
    },
    /// A result and a claim in one transaction.
    Both {
        claim: usize,
        result: Told,
        row: usize,
        worker: usize,
    },
    /// The owner of the partition settles claims whose deadline has passed.
    Settle {
        how: Settled,
    },
    Promote,
    Expire,
    /// A row found waiting too long, or one that its line can never send.
    EndOne {
        row: usize,
        expired: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Sent,
    Refused,
    Counted { due: bool },
    Uncounted { due: bool },
    ServerFailed { due: bool },
    Unknown,
    Exhausted,
    WaitForLine { ambiguous: bool },
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Unknown,
    Retry,
    Poison,
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        4 => Just(Told::Sent),
        1 => Just(Told::Refused),
        1 => any::<bool>().prop_map(|due| Told::Counted { due }),
        1 => any::<bool>().prop_map(|due| Told::Uncounted { due }),
        2 => any::<bool>().prop_map(|due| Told::ServerFailed { due }),
        2 => Just(Told::Unknown),
        1 => Just(Told::Exhausted),
        1 => any::<bool>().prop_map(|ambiguous| Told::WaitForLine { ambiguous }),
        1 => Just(Told::Release),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let settled =
        prop_oneof![1 => Just(Settled::Unknown), 3 => Just(Settled::Retry), 1 => Just(Settled::Poison)];
    prop_oneof![
        2 => (prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(expired, scheduled)| Step::Log { expired, scheduled }),
        2 => (0..2usize, prop::bool::weighted(0.3)).prop_map(|(worker, lapsed)| Step::Own { worker, lapsed }),
        6 => (any::<usize>(), 0..2usize, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(row, worker, stale, overdue)| Step::Claim { row, worker, stale, overdue }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(claim, taken)| Step::Call { claim, taken }),
        6 => (any::<usize>(), told()).prop_map(|(claim, result)| Step::Result { claim, result }),
        2 => (any::<usize>(), told(), any::<usize>(), 0..2usize)
            .prop_map(|(claim, result, row, worker)| Step::Both { claim, result, row, worker }),
        2 => settled.prop_map(|how| Step::Settle { how }),
        3 => Just(Step::Promote),
        1 => Just(Step::Expire),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(row, expired)| Step::EndOne { row, expired }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Now,
    Due,
    Later,
}

/// A row as it must be.
#[derive(Debug, Clone)]
struct Row {
    id: MessageId,
    dest: String,
    status: Status,
    fence: i32,
    attempts: i32,
    tries: i32,
    ambiguous: i32,
    crashes: i32,
    kind: Option<ErrorKind>,
    next: Next,
    expired: bool,
    /// Of its claim.
    overdue: bool,
    /// Times Graph took it.
    deliveries: i32,
}

/// A claim that was made: a worker holds it, whatever became of the row.
#[derive(Debug, Clone)]
struct Held {
    row: usize,
    fence: i32,
    /// Whether Graph took the message; nothing while the call has not begun.
    call: Option<bool>,
    /// Settled by others: a worker frozen till then refuses to call.
    lost: bool,
}

struct World {
    store: SharedStore,
    rows: Vec<Row>,
    claims: Vec<Held>,
    owner: Option<usize>,
}

impl World {
    async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Log { expired, scheduled } => self.log(*expired, *scheduled).await,
            Step::Own { worker, lapsed } => self.own(*worker, *lapsed).await,
            Step::Claim { row, worker, stale, overdue } => {
                let Some(row) = pick(&self.rows, *row) else { return Ok(()) };
                let claim = self.claim(row, *stale, *overdue);
                self.record(*worker, vec![], vec![(row, claim)]).await?;
            }
            Step::Call { claim, taken } => self.call(*claim, *taken),
            Step::Result { claim, result } => {
                if let Some(change) = self.result(*claim, *result) {
                    self.record(0, vec![change], vec![]).await?;
                }
            }
            Step::Both { claim, result, row, worker } => {
                let (Some(change), Some(row)) = (self.result(*claim, *result), pick(&self.rows, *row)) else {
                    return Ok(());
                };
                // The recorder never has a row twice in a transaction.
                if change.0 != row {
                    let claim = self.claim(row, false, false);
                    self.record(*worker, vec![change], vec![(row, claim)]).await?;
                }
            }
            Step::Settle { how } => self.settle(*how).await?,
            Step::Promote => self.promote().await?,
            Step::Expire => self.expire().await?,
            Step::EndOne { row, expired } => {
                let Some(row) = pick(&self.rows, *row) else { return Ok(()) };
                let Row { id, fence, .. } = self.rows[row];
                let change = match expired {
                    true => Change::Expire { id, fence },
                    false => Change::Unsendable { id, fence },
                };
                self.record(0, vec![(row, change)], vec![]).await?;
            }
        }
        self.agrees().await
    }

    async fn log(&mut self, expired: bool, scheduled: bool) {
        let dest = format!("r{}", self.rows.len());
        let submission = Submission {
            account: AccountId(1),
            line: LINE,
            class: Class::Messenger,
            dest: dest.clone(),
            kind: MessageKind::Text,
            mdata: "hello".into(),
            mcaption: None,
            msg_id: None,
            cp_id: None,
            lane: Lane::High,
            send_at: scheduled.then(|| OffsetDateTime::now_utc() + HOUR),
            valid_for: if expired { Duration::ZERO } else { HOUR },
            waiter: None,
        };
        let id = self.store.insert(&[submission]).await.expect("rows can be logged")[0];
        self.rows.push(Row {
            id,
            dest,
            status: Status::Pending,
            fence: 0,
            attempts: 0,
            tries: 0,
            ambiguous: 0,
            crashes: 0,
            kind: None,
            next: if scheduled { Next::Later } else { Next::Now },
            expired: expired && !scheduled,
            overdue: false,
            deliveries: 0,
        });
    }

    async fn own(&mut self, worker: usize, lapsed: bool) {
        let all: Vec<Partition> = (0..64).map(Partition).collect();
        for worker in WORKERS {
            self.store.release_leases(worker, &all).await.expect("leases are kept");
        }
        let ttl = if lapsed { Duration::ZERO } else { HOUR };
        self.store.renew_leases(WORKERS[worker], HOUR).await.expect("leases are kept");
        let taken = self.store.acquire_leases(WORKERS[worker], ttl, 64).await.expect("leases are kept");
        assert_eq!(taken.len(), 64);
        self.owner = (!lapsed).then_some(worker);
    }

    fn claim(&self, row: usize, stale: bool, overdue: bool) -> Claim {
        let Row { id, fence, .. } = self.rows[row];
        let call_deadline = if overdue { Duration::ZERO } else { HOUR };
        Claim { id, fence: fence - i32::from(stale), call_deadline }
    }

    fn call(&mut self, claim: usize, taken: bool) {
        let Some(claim) = pick(&self.claims, claim) else { return };
        let held = &mut self.claims[claim];
        if held.call.is_none() && !held.lost {
            held.call = Some(taken);
            self.rows[held.row].deliveries += i32::from(taken);
        }
    }

    /// What the holder of a claim writes, if its call can have ended so.
    fn result(&mut self, claim: usize, told: Told) -> Option<(usize, Change)> {
        let claim = pick(&self.claims, claim)?;
        let held = &mut self.claims[claim];
        let possible = match told {
            Told::Sent => held.call == Some(true),
            Told::Refused
            | Told::Counted { .. }
            | Told::Uncounted { .. }
            | Told::Exhausted
            | Told::WaitForLine { ambiguous: false } => held.call == Some(false),
            Told::ServerFailed { .. } | Told::WaitForLine { ambiguous: true } | Told::Unknown => {
                held.call.is_some()
            }
            Told::Release => held.call.is_none(),
        };
        // What was given back is not called any more.
        held.lost |= possible && told == Told::Release;
        let (id, fence) = (self.rows[held.row].id, held.fence);
        let error = ErrorDetail { message: "as the model says".into(), ..ErrorDetail::default() };
        let after = |due: bool| if due { Duration::ZERO } else { HOUR };
        let retry = |due, counted, ambiguous| {
            let error = error.clone();
            Change::Retry { id, fence, after: after(due), error, counted, ambiguous }
        };
        let failed = |kind| Change::Failed { id, fence, kind, error: error.clone(), ambiguous: false };
        let change = match told {
            Told::Sent => Change::Sent { id, fence, http_status: 200, message_id: format!("m_{id}") },
            Told::Refused => failed(ErrorKind::Refused),
            Told::Exhausted => failed(ErrorKind::Exhausted),
            Told::Counted { due } => retry(due, true, false),
            Told::Uncounted { due } => retry(due, false, false),
            Told::ServerFailed { due } => retry(due, true, true),
            Told::Unknown => Change::Unknown { id, fence, error },
            Told::WaitForLine { ambiguous } => Change::WaitForLine { id, fence, error, ambiguous },
            Told::Release => Change::Release { id, fence },
        };
        possible.then_some((held.row, change))
    }

    async fn settle(&mut self, how: Settled) -> Result<(), TestCaseError> {
        let claimed = self.store.claimed_rows(&[LINE.partition()], HOUR * 2).await.expect("scans work");
        let overdue: HashMap<MessageId, i32> =
            claimed.iter().filter(|row| row.overdue).map(|row| (row.id, row.crashes)).collect();
        for index in 0..self.rows.len() {
            let row = &self.rows[index];
            let found = overdue.get(&row.id);
            let expected = (row.status == Status::Sending && row.overdue).then_some(&row.crashes);
            prop_assert_eq!(found, expected, "claims to settle: {:?}", row);
            if found.is_none() {
                continue;
            }
            let (id, fence) = (row.id, row.fence);
            let error = ErrorDetail::default();
            let then = match how {
                Settled::Unknown => Change::Unknown { id, fence, error },
                Settled::Retry => {
                    Change::Retry { id, fence, after: Duration::ZERO, error, counted: true, ambiguous: true }
                }
                Settled::Poison => {
                    Change::Failed { id, fence, kind: ErrorKind::Poison, error, ambiguous: true }
                }
            };
            for held in self.claims.iter_mut().filter(|held| held.row == index && held.fence == fence) {
                held.lost = true;
            }
            self.record(0, vec![(index, Change::Crashed { then: Box::new(then) })], vec![]).await?;
        }
        Ok(())
    }

    /// Records, and checks that exactly what may take place does.
    async fn record(
        &mut self,
        worker: usize,
        changes: Vec<(usize, Change)>,
        claims: Vec<(usize, Claim)>,
    ) -> Result<(), TestCaseError> {
        let expected: Vec<bool> = changes.iter().map(|(row, change)| self.change(*row, change)).collect();
        let claimed: Vec<bool> =
            claims.iter().map(|(row, claim)| self.claimed(*row, worker, claim)).collect();
        let changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
        let claims: Vec<Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        let recorded =
            self.store.record(WORKERS[worker], &changes, &claims).await.expect("it can be recorded");
        prop_assert_eq!(recorded.changed, expected, "{:?}", changes);
        prop_assert_eq!(recorded.claimed, claimed, "{:?}", claims);
        Ok(())
    }

    /// The model's own account of a change; whether it takes place.
    fn change(&mut self, row: usize, change: &Change) -> bool {
        let row = &mut self.rows[row];
        let waits = matches!(row.status, Status::Pending | Status::Retry);
        let claimed = row.status == Status::Sending;
        let (change, crashed) = match change {
            Change::Crashed { then } => (then.as_ref(), 1),
            change => (change, 0),
        };
        let (fence, allowed) = match change {
            Change::Sent { fence, .. } => (fence, claimed || waits || row.status == Status::Unknown),
            Change::Expire { fence, .. } => (fence, waits),
            // The line is its account's, whatever the owner believed.
            Change::Unsendable { fence, .. } => (fence, false),
            Change::Failed { fence, .. }
            | Change::Retry { fence, .. }
            | Change::Unknown { fence, .. }
            | Change::WaitForLine { fence, .. }
            | Change::Release { fence, .. } => (fence, claimed),
            Change::Crashed { .. } => unreachable!("a crash of a crash"),
        };
        if *fence != row.fence || !allowed {
            return false;
        }
        row.next = Next::Now;
        row.crashes += crashed;
        row.status = match change {
            Change::Sent { .. } => Status::Ok,
            Change::Failed { kind, ambiguous, .. } => {
                row.kind = Some(*kind);
                row.ambiguous += i32::from(*ambiguous);
                Status::Error
            }
            Change::Retry { after, counted, ambiguous, .. } => {
                row.tries += i32::from(*counted);
                row.ambiguous += i32::from(*ambiguous);
                row.next = if after.is_zero() { Next::Due } else { Next::Later };
                Status::Retry
            }
            Change::Unknown { .. } => {
                row.ambiguous += 1;
                Status::Unknown
            }
            Change::WaitForLine { ambiguous, .. } => {
                row.ambiguous += i32::from(*ambiguous);
                Status::Pending
            }
            Change::Release { .. } => {
                row.attempts -= 1;
                Status::Pending
            }
            Change::Expire { .. } => {
                row.kind = Some(ErrorKind::Expired);
                Status::Error
            }
            Change::Unsendable { .. } => unreachable!("it is never allowed"),
            Change::Crashed { .. } => unreachable!("a crash of a crash"),
        };
        true
    }

    fn claimed(&mut self, index: usize, worker: usize, claim: &Claim) -> bool {
        let row = &mut self.rows[index];
        let ready = matches!(row.status, Status::Pending | Status::Retry) && row.next == Next::Now;
        let made = ready && !row.expired && claim.fence == row.fence && self.owner == Some(worker);
        if made {
            row.status = Status::Sending;
            row.fence += 1;
            row.attempts += 1;
            row.overdue = claim.call_deadline.is_zero();
            self.claims.push(Held { row: index, fence: row.fence, call: None, lost: false });
        }
        made
    }

    async fn promote(&mut self) -> Result<(), TestCaseError> {
        let promoted = self.store.promote_due(&[LINE.partition()], 1_000).await.expect("scans work");
        let promoted: HashSet<MessageId> = promoted.into_iter().map(|(_, _, id)| id).collect();
        for row in &mut self.rows {
            let due = row.status == Status::Retry && row.next == Next::Due;
            prop_assert_eq!(promoted.contains(&row.id), due, "promoted: {:?}", row);
            if due {
                row.status = Status::Pending;
                row.next = Next::Now;
            }
        }
        Ok(())
    }

    async fn expire(&mut self) -> Result<(), TestCaseError> {
        let flows = self.store.waiting_flows(&[LINE.partition()]).await.expect("scans work");
        let from: Vec<(Flow, MessageId)> = flows.into_iter().map(|flow| (flow, MessageId(0))).collect();
        let walked = self.store.walk_waiting(&from, 1_000).await.expect("scans work");
        let expired: Vec<MessageId> = walked.into_iter().flat_map(|walked| walked.expired).collect();
        let ended = self.store.expire(&expired).await.expect("rows can be ended");
        let ended: HashSet<MessageId> = ended.into_iter().map(|(id, _)| id).collect();
        for row in &mut self.rows {
            let ready = matches!(row.status, Status::Pending | Status::Retry) && row.next == Next::Now;
            prop_assert_eq!(ended.contains(&row.id), ready && row.expired, "expired: {:?}", row);
            if ready && row.expired {
                row.status = Status::Error;
                row.kind = Some(ErrorKind::Expired);
            }
        }
        Ok(())
    }

    /// The log says what the model says, the promise holds, and scans find what is not final.
    async fn agrees(&self) -> Result<(), TestCaseError> {
        let partition = [LINE.partition()];
        let flow = self.store.ready_flows(&partition).await.expect("scans work");
        let reads: Vec<FlowRead> = flow
            .into_iter()
            .map(|(flow, lowest)| FlowRead { flow, after: MessageId(lowest.0 - 1), limit: 10_000 })
            .collect();
        let ready = self.store.read_flows(&reads).await.expect("scans work");
        let ready: HashMap<MessageId, (i32, i32)> =
            ready.into_iter().map(|row| (row.id, (row.fence, row.tries))).collect();
        let claimed = self.store.claimed_rows(&partition, HOUR * 2).await.expect("scans work");
        let claimed: HashMap<MessageId, (i32, i32)> =
            claimed.into_iter().map(|row| (row.id, (row.fence, row.tries))).collect();
        let held = self.store.held_recipients(&partition, HOUR * 2).await.expect("scans work");
        let held: HashSet<MessageId> = held.into_iter().map(|held| held.by).collect();
        let Some(first) = self.rows.first().map(|row| MessageId(row.id.0 - 1)) else { return Ok(()) };
        let log = self.store.log_after(&LogFilter::default(), first, 1_000).await.expect("the log answers");
        for row in &self.rows {
            let logged = log.iter().find(|logged| logged.cdls_id == row.id).expect("no row is ever lost");
            let seen = (logged.status, logged.attempts, logged.ambiguous_attempts, logged.error_kind);
            prop_assert_eq!(seen, (row.status, row.attempts, row.ambiguous, row.kind), "{:?}", row);
            prop_assert_eq!(logged.next_at.is_some(), row.next != Next::Now, "{:?}", row);
            prop_assert_eq!(&logged.dest, &row.dest);
            prop_assert_eq!(logged.message_id.is_some(), row.status == Status::Ok);
            prop_assert!(row.deliveries - 1 <= row.ambiguous, "sent twice without account: {:?}", row);
            let place = (row.fence, row.tries);
            match (row.status, row.next) {
                (Status::Pending | Status::Retry, Next::Now) => {
                    prop_assert_eq!(ready.get(&row.id), Some(&place))
                }
                (Status::Sending, _) => prop_assert_eq!(claimed.get(&row.id), Some(&place)),
                (Status::Retry, _) => prop_assert!(held.contains(&row.id), "{:?}", row),
                // Scheduled; or an outcome, which no scan may touch.
                _ => {
                    prop_assert!(!ready.contains_key(&row.id) && !claimed.contains_key(&row.id), "{:?}", row)
                }
            }
        }
        Ok(())
    }

    /// Whatever happened before, a healthy owner brings every row to an outcome, but for those whose time has not come.
    async fn comes_to_an_end(&mut self) -> Result<(), TestCaseError> {
        self.own(0, false).await;
        self.settle(Settled::Retry).await?;
        self.promote().await?;
        self.expire().await?;
        for row in 0..self.rows.len() {
            let claim = self.claim(row, false, false);
            let claims = self.claims.len();
            self.record(0, vec![], vec![(row, claim)]).await?;
            if self.claims.len() > claims {
                self.call(claims, true);
                let sent = self.result(claims, Told::Sent).expect("its call was made");
                self.record(0, vec![sent], vec![]).await?;
            }
        }
        self.agrees().await?;
        for row in &self.rows {
            let waits = row.next == Next::Later || row.status == Status::Sending && !row.overdue;
            prop_assert!(row.status.is_outcome() || waits, "nobody looks after {:?}", row);
        }
        Ok(())
    }
}

/// The place of one of these, if there are any.
fn pick<T>(among: &[T], number: usize) -> Option<usize> {
    number.checked_rem(among.len())
}

#[expect(clippy::disallowed_methods, reason = "a failing history is run again by its seed")]
fn seed() -> u64 {
    std::env::var("MODEL_SEED").ok().map_or_else(rand::random, |seed| seed.parse().expect("a number"))
}

#[rstest]
#[case::postgres(Backend::Postgres, 24)]
#[case::sqlite(Backend::Sqlite, 48)]
#[tokio::test(flavor = "multi_thread")]
async fn random_histories_agree_with_the_model(#[case] backend: Backend, #[case] histories: u32) {
    let fixture = Fixture::create(backend).await;
    let (store, seed) = (fixture.store.clone(), seed());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases: histories, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        runner.run(&prop::collection::vec(step(), 1..60), |history| {
            runtime.block_on(async {
                let mut world =
                    World { store: store.clone(), rows: Vec::new(), claims: Vec::new(), owner: None };
                world.own(0, false).await;
                world.log(false, false).await;
                for step in &history {
                    world.step(step).await?;
                }
                world.comes_to_an_end().await
            })
        })
    });
    if let Err(failure) = run.await.expect("the model does not panic") {
        panic!("MODEL_SEED={seed}: {failure}");
    }
}
