//! Looks for the messages of UNKNOWN rows in Meta's conversations (`dispatch.reconcile`): those that no echo settled.
//!
//! A worker asks for the rows of its own partitions, ten seconds after it first saw them UNKNOWN, and again with growing
//! pauses. A row that is not found stays UNKNOWN: a missing message proves nothing. Never here: the decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::{LineId, Partition, RowId, Status};
use crate::graph::GraphClient;
use crate::metrics::SettledBy;
use crate::policy::reconcile::{CallLength, Finding, look_again};
use crate::reconcile::{AskError, Reconciler, settle_row};
use crate::seal::KeyRing;
use crate::store::{LineRecord, LogFilter, SharedStore, StoreError};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Rows of one page, and rows that are remembered: a look finds those with the lowest ids first.
const PAGE: u32 = 1_000;
const MOST: usize = 50_000;
/// Conversations of one look, so that new rows are seen between.
const AT_ONCE: usize = 200;

/// The rest of a row whose line cannot ask.
const DEFERRED: Duration = Duration::from_secs(60);

/// The parts that the task needs.
pub struct Reconciling {
    pub store: SharedStore,
    pub graph: GraphClient,
    pub keys: Arc<KeyRing>,
    pub app_keys: Arc<KeyRing>,
    pub length: CallLength,
    /// The partitions of this worker.
    pub owned: watch::Receiver<Vec<Partition>>,
}

/// An UNKNOWN row.
struct UnknownRow {
    id: RowId,
    line: LineId,
    dest: String,
    created_at: OffsetDateTime,
}

/// When an UNKNOWN row is asked for.
#[derive(Debug, Clone, Copy)]
struct Looks {
    /// `None`: left to a person.
    next: Option<Instant>,
    made: u32,
}

impl Reconciling {
    /// Ask until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.look_for_ever()).await;
    }

    async fn look_for_ever(self) {
        let Reconciling { store, graph, keys, app_keys, length, owned } = self;
        let mut reconciler = Reconciler::new(graph, keys, app_keys, length);
        let mut looks: HashMap<RowId, Looks> = HashMap::new();
        loop {
            let partitions = owned.borrow().clone();
            match look(&store, &mut reconciler, &partitions, &mut looks).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "cannot look for UNKNOWN messages: retrying"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// UNKNOWN rows of one line and recipient, and the earliest creation among them.
type Conversations = BTreeMap<(LineId, String), OffsetDateTime>;

async fn look(
    store: &SharedStore,
    reconciler: &mut Reconciler,
    partitions: &[Partition],
    looks: &mut HashMap<RowId, Looks>,
) -> Result<(), StoreError> {
    let rows = unknown_rows(store, partitions).await?;
    let now = Instant::now();
    let mut seen: HashMap<RowId, Looks> = HashMap::new();
    let mut due = Conversations::new();
    for row in &rows {
        let first = Looks { next: look_again(0).map(|pause| now + pause), made: 0 };
        let known = looks.get(&row.id).copied().unwrap_or(first);
        seen.insert(row.id, known);
        if known.next.is_some_and(|next| next <= now) && due.len() < AT_ONCE {
            let oldest = due.entry((row.line, row.dest.clone())).or_insert(row.created_at);
            *oldest = row.created_at.min(*oldest);
        }
    }
    *looks = seen;
    if due.is_empty() {
        return Ok(());
    }
    let ids: Vec<LineId> = due.keys().map(|(line, _)| *line).collect();
    let lines = store.lines(&ids).await?;
    let lines: HashMap<LineId, LineRecord> = lines.into_iter().map(|line| (line.id, line)).collect();
    for ((line, dest), oldest) in due {
        // A line that does not send is not asked either: the same token would be refused.
        let asks = |line: &&LineRecord| line.active && line.account_active && line.pause_left.is_none();
        let of_dest = rows.iter().filter(|row| row.line == line && row.dest == dest);
        let Some(record) = lines.get(&line).filter(asks) else {
            // Rows of this line would fill the next look too, before those of other lines.
            of_dest.for_each(|row| defer(looks, row.id));
            continue;
        };
        match reconciler.look(&**store, record, &dest, oldest).await {
            Ok(findings) if findings.is_empty() => of_dest.for_each(|row| defer(looks, row.id)),
            Ok(findings) => apply(store, findings, looks).await?,
            Err(AskError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(line = %line, %error, "conversation not seen: UNKNOWN messages are asked for later");
                of_dest.for_each(|row| put_off(looks, row.id));
            }
        }
    }
    Ok(())
}

async fn apply(
    store: &SharedStore,
    findings: Vec<(RowId, Finding)>,
    looks: &mut HashMap<RowId, Looks>,
) -> Result<(), StoreError> {
    for (row, finding) in findings {
        if let Finding::Found { message_id } = finding {
            if settle_row(&**store, row, &message_id, SettledBy::Conversation).await? {
                tracing::info!(cdls_id = %row, "message found in its conversation: message is OK");
            }
            looks.remove(&row);
        } else {
            put_off(looks, row);
        }
    }
    Ok(())
}

/// Have a row wait that could not be asked for; no look is counted.
fn defer(looks: &mut HashMap<RowId, Looks>, row: RowId) {
    if let Some(known) = looks.get_mut(&row) {
        known.next = known.next.map(|_| Instant::now() + DEFERRED);
    }
}

/// Note a look that settled nothing.
fn put_off(looks: &mut HashMap<RowId, Looks>, row: RowId) {
    let Some(known) = looks.get_mut(&row) else { return };
    known.made = known.made.saturating_add(1);
    known.next = look_again(known.made).map(|pause| Instant::now() + pause);
    if known.next.is_none() {
        tracing::warn!(cdls_id = %row, "message not found at Meta: row stays UNKNOWN; settle it with `log resolve`");
    }
}

/// Return the UNKNOWN rows of these partitions, up to a bound.
async fn unknown_rows(store: &SharedStore, partitions: &[Partition]) -> Result<Vec<UnknownRow>, StoreError> {
    let mut unknown = Vec::new();
    if partitions.is_empty() {
        return Ok(unknown);
    }
    let filter = LogFilter { status: Some(Status::Unknown), ..LogFilter::default() };
    let mut after = RowId(0);
    loop {
        let page = store.log_after(&filter, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(unknown) };
        after = last.cdls_id;
        let is_whole = page.len() < PAGE as usize;
        let own = page.into_iter().filter(|row| partitions.contains(&row.v8l_id.partition()));
        unknown.extend(own.map(|row| UnknownRow {
            id: row.cdls_id,
            line: row.v8l_id,
            dest: row.dest,
            created_at: row.created_at,
        }));
        if is_whole || unknown.len() >= MOST {
            return Ok(unknown);
        }
    }
}
