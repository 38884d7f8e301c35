//! A fresh store with an account and two lines, and the steps of its suites.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, ErrorDetail, ErrorKind, Lane, LineId, Partition, RowId, Submission};
use meta_dispatch::settings::Plaintext;
use meta_dispatch::store::postgres::PostgresStore;
use meta_dispatch::store::sqlite::SqliteStore;
use meta_dispatch::store::{
    Change, ChangeKind, Claim, FlowRead, LogRow, Promoted, ReadyRow, Record, Recorded, Scope, SharedStore,
    digest,
};
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::database::Database;
use super::insert::Insert;

pub const HOUR: Duration = Duration::from_secs(3_600);
pub const LEASE: Duration = Duration::from_secs(30);
/// A past time, for rows that are due, or expire, in tests that write a time themselves.
pub const LONG_AGO: &str = "'2020-01-01T00:00:00.000Z'";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Postgres,
    Sqlite,
}

pub struct Fixture {
    pub store: SharedStore,
    place: Place,
    claims: AtomicI64,
}

enum Place {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

/// Return a message on line 1 of account 1.
pub fn text(dest: &str) -> Submission {
    Submission {
        account: AccountId(1),
        line: LineId(1),
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "Olá 😀 'quoted' \"\\".into(),
        mcaption: None,
        msg_id: Some("ref".into()),
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: HOUR,
        waiter: None,
    }
}

pub fn bulk(dest: &str, campaign: &str) -> Submission {
    Submission { lane: Lane::Bulk, cp_id: Some(campaign.into()), ..text(dest) }
}

pub fn all_partitions() -> Vec<Partition> {
    Partition::all().collect()
}

pub fn error() -> ErrorDetail {
    ErrorDetail {
        http_status: Some(400),
        code: Some(1200),
        subcode: Some(2018024),
        message: "try later".into(),
        fbtrace_id: Some("Axy".into()),
    }
}

pub fn sent() -> ChangeKind {
    ChangeKind::Sent { http_status: 200, graph_id: "m".into() }
}

pub fn failed() -> ChangeKind {
    ChangeKind::Failed { kind: ErrorKind::Refused, error: error(), ambiguous: false }
}

pub fn retry(after: Duration) -> ChangeKind {
    ChangeKind::Retry { after, error: error(), counted: true, ambiguous: true }
}

pub fn suspected(after: Duration) -> ChangeKind {
    ChangeKind::Suspected { after, error: error(), ambiguous: false }
}

pub fn unknown() -> ChangeKind {
    ChangeKind::Unknown { error: error() }
}

pub fn wait_for_line() -> ChangeKind {
    ChangeKind::WaitForLine { error: error(), ambiguous: false }
}

pub fn claim(row: &ReadyRow) -> Claim {
    let digest = Some(digest(row.account, row.line, &row.dest, &row.mdata));
    Claim {
        id: row.id,
        line: row.line,
        fence: row.fence,
        digest,
        in_campaign: row.cp_id.is_some(),
        call_deadline: HOUR,
    }
}

/// Return the first claim of a row of line 1.
pub fn first_claim(id: RowId) -> Claim {
    Claim { id, line: LineId(1), fence: 0, digest: None, in_campaign: false, call_deadline: HOUR }
}

impl Fixture {
    /// Create account 1 with the Messenger lines 1 and 2, and account 2.
    pub async fn create(backend: Backend) -> Fixture {
        super::install_crypto();
        let (store, place): (SharedStore, Place) = match backend {
            Backend::Postgres => {
                let database = Database::create().await;
                let store = PostgresStore::open(&database.url().into(), 8, Plaintext::default())
                    .expect("the URL is right");
                (Arc::new(store), Place::Postgres(database))
            }
            Backend::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let store = SqliteStore::open(&url(&folder)).await.expect("the file can be made");
                (Arc::new(store), Place::Sqlite(folder))
            }
        };
        store.migrate().await.expect("a fresh database can be migrated");
        let fixture = Fixture { store, place, claims: AtomicI64::new(0) };
        fixture.execute("insert into account (cdcs_id, cdcs_name) values (1, 'Acme'), (2, 'Other')").await;
        fixture
            .execute("insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id) values (1, 1, 'messenger', 'EAA', '11'), (2, 1, 'messenger', 'EAA', '12')")
            .await;
        fixture
    }

    /// Return the database (PostgreSQL only).
    pub fn database(&self) -> &Database {
        match &self.place {
            Place::Postgres(database) => database,
            Place::Sqlite(_) => panic!("this test is about PostgreSQL"),
        }
    }

    /// Run a statement as another program would.
    pub async fn execute(&self, statement: &str) {
        match &self.place {
            Place::Postgres(database) => database.execute(statement).await,
            Place::Sqlite(folder) => {
                let mut connection =
                    SqliteConnection::connect(&url(folder)).await.expect("the file is there");
                sqlx::raw_sql(statement).execute(&mut connection).await.expect("the statement works");
            }
        }
    }

    /// Return the one integer that a query finds.
    pub async fn number(&self, query: &str) -> i64 {
        match &self.place {
            Place::Postgres(database) => {
                let mut connection = PgConnection::connect(database.url()).await.expect("PostgreSQL answers");
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query works")
            }
            Place::Sqlite(folder) => {
                let mut connection =
                    SqliteConnection::connect(&url(folder)).await.expect("the file is there");
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query works")
            }
        }
    }

    /// Return the number of rows of a table of the queue.
    pub async fn rows_of(&self, table: &str) -> i64 {
        self.number(&format!("select count(*) from {table}")).await
    }

    pub async fn log(&self, submissions: &[Submission]) -> Vec<RowId> {
        self.store.insert(submissions).await.expect("rows can be logged")
    }

    pub async fn log_one(&self, submission: Submission) -> RowId {
        self.log(&[submission]).await[0]
    }

    pub async fn row(&self, id: RowId) -> LogRow {
        self.store.log_row(Scope::Operator, id).await.expect("the log answers").expect("the row exists")
    }

    /// Return the ready rows of every flow that has work, in order of id.
    pub async fn ready(&self) -> Vec<ReadyRow> {
        let flows = self.store.ready_flows(&all_partitions(), false).await.expect("scans work");
        let mut rows = Vec::new();
        for (flow, _) in flows {
            rows.extend(self.read_flow(FlowRead { flow, after: None, limit: 1_000 }).await);
        }
        rows.sort_by_key(|row: &ReadyRow| row.id);
        rows
    }

    /// Return the ready rows of a flow, to its end.
    pub async fn read_flow(&self, mut read: FlowRead) -> Vec<ReadyRow> {
        let mut rows = Vec::new();
        loop {
            let mut pages = self.store.read_flows(std::slice::from_ref(&read)).await.expect("flows are read");
            let page = pages.pop().expect("a page for each read");
            let last = page.work.last().map(|work| work.position);
            rows.extend(page.work.into_iter().flat_map(|work| work.rows));
            match last {
                Some(last) if page.more => read.after = Some(last),
                _ => return rows,
            }
        }
    }

    pub async fn ready_ids(&self) -> Vec<RowId> {
        self.ready().await.iter().map(|row| row.id).collect()
    }

    /// Run one transaction of the recorder, with the worker's next number of claims.
    pub async fn record(&self, worker: &str, changes: &[Change], claims: &[Claim]) -> Recorded {
        let claim_no = self.claims.fetch_add(1, Ordering::Relaxed) + 1;
        self.recorded(Record {
            worker,
            changes,
            claims,
            claim_no,
            ended_work: &[],
            ended_claims: &[],
            repeated: false,
        })
        .await
    }

    pub async fn recorded(&self, record: Record<'_>) -> Recorded {
        self.store.record(record).await.expect("changes and claims are recorded")
    }

    /// Return the number of the claims that `record` made last.
    pub fn last_claim_no(&self) -> i64 {
        self.claims.load(Ordering::Relaxed)
    }

    /// End the first claim of a row, as worker `w`.
    pub async fn change(&self, id: RowId, kind: ChangeKind) -> bool {
        self.change_at(id, 1, kind).await
    }

    pub async fn change_at(&self, id: RowId, fence: i32, kind: ChangeKind) -> bool {
        self.record("w", &[Change::waiting(id, fence, kind)], &[]).await.changed[0]
    }

    pub async fn claims(&self, worker: &str, claims: &[Claim]) -> Vec<bool> {
        self.record(worker, &[], claims).await.claimed
    }

    /// Let the worker own every partition that no other worker has.
    pub async fn own_all(&self, worker: &str) {
        self.store.renew_leases(worker, LEASE, false).await.expect("leases are kept");
        self.store.acquire_leases(worker, LEASE, 64).await.expect("leases are kept");
    }

    /// Log a message and claim it for worker `w`, who owns every partition; its fence is 1.
    pub async fn claimed(&self, submission: Submission) -> RowId {
        self.own_all("w").await;
        let line = submission.line;
        let id = self.log_one(submission).await;
        assert_eq!(self.claims("w", &[Claim { line, ..first_claim(id) }]).await, [true]);
        id
    }

    /// Log a message and bring it to the result of a call.
    pub async fn called(&self, submission: Submission, kind: ChangeKind) -> RowId {
        let id = self.claimed(submission).await;
        assert!(self.change(id, kind).await);
        id
    }

    /// Make due rows ready.
    pub async fn promote(&self) -> Promoted {
        self.store.promote_due(&all_partitions(), None, 1_000).await.expect("scans work")
    }

    /// Make all rows that wait for a time due.
    pub async fn all_due(&self) {
        let due = format!("update cdls_open set due_at = {LONG_AGO} where due_at is not null");
        self.execute(&due).await;
    }
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite:{}", folder.path().join("log.db").display())
}
