//! The statements that hold after each step, and in the end.

use std::collections::{HashMap, HashSet};

use meta_dispatch::domain::{AccountId, RowId, Status};
use meta_dispatch::store::{FlowRead, LogFilter};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::history::{Settled, Told};
use super::row::Place;
use super::world::{LINE, World};
use crate::support::store::HOUR;

/// The rows that scans find.
struct Queue {
    ready: HashMap<RowId, (i32, i32)>,
    claimed: HashMap<RowId, (i32, i32)>,
    held: HashSet<RowId>,
}

impl World {
    /// The log says what the model says, the promise holds, and scans find what is not final.
    pub(super) async fn agrees(&self) -> Result<(), TestCaseError> {
        let Some(first) = self.rows.first().map(|row| RowId(row.id.0 - 1)) else { return Ok(()) };
        let queue = self.queue().await;
        let log = self.store.log_after(&LogFilter::default(), first, 1_000).await.expect("the log answers");
        for row in &self.rows {
            let logged = log.iter().find(|logged| logged.cdls_id == row.id).expect("no row is ever lost");
            let seen = (logged.status, logged.attempts, logged.ambiguous_attempts, logged.error_kind);
            let attempts = row.attempts + i32::from(row.open.is_some());
            prop_assert_eq!(seen, (row.shown(), attempts, row.ambiguous, row.kind), "{:?}", row);
            prop_assert!(row.open.is_some() || logged.next_at.is_some() == row.next_at, "{:?}", row);
            prop_assert_eq!(&logged.dest, &row.dest);
            prop_assert_eq!(logged.message_id.is_some(), row.status == Status::Ok);
            prop_assert!(row.deliveries - 1 <= row.ambiguous, "sent twice without account: {:?}", row);
            let ready = queue.ready.get(&row.id).copied();
            let claimed = queue.claimed.get(&row.id).copied();
            prop_assert_eq!(claimed, row.open.map(|open| (open.fence, row.tries)), "{:?}", row);
            if row.open.is_none() {
                let expected = row.is_ready().then_some((row.fence, row.tries));
                prop_assert_eq!(ready, expected, "{:?}", row);
            }
            let holds = row.open.is_some() || (row.status == Status::Retry && row.place != Place::Work);
            prop_assert_eq!(queue.held.contains(&row.id), holds, "{:?}", row);
        }
        self.counters_agree().await
    }

    /// The part of the queue that scans of the partition find.
    async fn queue(&self) -> Queue {
        let partition = [LINE.partition()];
        let flows = self.store.ready_flows(&partition, true).await.expect("scans work");
        let reads: Vec<FlowRead> =
            flows.into_iter().map(|(flow, _)| FlowRead { flow, after: None, limit: 10_000 }).collect();
        let pages = self.store.read_flows(&reads).await.expect("scans work");
        let rows = pages.into_iter().flat_map(|page| page.work).flat_map(|work| work.rows);
        let claimed = self.store.open_claims(&partition).await.expect("scans work");
        let held = self.store.held_recipients(&partition, HOUR * 2, 10_000).await.expect("scans work");
        Queue {
            ready: rows.map(|row| (row.id, (row.fence, row.tries))).collect(),
            claimed: claimed.into_iter().map(|row| (row.id, (row.fence, row.tries))).collect(),
            held: held.into_iter().map(|held| held.by).collect(),
        }
    }

    async fn counters_agree(&self) -> Result<(), TestCaseError> {
        let mut expected: HashMap<Status, i64> = HashMap::new();
        for row in self.rows.iter().filter(|row| row.in_campaign) {
            *expected.entry(row.shown()).or_default() += 1;
        }
        let counts = self.store.campaign_counts(AccountId(1), &self.campaign).await.expect("it answers");
        let counts: HashMap<Status, i64> =
            counts.into_iter().map(|count| (count.status, count.rows)).collect();
        prop_assert_eq!(counts, expected);
        Ok(())
    }

    /// Whatever happened before, a healthy owner brings every row to an outcome, but for those whose time has not come.
    pub(super) async fn comes_to_an_end(&mut self) -> Result<(), TestCaseError> {
        self.own(0, false).await;
        self.settle(Settled::Retry).await?;
        self.promote().await?;
        self.expire().await?;
        for row in 0..self.rows.len() {
            let Some((row, claim)) = self.claim(row, 0, false, false) else { continue };
            let claims = self.claims.len();
            self.record(0, vec![], vec![(row, claim)], false).await?;
            if self.claims.len() > claims {
                self.call(claims, true);
                let sent = self.result(claims, Told::Sent).expect("its call was made");
                self.record(0, vec![sent], vec![], false).await?;
            }
        }
        self.record(0, vec![], vec![], false).await?;
        self.agrees().await?;
        for row in &self.rows {
            let is_called = row.open.is_some_and(|open| !open.overdue);
            let waits = row.place == Place::Later || is_called;
            prop_assert!(row.status.is_outcome() || waits, "nobody looks after {:?}", row);
        }
        Ok(())
    }
}
