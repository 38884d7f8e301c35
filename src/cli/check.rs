//! `check`: the settings in force, whether database, broker and Graph answer, which lines do not send, and how page tokens
//! are stored.
//!
//! Graph is asked without a token; any HTTP answer shows that it can be reached.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::fields::fields;
use super::migrate::schema_word;
use super::output::{Answered, Output, printable};
use super::screen::Screen;
use super::stopped_lines::{StoppedLine, stopped, told};
use super::stored_tokens::StoredTokens;
use super::table::{Column, Table};
use crate::broker::rabbitmq::reach::reach;
use crate::graph::egress;
use crate::seal::KeyRing;
use crate::settings::{BrokerSettings, DatabaseSettings, GraphSettings, Settings};
use crate::store::{self, OpenRows, SchemaState, Store, StoreError};

/// The time within which each of the three has to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Report<'a> {
    settings: &'a Settings,
    database: DatabaseReport,
    broker: BrokerReport,
    graph: GraphReport,
    /// `null` if the database did not say.
    unknown_rows: Option<i64>,
    /// How long the one that has waited longest has done so; `null` if there is none.
    oldest_unknown_seconds: Option<u64>,
    /// Lines that are switched on and do not send; `null` if the database did not say.
    stopped_lines: Option<Vec<StoppedLine>>,
    /// Page tokens by form; `null` if the database did not say.
    page_tokens: Option<StoredTokens>,
}

/// The answers of a database whose schema is known.
struct Contents {
    open: OpenRows,
    stopped: Vec<StoppedLine>,
    tokens: Option<StoredTokens>,
}

#[derive(Default, Serialize)]
struct DatabaseReport {
    ok: bool,
    /// `current`, `newer` or `older`.
    schema: Option<&'static str>,
    error: Option<String>,
}

#[derive(Serialize)]
struct BrokerReport {
    ok: bool,
    /// `embedded` or `rabbitmq`.
    kind: &'static str,
    error: Option<String>,
}

#[derive(Serialize)]
struct GraphReport {
    ok: bool,
    http_status: Option<u16>,
    error: Option<String>,
}

pub async fn run(settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let keys = super::key_ring(settings)?;
    let ((database, contents), broker, graph) =
        tokio::join!(database(&settings.database, &keys), broker(&settings.broker), graph(&settings.graph));
    let (open, stopped_lines, page_tokens) = match contents {
        Some(Contents { open, stopped, tokens }) => (Some(open), Some(stopped), tokens),
        None => (None, None, None),
    };
    let report = Report {
        settings,
        database,
        broker,
        graph,
        unknown_rows: open.map(|open| open.unknown),
        oldest_unknown_seconds: open.and_then(|open| open.oldest_unknown).map(|age| age.as_secs()),
        stopped_lines,
        page_tokens,
    };
    if out.json {
        out.json(&report)?;
    } else {
        out.text(&human(&report, &keys, out.screen)?)?;
    }
    let failed = match (report.database.ok, report.broker.ok) {
        (true, true) => return Ok(()),
        (false, true) => "the database failed the check",
        (true, false) => "the broker failed the check",
        (false, false) => "database and broker failed the check",
    };
    Err(Answered(failed.to_owned()).into())
}

/// Return the database's state, and what it holds.
async fn database(settings: &DatabaseSettings, keys: &KeyRing) -> (DatabaseReport, Option<Contents>) {
    let mut report = DatabaseReport::default();
    let asked = tokio::time::timeout(TIMEOUT, async {
        let store = store::open_existing(settings).await?;
        let answer = ask_database(&*store, keys, &mut report).await;
        store.close().await;
        answer
    });
    match asked.await {
        Ok(Ok(contents)) => return (report, contents),
        Ok(Err(error)) => report.error = Some(error.to_string()),
        Err(_) => report.error = Some(no_answer()),
    }
    report.ok = false;
    (report, None)
}

async fn ask_database(
    store: &dyn Store,
    keys: &KeyRing,
    report: &mut DatabaseReport,
) -> Result<Option<Contents>, StoreError> {
    let schema = store.schema().await?;
    report.schema = Some(schema_word(schema));
    if schema == SchemaState::Older {
        report.error = Some("no schema of this version: run `meta-dispatch migrate`".into());
        return Ok(None);
    }
    let open = store.open_rows().await?;
    report.error = store.not_writable().await?.map(|reason| format!("not writable: {reason}"));
    report.ok = report.error.is_none();
    let stopped = stopped(&store.stopped_lines().await?, OffsetDateTime::now_utc());
    // A role without the right to read tokens fails here alone.
    let tokens = StoredTokens::count(store, keys).await.ok();
    Ok(Some(Contents { open, stopped, tokens }))
}

async fn broker(settings: &BrokerSettings) -> BrokerReport {
    if settings.url.expose_secret() == "embedded" {
        return BrokerReport { ok: true, kind: "embedded", error: None };
    }
    let error = reach(settings, TIMEOUT).await.err();
    BrokerReport { ok: error.is_none(), kind: "rabbitmq", error }
}

async fn graph(settings: &GraphSettings) -> GraphReport {
    let ask = async {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        let client = egress(builder, settings)?.build().map_err(explain)?;
        client.get(settings.base_url.clone()).send().await.map_err(explain)
    };
    match ask.await {
        Ok(answer) => GraphReport { ok: true, http_status: Some(answer.status().as_u16()), error: None },
        Err(error) => GraphReport { ok: false, http_status: None, error: Some(format!("{error:#}")) },
    }
}

/// Return the causes of a failed HTTP request, without the URL.
pub fn explain(error: reqwest::Error) -> anyhow::Error {
    if error.is_timeout() { anyhow::anyhow!("no answer in time") } else { error.without_url().into() }
}

fn no_answer() -> String {
    format!("no answer within {}", humantime::format_duration(TIMEOUT))
}

fn human(report: &Report, keys: &KeyRing, screen: Screen) -> anyhow::Result<String> {
    const COLUMNS: [Column; 2] = [Column::new("SETTING"), Column::text("VALUE", 20)];
    let mut settings = Table::new(&COLUMNS, screen);
    for (key, value) in fields(report.settings)? {
        settings.add([key, value]);
    }
    let database = &report.database;
    let schema = database.schema.map(|schema| format!("schema {schema}"));
    let broker = &report.broker;
    let graph = &report.graph;
    let status = graph.http_status.map(|status| format!("answers (HTTP {status}, asked without a token)"));
    let answers = [
        answer("database", database.ok, database.error.as_deref().or(schema.as_deref())),
        answer("broker", broker.ok, broker.error.as_deref().or(Some(broker.kind))),
        answer("graph", graph.ok, graph.error.as_deref().or(status.as_deref())),
    ];
    let unknown = match report.unknown_rows {
        None => "The number of UNKNOWN messages could not be read.".to_owned(),
        Some(0) => "No message is UNKNOWN.".to_owned(),
        Some(rows) => format!(
            "UNKNOWN messages: {rows}, the oldest for {}.\n\
             `log tail --status UNKNOWN` shows them, `log resolve` settles them.",
            humantime::format_duration(Duration::from_secs(report.oldest_unknown_seconds.unwrap_or(0)))
        ),
    };
    let tokens = match &report.page_tokens {
        Some(tokens) => tokens.human(keys),
        None => "The forms of page tokens could not be read.".to_owned(),
    };
    let lines = match &report.stopped_lines {
        Some(lines) => told(lines),
        None => "The states of lines could not be read.".to_owned(),
    };
    Ok(format!("{}\n\n{}\n\n{lines}\n{unknown}\n{tokens}", settings.render(), answers.join("\n")))
}

/// Return the answer in full length: an error is worth its lines.
fn answer(name: &str, ok: bool, remark: Option<&str>) -> String {
    format!("{name:8}  {}  {}", if ok { "ok    " } else { "failed" }, printable(remark.unwrap_or_default()))
}
