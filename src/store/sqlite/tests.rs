//! The particulars of SQLite, observed from outside through the traits. The duties of every store are in
//! `tests/it/store`.

mod claims;
mod directory;
mod leases;
mod opening;
mod plans;
mod quiet;
mod views;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use time::OffsetDateTime;

use super::SqliteStore;
use crate::channel::{Class, Medium, MessageKind};
use crate::domain::{AccountId, ErrorDetail, Lane, LineId, Partition, RowId, Submission};
use crate::store::{
    Change, ChangeKind, Claim, DirectoryStore, DispatchStore, Flow, FlowRead, Inserted, IntakeStore,
    LeaseStore, LogRow, LogStore, NewMessage, Record, Recorded, Scope, StoreError,
};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const ACCOUNT: AccountId = AccountId(1);
pub const LINE: LineId = LineId(7);
pub const WORKER: &str = "worker-a";

/// A store in a folder of its own.
pub struct Fixture {
    pub store: SqliteStore,
    pub url: String,
    pub folder: TempDir,
    claims: AtomicI64,
}

impl Fixture {
    pub async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("log.db").display());
        let store = SqliteStore::open(&url).await.unwrap();
        Fixture { store, url, folder, claims: AtomicI64::new(0) }
    }

    /// Return a store whose worker holds every partition.
    pub async fn with_worker() -> Fixture {
        let fixture = Fixture::new().await;
        fixture.own_all(WORKER).await;
        fixture
    }

    pub async fn own_all(&self, worker: &str) {
        self.store.renew_leases(worker, HOUR, false).await.unwrap();
        self.store.acquire_leases(worker, HOUR, 64).await.unwrap();
    }

    pub async fn insert(&self, submission: Submission) -> RowId {
        insert(&self.store, &[submission]).await.unwrap()[0]
    }

    /// Run SQL as another program would.
    pub async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.store.writer).await.unwrap();
    }

    pub async fn row(&self, id: RowId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.unwrap().unwrap()
    }

    pub async fn record(&self, worker: &str, changes: &[Change], claims: &[Claim]) -> Recorded {
        let claim_no = self.claims.fetch_add(1, Ordering::Relaxed) + 1;
        let record =
            Record { worker, changes, claims, claim_no, ended_work: &[], ended_claims: &[], repeated: false };
        self.store.record(record).await.unwrap()
    }

    /// Record the end of a row's first claim; return whether it took place.
    pub async fn change(&self, id: RowId, kind: ChangeKind) -> bool {
        self.record(WORKER, &[Change::waiting(id, 1, kind)], &[]).await.changed[0]
    }

    pub async fn claim(&self, worker: &str, id: RowId, fence: i32) -> bool {
        self.record(worker, &[], &[claim(id, fence)]).await.claimed[0]
    }

    /// Return the ids of a flow's ready rows.
    pub async fn ready(&self, flow: &Flow) -> Vec<RowId> {
        let read = FlowRead { flow: flow.clone(), after: None, limit: 100 };
        let pages = self.store.read_flows(&[read]).await.unwrap();
        pages[0].work.iter().flat_map(|work| &work.rows).map(|row| row.id).collect()
    }
}

/// Log messages without a guard against repetition; return their ids.
pub async fn insert(store: &SqliteStore, submissions: &[Submission]) -> Result<Vec<RowId>, StoreError> {
    let messages: Vec<NewMessage> = submissions.iter().cloned().map(NewMessage::from).collect();
    let accepted = store.accept(&messages).await?;
    let ids = accepted.inserted.into_iter().filter_map(|inserted| match inserted {
        Inserted::New(id) => Some(id),
        Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
    });
    Ok(ids.collect())
}

pub fn claim(id: RowId, fence: i32) -> Claim {
    Claim { id, line: LINE, fence, digest: None, in_campaign: false, call_deadline: Duration::from_secs(32) }
}

pub fn text_to(dest: &str) -> Submission {
    Submission {
        account: ACCOUNT,
        line: LINE,
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "Olá".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: HOUR,
        waiter: None,
    }
}

pub fn flow() -> Flow {
    Flow { line: LINE, lane: Lane::High, medium: Medium::Text, campaign: String::new() }
}

pub fn refusal() -> ErrorDetail {
    ErrorDetail {
        http_status: Some(400),
        code: Some(10),
        subcode: Some(2018278),
        message: "outside of the allowed window".into(),
        fbtrace_id: Some("A1".into()),
    }
}

pub fn every_partition() -> Vec<Partition> {
    Partition::all().collect()
}

pub fn in_an_hour() -> OffsetDateTime {
    OffsetDateTime::now_utc() + HOUR
}
