//! `line`: the Facebook Pages and Instagram accounts that send, their page access tokens, and their pauses.
//!
//! A page access token is never shown, only whether one is set.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::line_change::{self, RemoveArgs, SetArgs};
use super::line_check::{self, CheckArgs, SubscribeArgs};
use super::line_view::{LineView, above_ceiling, list, views};
use super::output::{Output, confirmed, tell_note};
use super::page_token::{self, PageTokenSource};
use super::parse::LoginChoice;
use super::{help, parse};
use crate::channel::{Class, Login};
use crate::domain::{AccountId, LineId};
use crate::seal::KeyRing;
use crate::settings::{LimitSettings, Settings};
use crate::store::{LineRecord, NewLine, Store};

#[derive(Debug, Subcommand)]
pub enum LineCommand {
    /// Add a line; read its page access token from standard input or a file
    #[command(after_help = help::LINE_ADD)]
    Add(Box<AddArgs>),
    /// List the lines with their limits and states
    #[command(after_help = help::LINE_LIST)]
    List,
    /// Replace a line's page access token; takes effect within 10 seconds
    SetPat {
        /// Id of the line
        #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
        line: LineId,
        #[command(flatten)]
        pat: PageTokenSource,
    },
    /// Pause a line; its messages wait
    Pause {
        /// Id of the line
        #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
        line: LineId,
        /// Length of the pause, such as 30m (default: until `line resume`)
        #[arg(long = "for", value_name = "DURATION", value_parser = parse::duration)]
        length: Option<Duration>,
        /// Reason that `line list` shows
        #[arg(long, value_name = "TEXT", default_value = "by an operator", value_parser = parse::name)]
        reason: String,
    },
    /// Resume a paused line, for any cause of the pause
    Resume {
        /// Id of the line
        #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
        line: LineId,
    },
    /// Ask Meta about the tokens of lines: valid, until when, whose, which permissions and webhooks are missing
    #[command(after_help = help::LINE_CHECK)]
    Check(CheckArgs),
    /// Subscribe the line's app to the webhooks of its Page or Instagram account
    Subscribe(SubscribeArgs),
    /// Change a line's name, ids or limits, or switch it off; takes effect within 10 seconds
    Set(SetArgs),
    /// Remove a line; refused while messages wait for it
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Id of the account that owns the line
    #[arg(long, value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
    account: AccountId,
    /// Channel of the line
    #[arg(long, value_parser = parse::class())]
    class: Class,
    /// Id of the Facebook Page; required for messenger
    #[arg(long, value_name = "ID", required_if_eq("class", "messenger"), value_parser = parse::meta_id)]
    page_id: Option<String>,
    /// Id of the Instagram business account
    #[arg(long, value_name = "ID", value_parser = parse::meta_id)]
    ig_account_id: Option<String>,
    /// Way to connect: facebook, instagram (Instagram Login) or unified (default: auto, by the token)
    #[arg(long, value_parser = parse::login())]
    graph: Option<LoginChoice>,
    /// Meta's id of the app that the line belongs to (default: the app of the settings)
    #[arg(long, value_name = "APP_ID", value_parser = parse::meta_id)]
    app: Option<String>,
    /// Id of the new line (default: the next free id)
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    id: Option<LineId>,
    /// Name that lists show
    #[arg(long, value_parser = parse::name)]
    name: Option<String>,
    /// Limit of text messages a second (default: the limit of the class)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_text: Option<u32>,
    /// Limit of media messages a second (default: the limit of the class)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_media: Option<u32>,
    /// Add the line even if another one has the same page id
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    pat: PageTokenSource,
}

#[derive(Serialize)]
struct Added {
    v8l_id: LineId,
}

#[derive(Serialize)]
struct Lines {
    lines: Vec<LineView>,
}

pub async fn run(
    command: LineCommand,
    store: &dyn Store,
    settings: &Settings,
    keys: &KeyRing,
    out: &Output,
) -> anyhow::Result<()> {
    let limits = &settings.limits;
    match command {
        LineCommand::Check(args) => line_check::check(&args, store, settings, keys, out).await,
        LineCommand::Subscribe(args) => line_check::subscribe(&args, store, settings, keys, out).await,
        LineCommand::Add(args) => {
            let added = Added { v8l_id: add_line(*args, limits, keys, store).await? };
            out.answer(&added, |added| format!("line {} added", added.v8l_id))
        }
        LineCommand::List => {
            let now = OffsetDateTime::now_utc();
            let lines = views(&store.all_lines().await?, store, now).await?;
            out.answer(&Lines { lines }, |lines| list(&lines.lines, limits, out.screen))
        }
        LineCommand::SetPat { line, pat } => {
            let found = store.set_page_token(line, &page_token::stored(pat.read()?, line, keys)).await?;
            changed(found, line, store, out).await
        }
        LineCommand::Pause { line, length, reason } => {
            let found = store.pause_line(line, length, &reason).await?;
            changed(found, line, store, out).await
        }
        LineCommand::Resume { line } => {
            let found = store.resume_line(line).await?;
            changed(found, line, store, out).await
        }
        LineCommand::Set(args) => {
            let (line, found) = line_change::set(&args, store, limits).await?;
            changed(found, line, store, out).await
        }
        LineCommand::Remove(args) => line_change::remove(&args, store, out).await,
    }
}

async fn add_line(
    args: AddArgs,
    limits: &LimitSettings,
    keys: &KeyRing,
    store: &dyn Store,
) -> anyhow::Result<LineId> {
    if !args.yes {
        no_other(&args, store).await?;
    }
    if let Some(app) = &args.app {
        let is_there = store.apps().await?.iter().any(|record| record.id == *app);
        ensure!(is_there, "there is no app {app}: `app add --id {app}` adds it");
    }
    let token = args.pat.read()?;
    let chosen = args.graph.and_then(|choice| choice.0);
    let needs_account = Login::of(chosen, token.expose_secret()).needs_account_id();
    ensure!(
        !needs_account || args.ig_account_id.is_some(),
        "--graph unified needs --ig-account-id, which the path of calls names"
    );
    let seals = keys.first().is_some();
    let line = NewLine {
        id: args.id,
        account: args.account,
        name: args.name,
        class: args.class,
        // A token is sealed for the id of its line, which is not known yet.
        page_token: if seals { "".into() } else { token.clone() },
        page_id: args.page_id,
        instagram_account_id: args.ig_account_id,
        login: chosen,
        rate_text: args.rate_text,
        rate_media: args.rate_media,
    };
    for note in above_ceiling(args.class, args.rate_text, args.rate_media, limits) {
        tell_note(&note);
    }
    let id = store.add_line(&line).await?;
    if let Some(app) = &args.app {
        ensure!(store.set_line_app(id, Some(app)).await?, "line {id} was removed by others at this moment");
    }
    if seals {
        let is_set = store.set_page_token(id, &page_token::stored(token, id, keys)).await;
        let without = || format!("line {id} was added without its page token: `line set-pat {id}` sets it");
        ensure!(is_set.with_context(without)?, "line {id} was removed by others at this moment");
    }
    Ok(id)
}

/// Two lines of one page share Meta's limits and not ours: mostly the second one is a mistake.
async fn no_other(args: &AddArgs, store: &dyn Store) -> anyhow::Result<()> {
    let Some(page_id) = &args.page_id else { return Ok(()) };
    let lines = store.all_lines().await?;
    let is_same = |line: &&LineRecord| line.class == args.class && line.page_id.as_ref() == Some(page_id);
    let Some(other) = lines.iter().find(is_same) else { return Ok(()) };
    let said = format!("line {} of account {} has the page id {page_id} already", other.id, other.account);
    // A question needs a terminal.
    ensure!(std::io::stdin().is_terminal(), "{said}: --yes adds another line of the page");
    ensure!(confirmed(&format!("{said}. Add another line of it?"))?, "nothing was done");
    Ok(())
}

/// Answers a change of a line with the line as it stands now.
async fn changed(found: bool, line: LineId, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(found, "no line {line}");
    let lines = store.lines(&[line]).await?;
    let views = views(&lines, store, OffsetDateTime::now_utc()).await?;
    let line = views.first().with_context(|| format!("line {line} was changed, and is gone since"))?;
    out.answer(line, |line| {
        format!("line {}: {}; every process knows within 10 seconds", line.v8l_id, line.state)
    })
}
