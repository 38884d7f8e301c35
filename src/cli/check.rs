//! `check`: the settings in force, whether database, broker and Graph answer, which lines do not send, and how page tokens
//! are stored.
//!
//! Graph is asked without a token; any HTTP answer shows that it can be reached.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::app_secrets::StoredSecrets;
use super::ending_tokens::{self, Ending};
use super::fields::fields;
use super::migrate::schema_word;
use super::output::{Answered, Output, printable};
use super::screen::Screen;
use super::stopped_lines::{StoppedLine, stopped, told};
use super::stored_tokens::StoredTokens;
use super::table::{Column, Table};
use crate::broker::rabbitmq::reach::reach;
use crate::graph::egress;
use crate::policy::token_check::{ends_at, version_of};
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
    /// Secrets of apps by form; `null` if the database did not say.
    app_secrets: Option<StoredSecrets>,
    /// Page tokens that end within 14 days; `null` if the database did not say.
    ending_tokens: Option<Vec<Ending>>,
}

/// The keys of these settings.
struct Keys {
    /// Of page tokens.
    lines: KeyRing,
    /// Of the secrets of apps.
    apps: KeyRing,
}

/// The answers of a database whose schema is known.
struct Contents {
    open: OpenRows,
    stopped: Vec<StoppedLine>,
    tokens: Option<StoredTokens>,
    apps: Option<StoredSecrets>,
    ending: Vec<Ending>,
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
    /// Version of Meta's interface in the path, and the day on which it ends, if they are known.
    version: Option<String>,
    version_ends_at: Option<String>,
}

pub async fn run(settings: &Settings, out: &Output) -> anyhow::Result<()> {
    let keys = Keys { lines: super::key_ring(settings)?, apps: super::app_keys(settings)? };
    let ((database, contents), broker, graph) =
        tokio::join!(database(&settings.database, &keys), broker(&settings.broker), graph(&settings.graph));
    let (open, stopped_lines, page_tokens, app_secrets, ending_tokens) = match contents {
        Some(Contents { open, stopped, tokens, apps, ending }) => {
            (Some(open), Some(stopped), tokens, apps, Some(ending))
        }
        None => (None, None, None, None, None),
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
        app_secrets,
        ending_tokens,
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
async fn database(settings: &DatabaseSettings, keys: &Keys) -> (DatabaseReport, Option<Contents>) {
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
    keys: &Keys,
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
    let tokens = StoredTokens::count(store, &keys.lines).await.ok();
    let apps = StoredSecrets::count(store, &keys.apps).await.ok();
    let ending = ending_tokens::ending(store).await?;
    Ok(Some(Contents { open, stopped, tokens, apps, ending }))
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
    let (http_status, error) = match ask.await {
        Ok(answer) => (Some(answer.status().as_u16()), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let version = version_of(settings.base_url.path());
    GraphReport {
        ok: error.is_none(),
        http_status,
        error,
        version: version.map(str::to_owned),
        version_ends_at: version.and_then(ends_at).map(|end| end.to_string()),
    }
}

/// Return the causes of a failed HTTP request, without the URL.
pub fn explain(error: reqwest::Error) -> anyhow::Error {
    if error.is_timeout() { anyhow::anyhow!("no answer in time") } else { error.without_url().into() }
}

fn no_answer() -> String {
    format!("no answer within {}", humantime::format_duration(TIMEOUT))
}

fn human(report: &Report, keys: &Keys, screen: Screen) -> anyhow::Result<String> {
    const COLUMNS: [Column; 2] = [Column::new("SETTING"), Column::text("VALUE", 20)];
    let mut settings = Table::new(&COLUMNS, screen);
    for (key, value) in fields(report.settings)? {
        settings.add([key, value]);
    }
    let database = &report.database;
    let schema = database.schema.map(|schema| format!("schema {schema}"));
    let broker = &report.broker;
    let graph = &report.graph;
    let end = graph.version.as_ref().zip(graph.version_ends_at.as_ref());
    let end = end.map(|(version, end)| format!("; {version} ends on {end}")).unwrap_or_default();
    let status =
        graph.http_status.map(|status| format!("answers (HTTP {status}, asked without a token){end}"));
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
        Some(tokens) => tokens.human(&keys.lines),
        None => "The forms of page tokens could not be read.".to_owned(),
    };
    let ending = match &report.ending_tokens {
        Some(ending) => ending_tokens::told(ending),
        None => "The ends of page tokens could not be read.".to_owned(),
    };
    let lines = match &report.stopped_lines {
        Some(lines) => told(lines),
        None => "The states of lines could not be read.".to_owned(),
    };
    let apps = match &report.app_secrets {
        Some(apps) if apps.is_empty() => unsigned(report.settings),
        Some(apps) => format!("\n{}", apps.human(&keys.apps)),
        None => "\nThe forms of apps' secrets could not be read.".to_owned(),
    };
    Ok(format!(
        "{}\n\n{}\n\n{lines}\n{unknown}\n{tokens}\n{ending}{apps}",
        settings.render(),
        answers.join("\n")
    ))
}

/// Return a warning if webhooks are on, and no secret is known by which their signatures could be checked.
fn unsigned(settings: &Settings) -> String {
    match settings.webhooks.is_on() && settings.graph.app_secret.expose_secret().is_empty() {
        true => "\nWarning: webhooks are on, and no secret of an app is known, so that each is refused: set graph.app_secret, \
                 or `app add`."
            .to_owned(),
        false => String::new(),
    }
}

/// Return the answer in full length: an error is worth its lines.
fn answer(name: &str, ok: bool, remark: Option<&str>) -> String {
    format!("{name:8}  {}  {}", if ok { "ok    " } else { "failed" }, printable(remark.unwrap_or_default()))
}
