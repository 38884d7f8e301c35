//! The cost of a message to PostgreSQL, by its own counters: the records of its write-ahead log, which are the same on any
//! machine. A change that makes a message dearer fails here, and one that makes it cheaper has to renew the numbers.
//!
//! Every record of the tables and indexes counts, and the commits of their transactions. Images of whole pages do not: how
//! many there are depends on the time of the last checkpoint. The test's tables are left alone by autovacuum, and
//! everything happens one after the other, so that two runs differ by a few records.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use meta_dispatch::domain::{LineId, RowId, Submission, WorkId};
use meta_dispatch::store::{Change, ChangeKind, Claim, NewMessage, Record};
use sqlx::{Connection, PgConnection};

use crate::support::store::{Backend, Fixture, HOUR, claim, text};

const LINES: usize = 8;
/// A message is claimed when so many others were logged after it, and ends when so many others were claimed after it.
const LAG: usize = 256;

/// The figures that the last change of the store left, with PostgreSQL of this version; others write other records, and only the
/// limits hold for them. To renew them: run the test, read what it measured in its message, and write that here.
const POSTGRES: i32 = 15;
const BATCHES: Recorded = Recorded { wal_bytes: 1_005.0, index_entries: 3.39 };
const SINGLE: Recorded = Recorded { wal_bytes: 1_925.0, index_entries: 7.0 };
const TOLERANCE: f64 = 0.03;

struct Recorded {
    wal_bytes: f64,
    index_entries: f64,
}

/// A message, in the mean.
struct Cost {
    postgres: i32,
    wal_bytes: f64,
    index_entries: f64,
    /// Of the updates of `cdls`, those that added no index entry.
    hot_share: f64,
    commits: f64,
    /// Records and bytes by table or index and kind of record.
    parts: String,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn batched_message_is_one_insert_and_one_hot_update() {
    let cost = cost(6_400, 64).await;
    assert!(cost.hot_share >= 0.95, "{cost}");
    assert!(cost.index_entries <= 5.0, "{cost}");
    assert!(cost.wal_bytes <= 1.3 * 1024.0, "{cost}");
    cost.is_as_recorded(&BATCHES);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn single_message_is_three_commits() {
    let cost = cost(1_000, 1).await;
    assert!(cost.commits <= 3.0, "{cost}");
    assert!(cost.hot_share >= 0.95, "{cost}");
    cost.is_as_recorded(&SINGLE);
}

impl Cost {
    fn is_as_recorded(&self, recorded: &Recorded) {
        if self.postgres != POSTGRES {
            return;
        }
        let same = |found: f64, recorded: f64| (found / recorded - 1.0).abs() <= TOLERANCE;
        let Recorded { wal_bytes, index_entries } = recorded;
        assert!(same(self.wal_bytes, *wal_bytes), "recorded {wal_bytes} bytes, found {self}");
        assert!(same(self.index_entries, *index_entries), "recorded {index_entries} entries, found {self}");
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cost { postgres, wal_bytes, index_entries, hot_share, commits, parts } = self;
        write!(
            f,
            "{wal_bytes:.0} bytes, {index_entries:.3} entries, HOT {hot_share:.4}, {commits:.4} commits a message, \
             PostgreSQL {postgres}\n{parts}"
        )
    }
}

/// Plays messages through the store as ingest and one worker do, and reads what PostgreSQL wrote.
async fn cost(messages: usize, batch: usize) -> Cost {
    let fixture = Fixture::create(Backend::Postgres).await;
    fixture.execute(LEAVE_ALONE).await;
    fixture
        .execute(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id)
             select n, 1, 'messenger', 'EAA', '1' || n from generate_series(3, 8) as n",
        )
        .await;
    let store = &fixture.store;
    store.renew_leases("w", HOUR, false).await.expect("leases are kept");
    store.acquire_leases("w", HOUR, 64).await.expect("leases are kept");

    let mut connection = PgConnection::connect(fixture.database().url()).await.expect("PostgreSQL answers");
    sqlx::raw_sql(READABLE)
        .execute(&mut connection)
        .await
        .expect("PostgreSQL has its contributed modules, and TEST_DATABASE_URL names a superuser");
    let begin = "select pg_current_wal_insert_lsn()::text";
    let begin: String = sqlx::query_scalar(begin).fetch_one(&mut connection).await.expect("the query works");
    play(&fixture, messages, batch).await;
    read(&mut connection, &begin, messages).await
}

/// A batch of messages on its way.
#[derive(Default)]
struct Batch {
    claim_no: i64,
    work: Vec<WorkId>,
    claimed: Vec<RowId>,
}

async fn play(fixture: &Fixture, messages: usize, batch: usize) {
    let lag = (LAG / batch).max(1);
    let (mut logged, mut claimed) = (VecDeque::new(), VecDeque::new());
    let batches = messages / batch;
    for step in 0..batches + 2 * lag {
        if step < batches {
            logged.push_back(log(fixture, step * batch, batch).await);
        }
        let to_claim = if step >= lag { logged.pop_front() } else { None };
        let to_end = if step >= 2 * lag { claimed.pop_front() } else { None };
        if to_claim.is_some() || to_end.is_some() {
            claimed.extend(record(fixture, to_claim, to_end, batch).await);
        }
    }
    assert_eq!(fixture.rows_of("work").await + fixture.rows_of("claim").await, 0);
    assert_eq!(fixture.rows_of("cdls where status = 'OK'").await, messages as i64);
}

/// Logs a batch; its work.
async fn log(fixture: &Fixture, first: usize, batch: usize) -> Vec<WorkId> {
    let messages: Vec<NewMessage> = (first..first + batch).map(|number| message(number).into()).collect();
    let accepted = fixture.store.accept(&messages).await.expect("rows can be logged");
    accepted.work.iter().map(|work| work.id).collect()
}

fn message(number: usize) -> Submission {
    // Recipients as Meta numbers them, in no order.
    let dest = 4_000_000_000_000_000 + (number as u64).wrapping_mul(2_654_435_761) % 1_000_000_007;
    Submission {
        line: LineId(1 + (number % LINES) as i64),
        mdata: "0123456789".repeat(20),
        msg_id: None,
        ..text(&dest.to_string())
    }
}

/// One transaction of the recorder: a batch has ended, another is claimed. Alone, each has one of its own.
async fn record(
    fixture: &Fixture,
    to_claim: Option<Vec<WorkId>>,
    to_end: Option<Batch>,
    batch: usize,
) -> Option<Batch> {
    let to_end = to_end.unwrap_or_default();
    let work = to_claim.unwrap_or_default();
    let claims = claims(fixture, &work).await;
    let changes: Vec<Change> = to_end.claimed.iter().map(|id| sent(*id)).collect();
    let ended_claims: &[i64] = if changes.is_empty() { &[] } else { &[to_end.claim_no] };
    let claim_no = claims.iter().map(|claim| claim.id.0).max().unwrap_or_default();
    let ends = Record {
        worker: "w",
        changes: &changes,
        claims: &[],
        claim_no,
        ended_work: &to_end.work,
        ended_claims,
        repeated: false,
    };
    let records = if batch == 1 {
        vec![ends, Record { changes: &[], claims: &claims, ended_work: &[], ended_claims: &[], ..ends }]
    } else {
        vec![Record { claims: &claims, ..ends }]
    };
    for record in records {
        if record.changes.is_empty() && record.claims.is_empty() {
            continue;
        }
        let recorded = fixture.recorded(record).await;
        assert!(recorded.changed.iter().chain(&recorded.claimed).all(|took_place| *took_place));
    }
    let claimed: Vec<RowId> = claims.iter().map(|claim| claim.id).collect();
    (!claimed.is_empty()).then_some(Batch { claim_no, work, claimed })
}

async fn claims(fixture: &Fixture, work: &[WorkId]) -> Vec<Claim> {
    if work.is_empty() {
        return Vec::new();
    }
    let read = fixture.store.read_work(work).await.expect("work is read");
    read.iter().flat_map(|work| &work.rows).map(claim).collect()
}

fn sent(id: RowId) -> Change {
    let kind = ChangeKind::Sent { http_status: 200, graph_id: format!("m_{:064x}", id.0) };
    Change { id, fence: 1, begun: Some(Instant::now()), crashed: false, kind }
}

const LEAVE_ALONE: &str = "
    do $$ declare name text; begin
        for name in select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' loop
            execute format('alter table %I set (autovacuum_enabled = false)', name);
        end loop;
    end $$";

/// The records can be read, and are kept until they are, whatever checkpoints the other tests cause.
const READABLE: &str = "
    create extension pg_walinspect;
    select pg_create_physical_replication_slot('cost_' || pg_backend_pid(), true, true)";

/// Records of this database's tables and indexes since `$1`, and the commits of their transactions, by kind. A record that
/// brings the image of a page lacks the data that the image shows; it counts as the others of its kind.
const RECORDS: &str = "
    create temporary table part as
    with record as (
        select xid::text, resource_manager || '/' || record_type as kind, fpi_length > 0 as has_image,
               (record_length - fpi_length + 7) / 8 * 8 as bytes, -- a record begins at a multiple of eight
               regexp_match(block_ref, 'rel \\d+/(\\d+)/(\\d+)') as file
        from pg_get_wal_records_info($1::pg_lsn, pg_current_wal_flush_lsn())),
    ours as (
        select xid, kind, has_image, bytes, relname
        from record
        join pg_class on file[1] = (select oid::text from pg_database where datname = current_database())
                     and file[2] = pg_relation_filenode(pg_class.oid)::text
        where relnamespace = 'public'::regnamespace),
    with_commits as (
        select * from ours
        union all
        select xid, kind, has_image, bytes, 'commits' from record
        where kind = 'Transaction/COMMIT' and xid in (select xid from ours))
    select relname, kind, count(*) as records,
           count(*) * coalesce(avg(bytes) filter (where not has_image), avg(bytes)) as bytes
    from with_commits group by relname, kind";

/// Each entry of an index is one of these records; a split of a leaf brings the entry that did not fit.
const COUNTS: &str = "
    with part as (select relname, kind, records::float8, bytes::float8 from part)
    select current_setting('server_version_num')::integer / 10000, sum(bytes),
           sum(records) filter (where kind in
               ('Btree/INSERT_LEAF', 'Btree/INSERT_POST', 'Btree/SPLIT_L', 'Btree/SPLIT_R')),
           coalesce(sum(records) filter (where kind like 'Heap/%UPDATE%' and relname like 'cdls\\_%'), 0),
           coalesce(sum(records) filter (where kind like 'Heap/HOT%' and relname like 'cdls\\_%'), 0),
           sum(records) filter (where kind = 'Transaction/COMMIT')
    from part";

const PARTS: &str = "
    select string_agg(format('%s %s: %s records, %s bytes', relname, kind, round(records / $1, 4), round(bytes / $1, 1)),
                      E'\\n' order by bytes desc)
    from part";

async fn read(connection: &mut PgConnection, begin: &str, messages: usize) -> Cost {
    // A parameter has no type in a statement that makes a table.
    let records = RECORDS.replace("$1", &format!("'{begin}'"));
    sqlx::raw_sql(&records).execute(&mut *connection).await.expect("the records are there");
    let (postgres, bytes, entries, updates, hot, commits): (i32, f64, f64, f64, f64, f64) =
        sqlx::query_as(COUNTS).fetch_one(&mut *connection).await.expect("the query works");
    let parts = PARTS.replace("$1", &format!("{messages}.0"));
    let parts: String = sqlx::query_scalar(&parts).fetch_one(connection).await.expect("the query works");
    let messages = messages as f64;
    assert!(updates >= messages, "each message was updated: {updates}\n{parts}");
    Cost {
        postgres,
        wal_bytes: bytes / messages,
        index_entries: entries / messages,
        hot_share: hot / updates,
        commits: commits / messages,
        parts,
    }
}
