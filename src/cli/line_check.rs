//! `line check` and `line subscribe`: Meta's answers about the tokens of lines, and the subscription to their webhooks.
//!
//! `check` reads only, and notes the ends of tokens. Never here: a token in an answer, and the judgement of answers;
//! `policy::token_check` has it.

use anyhow::{Context, bail};
use clap::Args;
use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{Answered, Output, printable};
use super::parse;
use super::screen::Screen;
use super::table::{Column, Table, or_dash};
use crate::channel::{Class, Login};
use crate::domain::LineId;
use crate::graph::{AppSecret, AskingApp, Caller, Endpoint, GraphClient, Host};
use crate::policy::classify::asked;
use crate::policy::token_check::{
    Answers, Checked, Facts, Level, TokenEnd, judge, version_of, wanted_fields,
};
use crate::policy::token_life::told;
use crate::seal::{KeyRing, Purpose};
use crate::settings::{GraphSettings, Settings};
use crate::store::{LineRecord, Store};

/// Lines about which Meta is asked at the same time.
const AT_ONCE: usize = 8;

/// Arguments of `line check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Id of the line (default: every line that is switched on)
    #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: Option<LineId>,
}

/// Arguments of `line subscribe`.
#[derive(Debug, Args)]
pub struct SubscribeArgs {
    /// Id of the line
    #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: LineId,
}

/// A line as checked.
#[derive(Serialize)]
struct CheckedLine {
    v8l_id: LineId,
    v8l_class: Class,
    /// The way in force; `null`: the token that shows it cannot be read.
    graph: Option<Login>,
    ok: bool,
    #[serde(flatten)]
    checked: Checked,
}

#[derive(Serialize)]
struct CheckedLines {
    lines: Vec<CheckedLine>,
}

#[derive(Serialize)]
struct Subscribed {
    v8l_id: LineId,
    subscribed_fields: &'static [&'static str],
}

/// The data with which Meta is asked about a line.
struct Question {
    login: Login,
    endpoint: Endpoint,
    page_token: SecretString,
    /// The secret of the line's own app, in clear and as the key of proofs.
    app_secret: Option<SecretString>,
    proof: Option<AppSecret>,
}

/// The client, and the keys of stored secrets.
struct Asker<'a> {
    graph: GraphClient,
    settings: &'a GraphSettings,
    keys: &'a KeyRing,
    app_keys: KeyRing,
}

impl Asker<'_> {
    fn new<'a>(settings: &'a Settings, keys: &'a KeyRing) -> anyhow::Result<Asker<'a>> {
        let app_keys = settings.security.app_keys()?;
        Ok(Asker {
            graph: GraphClient::new(&settings.graph)?,
            settings: &settings.graph,
            keys,
            app_keys: KeyRing::new(app_keys.iter().map(|key| &**key)),
        })
    }

    /// Return the question about a line, or why there is none.
    fn question(&self, line: &LineRecord) -> Result<Question, Box<Checked>> {
        let Some(stored) = &line.page_token else {
            let remedy = format!("set one: `line set-pat {}`", line.id);
            return Err(Checked::unasked("no_token", "the line has no page access token", remedy).into());
        };
        let page_token = self.keys.open(stored, Purpose::PageToken(line.id)).map_err(|reason| {
            let detail = format!("the page token cannot be opened: {reason}");
            let remedy = "put its key into security.key, or replace the token with `line set-pat`";
            Box::new(Checked::unasked("token_unopened", detail, remedy))
        })?;
        let login = Login::of(line.login, page_token.expose_secret());
        let Some(endpoint) = Endpoint::of(login, line.instagram_account_id.as_deref()) else {
            let detail = "the line has no Instagram account id, which Unified Login needs";
            let remedy = format!("set it: `line set {} --ig-account-id ID`", line.id);
            return Err(Checked::unasked("no_account_id", detail, remedy).into());
        };
        let app_secret = match (&line.meta_app, &line.app_secret) {
            (Some(app), Some(stored)) => {
                let opened = self.app_keys.open(stored, Purpose::AppSecret(app)).map_err(|reason| {
                    let detail = format!("the secret of the app {app} cannot be opened: {}", reason.of_app());
                    let remedy = "put its key into security.app_key, or set the secret again with `app add`";
                    Box::new(Checked::unasked("app_secret_unopened", detail, remedy))
                })?;
                Some(opened)
            }
            _ => None,
        };
        let proof = app_secret.as_ref().and_then(AppSecret::of);
        Ok(Question { login, endpoint, page_token, app_secret, proof })
    }

    /// Ask Meta about a line, and judge the answers.
    async fn check(&self, line: &LineRecord, now: OffsetDateTime) -> CheckedLine {
        let question = match self.question(line) {
            Ok(question) => question,
            Err(checked) => return CheckedLine::of(line, None, *checked),
        };
        let (login, graph) = (question.login, &self.graph);
        let caller = question.caller();
        // Tokens of Instagram Login are none of `debug_token`.
        let asks_debug = login != Login::Instagram;
        let proves = graph.proves(&caller);
        let asks_features = login == Login::Facebook && line.class == Class::MESSENGER;
        let (debug, identity, identity_without_proof, subscriptions, features) = tokio::join!(
            async {
                if asks_debug { Some(graph.debug_token(&caller, question.app(line)).await) } else { None }
            },
            graph.identity(&caller),
            async { if proves { Some(graph.identity_without_proof(&caller).await) } else { None } },
            graph.subscriptions(&caller),
            async { if asks_features { Some(graph.features(&caller).await) } else { None } },
        );
        let base = match question.endpoint.host() {
            Host::Facebook => &self.settings.base_url,
            Host::Instagram => &self.settings.instagram_base_url,
        };
        let answers = Answers {
            login,
            class: line.class,
            page_id: line.page_id.as_deref(),
            instagram_account_id: line.instagram_account_id.as_deref(),
            app_id: line.meta_app.as_deref(),
            proves,
            known_end: line.token_expires_at,
            path_version: version_of(base.path()).map(str::to_owned),
            now,
            debug,
            identity,
            identity_without_proof,
            subscriptions,
            features,
        };
        CheckedLine::of(line, Some(login), judge(&answers))
    }
}

impl Question {
    fn caller(&self) -> Caller<'_> {
        Caller { endpoint: &self.endpoint, app_secret: self.proof.as_ref(), page_token: &self.page_token }
    }

    /// Return the line's own app, which may ask about its tokens.
    fn app<'a>(&'a self, line: &'a LineRecord) -> Option<AskingApp<'a>> {
        Some(AskingApp { id: line.meta_app.as_deref()?, secret: self.app_secret.as_ref()? })
    }
}

impl CheckedLine {
    fn of(line: &LineRecord, graph: Option<Login>, checked: Checked) -> CheckedLine {
        CheckedLine { v8l_id: line.id, v8l_class: line.class, graph, ok: checked.is_ok(), checked }
    }
}

pub async fn check(
    args: &CheckArgs,
    store: &dyn Store,
    settings: &Settings,
    keys: &KeyRing,
    out: &Output,
) -> anyhow::Result<()> {
    let records = match args.line {
        Some(id) => vec![line(store, id).await?],
        None => {
            let mut records = store.all_lines().await?;
            records.retain(|record| record.active && record.account_active);
            records
        }
    };
    let asker = Asker::new(settings, keys)?;
    let now = OffsetDateTime::now_utc();
    let mut lines = Vec::with_capacity(records.len());
    for some in records.chunks(AT_ONCE) {
        lines.extend(join_all(some.iter().map(|record| asker.check(record, now))).await);
    }
    for (record, line) in records.iter().zip(&lines) {
        note_end(record, &line.checked.facts, store).await?;
    }
    let wrong = lines.iter().filter(|line| !line.ok).count();
    out.answer(&CheckedLines { lines }, |checked| human(&checked.lines, out.screen))?;
    match wrong {
        0 => Ok(()),
        1 => Err(Answered("a line failed the check".to_owned()).into()),
        wrong => Err(Answered(format!("{wrong} lines failed the check")).into()),
    }
}

/// Note the end that Meta told, where it is news.
async fn note_end(record: &LineRecord, facts: &Facts, store: &dyn Store) -> anyhow::Result<()> {
    let end = match facts.expires_at {
        TokenEnd::Unknown => return Ok(()),
        TokenEnd::Never => None,
        TokenEnd::At(at) => Some(at),
    };
    if end != record.token_expires_at {
        // Another process may have replaced the token meanwhile: the end is not its own.
        store.note_token_end(record.id, record.token_version, end).await?;
    }
    Ok(())
}

async fn line(store: &dyn Store, id: LineId) -> anyhow::Result<LineRecord> {
    store.lines(&[id]).await?.pop().with_context(|| format!("no line {id}"))
}

/// The table of lines, and the findings below it.
fn human(lines: &[CheckedLine], screen: Screen) -> String {
    const COLUMNS: [Column; 8] = [
        Column::number("V8L_ID"),
        Column::new("GRAPH"),
        Column::new("TOKEN"),
        Column::new("ENDS").spare(1),
        Column::text("BELONGS TO", 12),
        Column::new("WEBHOOKS").spare(2),
        Column::new("USE").spare(3),
        Column::new("VERSION").spare(4),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for line in lines {
        let facts = &line.checked.facts;
        table.add([
            line.v8l_id.to_string(),
            or_dash(line.graph),
            match facts.valid {
                Some(true) => "good",
                Some(false) => "refused",
                None => "not known",
            }
            .to_owned(),
            facts.expires_at.shown(),
            owner(facts),
            match facts.subscribed {
                Some(true) if facts.missing_fields.is_empty() => "subscribed",
                Some(true) => "in part",
                Some(false) => "no",
                None => "not known",
            }
            .to_owned(),
            or_dash(facts.usage_percent.map(|percent| format!("{percent} %"))),
            or_dash(facts.api_version.as_ref()),
        ]);
    }
    let findings: Vec<String> = lines.iter().flat_map(CheckedLine::told).collect();
    let told = match (lines.is_empty(), findings.is_empty()) {
        (true, _) => "No line is switched on.".to_owned(),
        (false, true) => "All is well.".to_owned(),
        (false, false) => findings.join("\n"),
    };
    format!("{}\n\n{told}", table.render())
}

/// Return the Page or account of a token, with its name.
fn owner(facts: &Facts) -> String {
    let shown = facts.page.as_ref().or(facts.instagram_account.as_ref()).map(|owner| match &owner.name {
        Some(name) => format!("{} {name}", owner.id),
        None => owner.id.clone(),
    });
    or_dash(shown)
}

impl CheckedLine {
    fn told(&self) -> impl Iterator<Item = String> {
        self.checked.findings.iter().map(|finding| {
            let level = match finding.level {
                Level::Error => "error",
                Level::Warning => "warning",
            };
            format!("line {}: {level}: {}; {}", self.v8l_id, printable(&finding.detail), finding.remedy)
        })
    }
}

pub async fn subscribe(
    args: &SubscribeArgs,
    store: &dyn Store,
    settings: &Settings,
    keys: &KeyRing,
    out: &Output,
) -> anyhow::Result<()> {
    let line = line(store, args.line).await?;
    let asker = Asker::new(settings, keys)?;
    let question = match asker.question(&line) {
        Ok(question) => question,
        Err(checked) => {
            let why =
                checked.findings.first().map(|finding| format!("{}; {}", finding.detail, finding.remedy));
            bail!("{}", why.unwrap_or_default());
        }
    };
    let fields = wanted_fields(line.class, question.login);
    if let Err(refusal) = asked(&asker.graph.subscribe(&question.caller(), fields).await) {
        bail!(
            "Meta refuses the subscription of line {}: {}; `line check {}` tells more",
            line.id,
            told(&refusal),
            line.id
        );
    }
    out.answer(&Subscribed { v8l_id: line.id, subscribed_fields: fields }, |subscribed| {
        format!("line {}: subscribed to {}", subscribed.v8l_id, subscribed.subscribed_fields.join(", "))
    })
}
