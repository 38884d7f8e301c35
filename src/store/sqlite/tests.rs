//! What is particular to SQLite, and the guards of every change, looked at from outside through the trait.

mod claims;
mod directory;
mod leases;
mod opening;
mod plans;
mod ready;

use std::time::Duration;

use tempfile::TempDir;
use time::OffsetDateTime;

use super::SqliteStore;
use crate::message::{
    AccountId, Class, ErrorDetail, Lane, LineId, Medium, MessageId, MessageKind, Partition, Submission,
};
use crate::store::{Change, Claim, Flow, FlowRead, LogRow, Recorded, Scope, Store};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const ACCOUNT: AccountId = AccountId(1);
pub const LINE: LineId = LineId(7);
pub const WORKER: &str = "worker-a";

/// A store in a folder of its own.
pub struct Fixture {
    pub store: SqliteStore,
    pub url: String,
    pub folder: TempDir,
}

impl Fixture {
    pub async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("log.db").display());
        let store = SqliteStore::open(&url).await.unwrap();
        Fixture { store, url, folder }
    }

    /// One whose worker holds every partition.
    pub async fn with_worker() -> Fixture {
        let fixture = Fixture::new().await;
        fixture.store.acquire_leases(WORKER, HOUR, 64).await.unwrap();
        fixture
    }

    pub async fn insert(&self, submission: Submission) -> MessageId {
        self.store.insert(&[submission]).await.unwrap()[0]
    }

    /// Runs SQL as another program would.
    pub async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.store.writer).await.unwrap();
    }

    pub async fn row(&self, id: MessageId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.unwrap().unwrap()
    }

    pub async fn change(&self, change: Change) -> bool {
        self.store.record(WORKER, &[change], &[]).await.unwrap().changed[0]
    }

    pub async fn claim(&self, id: MessageId, fence: i32) -> bool {
        let claim = Claim { id, fence, call_deadline: Duration::from_secs(32) };
        let Recorded { claimed, .. } = self.store.record(WORKER, &[], &[claim]).await.unwrap();
        claimed[0]
    }

    /// The ids of a flow's ready rows.
    pub async fn ready(&self, flow: &Flow) -> Vec<MessageId> {
        let read = FlowRead { flow: flow.clone(), after: MessageId(0), limit: 100 };
        self.store.read_flows(&[read]).await.unwrap().into_iter().map(|row| row.id).collect()
    }
}

pub fn text_to(dest: &str) -> Submission {
    Submission {
        account: ACCOUNT,
        line: LINE,
        class: Class::Messenger,
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
