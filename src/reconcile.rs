//! Settles UNKNOWN rows by what Meta shows of a conversation: asks for it, and marks a row OK whose message is there.
//!
//! For `log reconcile` and for the workers' task. `policy::reconcile` decides which message is whose. Never here: the
//! choice of the rows to ask for, and a row marked as not sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::channel::Login;
use crate::domain::{LineId, RowId, Status};
use crate::graph::{AppSecret, Caller, Endpoint, GraphClient};
use crate::metrics::{METRICS, SettledBy};
use crate::policy::classify::asked;
use crate::policy::reconcile::{CallLength, Finding, SentRow, Standing, messages_of, reconcile};
use crate::seal::{KeyRing, Purpose};
use crate::settings::GraphSettings;
use crate::store::{IdRange, LineRecord, LogFilter, LogRow, Resolution, Selection, Store, StoreError};

/// The least time between two calls of a line: Meta takes two a second.
const APART: Duration = Duration::from_millis(550);

/// Meta's code for more calls than a line may make, and how often such a question is asked.
const TOO_MANY: i64 = 613;
const TRIES: u32 = 4;

/// Rows of one recipient that are looked at, the newest.
const MOST_ROWS: u32 = 1_000;

/// How much older than the UNKNOWN row another row may be that sent the same at the same time: as long as messages wait.
const OLDER: Duration = Duration::from_secs(2 * 86_400);

/// How long a call may last until its result counts as lost, beyond its timeout.
const RECORDING: Duration = Duration::from_secs(2);

/// The reason for which a conversation was not seen.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The line cannot ask.
    #[error("{0}")]
    Line(String),
    #[error("Meta does not show the conversation: {0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Asks for conversations, in the name of their lines.
pub struct Reconciler {
    graph: GraphClient,
    page_token_keys: Arc<KeyRing>,
    app_keys: Arc<KeyRing>,
    length: CallLength,
    /// When each line may ask again.
    next: HashMap<LineId, Instant>,
}

/// Return the longest duration of calls.
pub fn call_length(settings: &GraphSettings) -> CallLength {
    CallLength { text: settings.timeout + RECORDING, media: settings.media_timeout + RECORDING }
}

impl Reconciler {
    pub fn new(
        graph: GraphClient,
        page_token_keys: Arc<KeyRing>,
        app_keys: Arc<KeyRing>,
        length: CallLength,
    ) -> Reconciler {
        Reconciler { graph, page_token_keys, app_keys, length, next: HashMap::new() }
    }

    /// Ask for the conversation of a recipient; return a finding for each of its UNKNOWN rows. `oldest` is the earliest
    /// creation among the rows in question.
    pub async fn look(
        &mut self,
        store: &dyn Store,
        line: &LineRecord,
        dest: &str,
        oldest: OffsetDateTime,
    ) -> Result<Vec<(RowId, Finding)>, AskError> {
        // Read before the question: a row that is sent meanwhile is not taken for one that is not.
        let rows = rows_of(store, line.id, dest, oldest).await?;
        if !rows.iter().any(|row| row.standing == Standing::Unknown) {
            return Ok(Vec::new());
        }
        let asked_at = OffsetDateTime::now_utc();
        let answer = self.ask(line, dest).await?;
        Ok(reconcile(&rows, &messages_of(&answer), dest, self.length, asked_at))
    }

    async fn ask(
        &mut self,
        line: &LineRecord,
        dest: &str,
    ) -> Result<serde_json::Map<String, serde_json::Value>, AskError> {
        let stored = line.page_token.as_ref();
        let stored = stored.ok_or_else(|| AskError::Line("the line has no page access token".to_owned()))?;
        let page_token = self
            .page_token_keys
            .open(stored, Purpose::PageToken(line.id))
            .map_err(|error| AskError::Line(format!("page token cannot be opened: {error}")))?;
        let login = Login::of(line.login, page_token.expose_secret());
        let endpoint = Endpoint::of(login, line.instagram_account_id.as_deref())
            .ok_or_else(|| AskError::Line("the line has no Instagram account id".to_owned()))?;
        let app_secret = self.app_secret(line);
        let caller = Caller { endpoint: &endpoint, app_secret: app_secret.as_ref(), page_token: &page_token };
        let mut tries = 0;
        loop {
            self.wait_for_turn(line.id).await;
            let result = self.graph.conversation(&caller, line.class, dest).await;
            tries += 1;
            match asked(&result) {
                // Another command, or a worker, asks for the same line.
                Err(refusal) if refusal.code == Some(TOO_MANY) && tries < TRIES => {}
                answer => {
                    return answer.map_err(|refusal| {
                        let code = refusal.code.map(|code| format!("code {code}: ")).unwrap_or_default();
                        AskError::Refused(format!("{code}{}", refusal.text))
                    });
                }
            }
        }
    }

    /// Return the secret of the line's own app, if it has one that opens.
    fn app_secret(&self, line: &LineRecord) -> Option<AppSecret> {
        let (app, stored) = (line.meta_app.as_ref()?, line.app_secret.as_ref()?);
        let secret = self.app_keys.open(stored, Purpose::AppSecret(app)).ok()?;
        AppSecret::of(&secret)
    }

    async fn wait_for_turn(&mut self, line: LineId) {
        let now = Instant::now();
        let at = self.next.get(&line).copied().unwrap_or(now).max(now);
        self.next.retain(|_, next| *next > now);
        self.next.insert(line, at + APART);
        tokio::time::sleep_until(at).await;
    }
}

/// Mark a row OK whose message Meta reports. Return whether the row was still UNKNOWN. Waiters and listeners are told by
/// a worker, as after `log resolve`.
pub async fn settle_row(
    store: &dyn Store,
    row: RowId,
    message_id: &str,
    by: SettledBy,
) -> Result<bool, StoreError> {
    let resolution = Resolution::Ok { message_id: Some(message_id.to_owned()) };
    let settled = store.resolve(IdRange::one(row), &Selection::default(), &resolution, 1).await?;
    METRICS.codes.settled(by, settled.len());
    Ok(!settled.is_empty())
}

/// Return the rows of a line and recipient that may have to do with rows created from `oldest` on.
pub async fn rows_of(
    store: &dyn Store,
    line: LineId,
    dest: &str,
    oldest: OffsetDateTime,
) -> Result<Vec<SentRow>, StoreError> {
    let age: Duration = (OffsetDateTime::now_utc() - oldest).try_into().unwrap_or_default();
    let filter = LogFilter {
        line: Some(line),
        dest: Some(dest.to_owned()),
        since: Some(age.saturating_add(OLDER)),
        ..LogFilter::default()
    };
    let rows = store.log_newest(&filter, MOST_ROWS).await?;
    Ok(rows.into_iter().map(sent_row).collect())
}

fn sent_row(row: LogRow) -> SentRow {
    SentRow {
        id: row.cdls_id,
        kind: row.mtype,
        created_at: row.created_at,
        sent_at: row.sent_at,
        ambiguous_calls: row.ambiguous_attempts.max(0).unsigned_abs(),
        standing: standing(&row),
        mdata: row.mdata,
    }
}

fn standing(row: &LogRow) -> Standing {
    match (row.status, &row.message_id) {
        (Status::Unknown, _) => Standing::Unknown,
        (Status::Ok, Some(id)) => Standing::Taken(id.clone()),
        (Status::Ok, None) => Standing::MaybeTaken,
        (Status::Pending | Status::Sending | Status::Retry, _) => Standing::Open,
        (Status::Error | Status::Cancelled, _) if row.ambiguous_attempts > 0 => Standing::MaybeTaken,
        (Status::Error | Status::Cancelled, _) => Standing::NotTaken,
    }
}
