//! `line set` and `line remove`: a line's limits, name and switch, and its end.
//!
//! Never here: a page access token; `line set-pat` reads that.

use anyhow::{bail, ensure};
use clap::Args;
use serde::Serialize;

use super::cancel::cancel_waiting;
use super::line_view::above_ceiling;
use super::output::{Output, confirmed, tell_note};
use super::parse::{self, LoginChoice};
use crate::domain::{LineId, RowId};
use crate::settings::LimitSettings;
use crate::store::{LineChange, MessageFilter, Scope, Store};

/// Arguments of `line set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Id of the line
    #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: LineId,
    /// Name that lists show
    #[arg(long, value_parser = parse::name)]
    name: Option<String>,
    /// Whether the line sends: true or false; messages of a line that does not are refused or wait
    #[arg(long, value_name = "BOOL")]
    active: Option<bool>,
    /// Id of the Facebook Page
    #[arg(long, value_name = "ID", value_parser = parse::meta_id)]
    page_id: Option<String>,
    /// Id of the Instagram business account
    #[arg(long, value_name = "ID", value_parser = parse::meta_id)]
    ig_account_id: Option<String>,
    /// Way to connect: facebook, instagram (Instagram Login), unified, or auto, by the token
    #[arg(long, value_parser = parse::login())]
    graph: Option<LoginChoice>,
    /// Meta's id of the app that the line belongs to, or `none` for the app of the settings
    #[arg(long, value_name = "APP_ID", value_parser = app)]
    app: Option<App>,
    /// Limit of text messages a second, or `default` for the limit of the class
    #[arg(long, value_name = "N", value_parser = rate)]
    rate_text: Option<Rate>,
    /// Limit of media messages a second, or `default` for the limit of the class
    #[arg(long, value_name = "N", value_parser = rate)]
    rate_media: Option<Rate>,
}

/// Arguments of `line remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Id of the line
    #[arg(value_name = "V8L_ID", value_parser = parse::id(LineId))]
    line: LineId,
    /// Cancel the messages that wait for the line, and remove it
    #[arg(long)]
    force: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

/// A limit of a line's own, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(Option<u32>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "default" {
        return Ok(Rate(None));
    }
    let number = text.parse().ok().filter(|rate| (1..=1_000_000).contains(rate));
    number
        .map(|rate| Rate(Some(rate)))
        .ok_or_else(|| "must be a number from 1 to 1000000, or `default`".into())
}

/// The app of a line, or none of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct App(Option<String>);

fn app(text: &str) -> Result<App, String> {
    if text == "none" {
        return Ok(App(None));
    }
    parse::meta_id(text).map(|app| App(Some(app)))
}

/// Changes the line; whether it exists.
pub async fn set(
    args: &SetArgs,
    store: &dyn Store,
    limits: &LimitSettings,
) -> anyhow::Result<(LineId, bool)> {
    let change = LineChange {
        name: args.name.clone(),
        active: args.active,
        page_id: args.page_id.clone(),
        instagram_account_id: args.ig_account_id.clone(),
        login: args.graph.map(|choice| choice.0),
        rate_text: args.rate_text.map(|rate| rate.0),
        rate_media: args.rate_media.map(|rate| rate.0),
    };
    ensure!(
        change != LineChange::default() || args.app.is_some(),
        "name a change: --name, --active, --page-id, --ig-account-id, --graph, --app, --rate-text or --rate-media"
    );
    let lines = store.lines(&[args.line]).await?;
    if let Some(line) = lines.first() {
        for note in above_ceiling(line.class, change.rate_text.flatten(), change.rate_media.flatten(), limits)
        {
            tell_note(&note);
        }
    }
    // First: an app that does not exist stops the command before it has changed anything.
    if let Some(App(app)) = &args.app
        && !store.set_line_app(args.line, app.as_deref()).await?
    {
        return Ok((args.line, false));
    }
    Ok((args.line, store.update_line(args.line, &change).await?))
}

#[derive(Serialize)]
struct Removed {
    removed: LineId,
    /// Messages that waited for it.
    cancelled: u64,
}

pub async fn remove(args: &RemoveArgs, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let line = args.line;
    let Some(record) = store.lines(&[line]).await?.pop() else { bail!("no line {line}") };
    let waiting = store.line_backlog(&[line]).await?.first().map_or(0, |backlog| backlog.waiting);
    ensure!(
        waiting == 0 || args.force,
        "{waiting} messages wait for line {line}: let them be sent, or cancel them and remove the line with --force"
    );
    let question =
        format!("Remove line {line}{}?", if waiting > 0 { " and cancel what waits for it" } else { "" });
    if !args.yes && !confirmed(&question)? {
        bail!("nothing was done");
    }
    // Switched off first: every process refuses messages for it within 10 seconds.
    store.update_line(line, &LineChange { active: Some(false), ..LineChange::default() }).await?;
    let cancelled = if args.force {
        let filter = MessageFilter { line: Some(line), ..MessageFilter::default() };
        cancel_waiting(store, Scope::Account(record.account), &filter, RowId(i64::MAX)).await?
    } else {
        0
    };
    ensure!(store.remove_line(line).await?, "line {line} was removed by others at this moment");
    out.answer(&Removed { removed: line, cancelled }, |removed| match removed.cancelled {
        0 => format!("line {} removed; its messages stay in the log", removed.removed),
        rows => format!("line {} removed, {rows} messages cancelled; they stay in the log", removed.removed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_is_an_id_or_none() {
        assert_eq!((app("1234"), app("none")), (Ok(App(Some("1234".into()))), Ok(App(None))));
        assert!(app("Shop").is_err());
    }

    #[test]
    fn rate_is_a_number_or_the_default() {
        assert_eq!((rate("20"), rate("default")), (Ok(Rate(Some(20))), Ok(Rate(None))));
        for wrong in ["0", "-1", "1000001", "fast", ""] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
