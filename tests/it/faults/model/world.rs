//! The model itself: rows, claims and leases as they must be, beside the store that has to agree.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{
    AccountId, ErrorDetail, ErrorKind, Lane, LineId, RowId, Status, Submission, WorkId,
};
use meta_dispatch::store::{Change, ChangeKind, Claim, Inserted, NewMessage, Record, SharedStore, WorkHead};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use time::OffsetDateTime;

use super::history::{Settled, Step, Told};
use super::row::{Held, Open, Place, Row};
use crate::support::store::HOUR;

const WORKERS: [&str; 2] = ["a", "b"];
pub(super) const LINE: LineId = LineId(1);

pub(super) struct World {
    pub(super) store: SharedStore,
    pub(super) campaign: String,
    pub(super) rows: Vec<Row>,
    pub(super) claims: Vec<Held>,
    pub(super) claim_no: i64,
    /// Work, and those of its rows that have neither ended nor moved.
    pub(super) work: HashMap<WorkId, HashSet<usize>>,
    pub(super) owner: Option<usize>,
}

impl World {
    pub(super) fn new(store: SharedStore) -> World {
        World {
            store,
            campaign: format!("c{}", uuid::Uuid::now_v7().simple()),
            rows: Vec::new(),
            claims: Vec::new(),
            // Histories share a database, and a number stands for one batch of claims.
            claim_no: OffsetDateTime::now_utc().unix_timestamp_nanos() as i64 / 1_000,
            work: HashMap::new(),
            owner: None,
        }
    }

    pub(super) async fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Log { expired, scheduled } => self.log(*expired, *scheduled).await,
            Step::Own { worker, lapsed } => self.own(*worker, *lapsed).await,
            Step::Claim { row, worker, stale, overdue } => {
                if let Some((row, claim)) = self.claim(*row, *worker, *stale, *overdue) {
                    self.record(*worker, vec![], vec![(row, claim)], false).await?;
                }
            }
            Step::Call { claim, taken } => self.call(*claim, *taken),
            Step::Result { claim, result } => {
                if let Some(change) = self.result(*claim, *result) {
                    self.record(0, vec![change], vec![], false).await?;
                }
            }
            Step::Both { claim, result, row, worker, again } => {
                let made = self.claim(*row, *worker, false, false);
                let (Some(change), Some((row, claim))) = (self.result(*claim, *result), made) else {
                    return Ok(());
                };
                // The recorder never has a row twice in a transaction.
                if change.0 != row {
                    self.record(*worker, vec![change], vec![(row, claim)], *again).await?;
                }
            }
            Step::Settle { how } => self.settle(*how).await?,
            Step::Promote => self.promote().await?,
            Step::Expire => self.expire().await?,
            Step::CleanUp => {
                self.store.forget_claims().await.expect("claims can be forgotten");
                self.store.fold_counts(Duration::ZERO, 1_000).await.expect("counters can be folded");
            }
            Step::EndOne { row, expired } => {
                let Some(row) = pick(&self.rows, *row) else { return Ok(()) };
                let Row { id, fence, open, .. } = self.rows[row];
                if open.is_none() {
                    let kind = if *expired { ChangeKind::Expire } else { ChangeKind::Unsendable };
                    self.record(0, vec![(row, Change::waiting(id, fence, kind))], vec![], false).await?;
                }
            }
        }
        self.agrees().await
    }

    pub(super) async fn log(&mut self, expired: bool, scheduled: bool) {
        let index = self.rows.len();
        let in_campaign = index % 2 == 1;
        let submission = Submission {
            account: AccountId(1),
            line: LINE,
            class: Class::MESSENGER,
            dest: format!("r{index}"),
            kind: MessageKind::Text,
            mdata: "hello".into(),
            mcaption: None,
            msg_id: None,
            cp_id: in_campaign.then(|| self.campaign.clone()),
            lane: Lane::High,
            send_at: scheduled.then(|| OffsetDateTime::now_utc() + HOUR),
            valid_for: if expired { Duration::ZERO } else { HOUR },
            waiter: None,
        };
        let dest = submission.dest.clone();
        let accepted = self.store.accept(&[NewMessage::from(submission)]).await.expect("rows can be logged");
        let [Inserted::New(id)] = accepted.inserted[..] else { panic!("{accepted:?}") };
        assert_eq!(accepted.work.len(), usize::from(!scheduled));
        self.work.extend(accepted.work.iter().map(|work| (work.id, HashSet::from([index]))));
        self.rows.push(Row {
            id,
            dest,
            in_campaign,
            status: Status::Pending,
            fence: 0,
            attempts: 0,
            tries: 0,
            ambiguous: 0,
            crashes: 0,
            kind: None,
            next_at: scheduled,
            expired: expired && !scheduled,
            place: if scheduled { Place::Later } else { Place::Work },
            open: None,
            deliveries: 0,
        });
    }

    /// The other worker's lease has run out, and is taken over.
    pub(super) async fn own(&mut self, worker: usize, lapsed: bool) {
        let renew = async |worker: usize, ttl| {
            self.store.renew_leases(WORKERS[worker], ttl, false).await.expect("leases are kept")
        };
        renew(1 - worker, Duration::ZERO).await;
        renew(worker, HOUR).await;
        self.store.acquire_leases(WORKERS[worker], HOUR, 64).await.expect("leases are kept");
        assert_eq!(renew(worker, HOUR).await.held.len(), 64);
        if lapsed {
            renew(worker, Duration::ZERO).await;
        }
        self.owner = (!lapsed).then_some(worker);
    }

    /// A claim of a row, unless only an undisciplined owner would make it.
    pub(super) fn claim(
        &self,
        row: usize,
        worker: usize,
        stale: bool,
        overdue: bool,
    ) -> Option<(usize, Claim)> {
        let index = pick(&self.rows, row)?;
        let row = &self.rows[index];
        let undisciplined = self.owner == Some(worker) && !stale && row.waits() && !row.is_ready();
        let call_deadline = if overdue { Duration::ZERO } else { HOUR };
        let claim = Claim {
            id: row.id,
            line: LINE,
            fence: row.fence - i32::from(stale),
            digest: None,
            in_campaign: false,
            call_deadline,
        };
        (!undisciplined).then_some((index, claim))
    }

    pub(super) fn call(&mut self, claim: usize, taken: bool) {
        let Some(claim) = pick(&self.claims, claim) else { return };
        let held = &mut self.claims[claim];
        if held.call.is_none() && !held.lost {
            held.call = Some(taken);
            self.rows[held.row].deliveries += i32::from(taken);
        }
    }

    /// The change that the holder of a claim writes, if its call can have ended so.
    pub(super) fn result(&mut self, claim: usize, told: Told) -> Option<(usize, Change)> {
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
        // A row that was given back is not called any more.
        held.lost |= possible && told == Told::Release;
        let (id, fence) = (self.rows[held.row].id, held.fence);
        let error = ErrorDetail { message: "as the model says".into(), ..ErrorDetail::default() };
        let after = |due: bool| if due { Duration::ZERO } else { HOUR };
        let retry = |due, counted, ambiguous| {
            let error = error.clone();
            ChangeKind::Retry { after: after(due), error, counted, ambiguous }
        };
        let failed = |kind| ChangeKind::Failed { kind, error: error.clone(), ambiguous: false };
        let kind = match told {
            Told::Sent => ChangeKind::Sent { http_status: 200, graph_id: format!("m_{id}") },
            Told::Refused => failed(ErrorKind::Refused),
            Told::Exhausted => failed(ErrorKind::Exhausted),
            Told::Counted { due } => retry(due, true, false),
            Told::Uncounted { due } => retry(due, false, false),
            Told::ServerFailed { due } => retry(due, true, true),
            Told::Unknown => ChangeKind::Unknown { error },
            Told::WaitForLine { ambiguous } => ChangeKind::WaitForLine { error, ambiguous },
            Told::Release => ChangeKind::Release,
        };
        possible.then(|| (held.row, Change::waiting(id, fence, kind)))
    }

    pub(super) async fn settle(&mut self, how: Settled) -> Result<(), TestCaseError> {
        let open = self.store.open_claims(&[LINE.partition()]).await.expect("scans work");
        let overdue: HashMap<RowId, (i32, i32)> =
            open.iter().filter(|row| row.overdue).map(|row| (row.id, (row.fence, row.crashes))).collect();
        for index in 0..self.rows.len() {
            let row = &self.rows[index];
            let expected = row.open.filter(|open| open.overdue).map(|open| (open.fence, row.crashes));
            prop_assert_eq!(overdue.get(&row.id).copied(), expected, "claims to settle: {:?}", row);
            let Some((fence, _)) = expected else { continue };
            let id = row.id;
            let error = ErrorDetail::default();
            let kind = match how {
                Settled::Unknown => ChangeKind::Unknown { error },
                Settled::Retry => {
                    ChangeKind::Retry { after: Duration::ZERO, error, counted: true, ambiguous: true }
                }
                Settled::Poison => ChangeKind::Failed { kind: ErrorKind::Poison, error, ambiguous: true },
            };
            for held in self.claims.iter_mut().filter(|held| held.row == index && held.fence == fence) {
                held.lost = true;
            }
            let change = Change { crashed: true, ..Change::waiting(id, fence, kind) };
            self.record(0, vec![(index, change)], vec![], false).await?;
        }
        Ok(())
    }

    /// Records, and checks that exactly what may take place does.
    pub(super) async fn record(
        &mut self,
        worker: usize,
        changes: Vec<(usize, Change)>,
        claims: Vec<(usize, Claim)>,
        again: bool,
    ) -> Result<(), TestCaseError> {
        let ended_claims = self.ended_claims(worker);
        self.claim_no += 1;
        let changed: Vec<bool> = changes.iter().map(|(row, change)| self.change(*row, change)).collect();
        let claimed: Vec<bool> =
            claims.iter().map(|(row, claim)| self.claimed(*row, worker, claim)).collect();
        let ended_work: Vec<WorkId> =
            self.work.iter().filter(|(_, rows)| rows.is_empty()).map(|(work, _)| *work).collect();
        self.work.retain(|_, rows| !rows.is_empty());
        let changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
        let claims: Vec<Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        let record = Record {
            worker: WORKERS[worker],
            changes: &changes,
            claims: &claims,
            claim_no: self.claim_no,
            ended_work: &ended_work,
            ended_claims: &ended_claims,
            repeated: false,
        };
        let recorded = self.store.record(record).await.expect("it can be recorded");
        prop_assert_eq!(recorded.changed, changed, "{:?}", changes);
        prop_assert_eq!(&recorded.claimed, &claimed, "{:?}", claims);
        if again {
            let repeated = self.store.record(record).await.expect("it can be recorded again");
            prop_assert!(!repeated.changed.contains(&true), "again: {:?}", changes);
            prop_assert_eq!(repeated.claimed, claimed, "again: {:?}", claims);
        }
        Ok(())
    }

    /// The worker's claims whose calls have ended.
    pub(super) fn ended_claims(&self, worker: usize) -> Vec<i64> {
        let ended = |held: &&Held| {
            let row = &self.rows[held.row];
            held.worker == worker && (row.fence >= held.fence || !row.waits())
        };
        self.claims.iter().filter(ended).map(|held| held.claim_no).collect()
    }

    fn change(&mut self, index: usize, change: &Change) -> bool {
        let applies = self.rows[index].apply(change);
        if applies && !change.stays_in_work() {
            self.work.values_mut().for_each(|rows| {
                rows.remove(&index);
            });
        }
        applies
    }

    pub(super) fn claimed(&mut self, index: usize, worker: usize, claim: &Claim) -> bool {
        let row = &mut self.rows[index];
        let made = row.waits() && !row.expired && claim.fence == row.fence && self.owner == Some(worker);
        if made {
            let fence = row.fence + 1;
            row.open = Some(Open { fence, overdue: claim.call_deadline.is_zero() });
            let claim_no = self.claim_no;
            self.claims.push(Held { row: index, worker, claim_no, fence, call: None, lost: false });
        }
        made
    }

    pub(super) async fn promote(&mut self) -> Result<(), TestCaseError> {
        let promoted = self.store.promote_due(&[LINE.partition()], None, 1_000).await.expect("scans work");
        let numbers: Vec<WorkId> = promoted.work.iter().map(|head: &WorkHead| head.position.work).collect();
        let read = self.store.read_work(&numbers).await.expect("work can be read");
        let mut ready: HashMap<RowId, WorkId> = HashMap::new();
        for row in read.into_iter().flat_map(|work| work.rows) {
            prop_assert!(ready.insert(row.id, row.work).is_none(), "made ready twice: {:?}", row);
        }
        for (index, row) in self.rows.iter_mut().enumerate() {
            let due = row.status == Status::Retry && row.open.is_none() && row.place == Place::Due;
            prop_assert_eq!(ready.contains_key(&row.id), due, "promoted: {:?}", row);
            if due {
                row.place = Place::Work;
                self.work.entry(ready[&row.id]).or_default().insert(index);
            }
        }
        Ok(())
    }

    pub(super) async fn expire(&mut self) -> Result<(), TestCaseError> {
        let found = self.store.expired_rows(&[LINE.partition()], 1_000).await.expect("scans work");
        let found: HashMap<RowId, i32> = found.into_iter().map(|row| (row.id, row.fence)).collect();
        for index in 0..self.rows.len() {
            let row = &self.rows[index];
            let expected = (row.is_ready() && row.expired).then_some(row.fence);
            prop_assert_eq!(found.get(&row.id).copied(), expected, "expired: {:?}", row);
            if let Some(fence) = expected {
                let change = Change::waiting(row.id, fence, ChangeKind::Expire);
                self.record(0, vec![(index, change)], vec![], false).await?;
            }
        }
        Ok(())
    }
}

/// The place of one of these, if there are any.
fn pick<T>(among: &[T], number: usize) -> Option<usize> {
    number.checked_rem(among.len())
}
