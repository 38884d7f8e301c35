//! `line`: the Facebook Pages and Instagram accounts that send, their page access tokens, and their pauses.
//!
//! A page access token is never shown, only whether one is set.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::output::{Output, tell_note};
use super::page_token::PageTokenSource;
use super::parse;
use super::table::{add, align_right, keep_whole, or_dash, short_time, table, yes_no};
use crate::message::{AccountId, Class, LineId, timestamp};
use crate::policy::pace::{Limits, Rates};
use crate::settings::LimitSettings;
use crate::store::{LineRecord, NewLine, Store};

#[derive(Debug, Subcommand)]
pub enum LineCommand {
    /// Add a line; read its page access token from standard input or a file
    #[command(
        after_help = "Example:\n  meta-dispatch line add --account 1 --class messenger --page-id 1234567890 \
                            --pat-stdin < page-token.txt"
    )]
    Add(Box<AddArgs>),
    /// List the lines with their limits and states
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
    #[arg(long, value_name = "ID", required_if_eq("class", "messenger"), value_parser = parse::name)]
    page_id: Option<String>,
    /// Id of the Instagram business account
    #[arg(long, value_name = "ID", value_parser = parse::name)]
    ig_account_id: Option<String>,
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

/// A line as shown: never its page access token.
#[derive(Serialize)]
struct LineView {
    v8l_id: LineId,
    cdcs_id: AccountId,
    v8l_class: Class,
    v8l_name: Option<String>,
    v8l_active: bool,
    has_pat: bool,
    v8l_fb_page_id: Option<String>,
    v8l_ig_account_id: Option<String>,
    v8l_rate_text: Option<u32>,
    v8l_rate_media: Option<u32>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    v8l_paused_until: Option<OffsetDateTime>,
    v8l_pause_reason: Option<String>,
    state: String,
}

pub async fn run(
    command: LineCommand,
    store: &dyn Store,
    limits: &LimitSettings,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        LineCommand::Add(args) => {
            let added = Added { v8l_id: add_line(*args, limits, store).await? };
            out.answer(&added, |added| format!("line {} added", added.v8l_id))
        }
        LineCommand::List => {
            let now = OffsetDateTime::now_utc();
            let lines = store.all_lines().await?.iter().map(|line| view(line, now)).collect();
            out.answer(&Lines { lines }, |lines| list(&lines.lines, limits, out.width))
        }
        LineCommand::SetPat { line, pat } => {
            let found = store.set_page_token(line, &pat.read()?).await?;
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
    }
}

async fn add_line(args: AddArgs, limits: &LimitSettings, store: &dyn Store) -> anyhow::Result<LineId> {
    let line = NewLine {
        id: args.id,
        account: args.account,
        name: args.name,
        class: args.class,
        page_token: args.pat.read()?,
        page_id: args.page_id,
        instagram_account_id: args.ig_account_id,
        rate_text: args.rate_text,
        rate_media: args.rate_media,
    };
    let wanted = Rates { text: args.rate_text.unwrap_or(1), media: args.rate_media.unwrap_or(1) };
    let in_force = Limits::of(args.class, wanted, limits.enforce_ceilings, None, None);
    for (medium, limit) in [("text", in_force.text), ("media", in_force.media)] {
        if let Some(asked) = limit.clamped_from {
            tell_note(&format!(
                "{asked} {medium} a second is above Meta's ceiling: {} is in force",
                limit.per_second
            ));
        }
    }
    Ok(store.add_line(&line).await?)
}

/// Answers a change of a line with the line as it stands now.
async fn changed(found: bool, line: LineId, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(found, "no line {line}");
    let lines = store.lines(&[line]).await?;
    let line = lines.first().with_context(|| format!("line {line} was changed, and is gone since"))?;
    out.answer(&view(line, OffsetDateTime::now_utc()), |line| {
        format!("line {}: {}; every process knows within 10 seconds", line.v8l_id, line.state)
    })
}

fn view(line: &LineRecord, now: OffsetDateTime) -> LineView {
    LineView {
        v8l_id: line.id,
        cdcs_id: line.account,
        v8l_class: line.class,
        v8l_name: line.name.clone(),
        v8l_active: line.active,
        has_pat: has_page_token(line),
        v8l_fb_page_id: line.page_id.clone(),
        v8l_ig_account_id: line.instagram_account_id.clone(),
        v8l_rate_text: line.rate_text,
        v8l_rate_media: line.rate_media,
        v8l_paused_until: line.paused_until,
        v8l_pause_reason: line.pause_reason.clone(),
        state: state(line, now),
    }
}

fn has_page_token(line: &LineRecord) -> bool {
    line.page_token.as_ref().is_some_and(|token| !token.expose_secret().trim().is_empty())
}

/// Whether the line may send, and if not, why: the cause that has to be removed first.
fn state(line: &LineRecord, now: OffsetDateTime) -> String {
    /// A pause that ends later than this was made without an end.
    const ENDLESS: time::Duration = time::Duration::days(36_500);
    if !line.account_active {
        return "account disabled".into();
    }
    if !line.active {
        return "inactive".into();
    }
    if !has_page_token(line) {
        return "no token".into();
    }
    let has_page_id = line.page_id.as_deref().is_some_and(|id| !id.trim().is_empty());
    if line.class == Class::Messenger && !has_page_id {
        return "no page id".into();
    }
    match line.paused_until {
        Some(until) if until > now => {
            let until = if until - now > ENDLESS { "resumed".to_owned() } else { timestamp(until) };
            let reason = line.pause_reason.as_deref().unwrap_or("no reason given");
            format!("paused until {until} ({reason})")
        }
        _ => "sending".into(),
    }
}

fn list(lines: &[LineView], limits: &LimitSettings, width: u16) -> String {
    let header =
        ["V8L_ID", "CDCS", "CLASS", "NAME", "ACTIVE", "PAGE ID", "PAT", "TEXT/s", "MEDIA/s", "STATE"];
    let mut table = table(width, &header);
    align_right(&mut table, [0, 1]);
    // Names and states share what the others leave.
    keep_whole(&mut table, (0..header.len()).filter(|column| ![3, 9].contains(column)));
    for line in lines {
        let default = limits.of(line.v8l_class);
        add(
            &mut table,
            [
                line.v8l_id.to_string(),
                line.cdcs_id.to_string(),
                line.v8l_class.to_string(),
                or_dash(line.v8l_name.as_ref()),
                yes_no(line.v8l_active).into(),
                page(line),
                if line.has_pat { "set" } else { "none" }.into(),
                limit(line.v8l_rate_text, default.text),
                limit(line.v8l_rate_media, default.media),
                short_state(line),
            ],
        );
    }
    table.trim_fmt()
}

/// The page's id; an Instagram line may have none, and is known by its account.
fn page(line: &LineView) -> String {
    let instagram = line.v8l_ig_account_id.as_ref().map(|id| format!("ig:{id}"));
    or_dash(line.v8l_fb_page_id.clone().or(instagram))
}

/// A line's own limit, or its class's in brackets.
fn limit(own: Option<u32>, default: u32) -> String {
    own.map_or_else(|| format!("({default})"), |own| own.to_string())
}

/// The state with a short time, for the table.
fn short_state(line: &LineView) -> String {
    match line.v8l_paused_until {
        Some(until) => line.state.replace(&timestamp(until), &short_time(until)),
        None => line.state.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-23 14:15:20 UTC);

    fn line() -> LineRecord {
        LineRecord {
            id: LineId(7),
            account: AccountId(1),
            name: None,
            class: Class::Messenger,
            active: true,
            account_active: true,
            page_token: Some("EAAsecret".into()),
            page_id: Some("1234".into()),
            instagram_account_id: None,
            rate_text: None,
            rate_media: Some(5),
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    #[rstest]
    #[case::it_may_send(line(), "sending")]
    #[case::its_account_is_disabled(LineRecord { account_active: false, active: false, ..line() }, "account disabled")]
    #[case::it_is_inactive(LineRecord { active: false, page_token: None, ..line() }, "inactive")]
    #[case::it_has_no_token(LineRecord { page_token: Some("".into()), ..line() }, "no token")]
    #[case::it_is_paused(
        LineRecord {
            paused_until: Some(datetime!(2026-11-23 14:45 UTC)),
            pause_reason: Some("613".into()),
            ..line()
        },
        "paused until 2026-11-23T14:45:00.000Z (613)"
    )]
    #[case::it_is_paused_without_end(
        LineRecord {
            paused_until: Some(datetime!(9999-01-01 0:00 UTC)),
            pause_reason: Some("by an operator".into()),
            ..line()
        },
        "paused until resumed (by an operator)"
    )]
    #[case::its_pause_has_ended(LineRecord { paused_until: Some(NOW), ..line() }, "sending")]
    fn a_line_says_whether_it_sends_or_why_not(#[case] line: LineRecord, #[case] expected: &str) {
        assert_eq!(state(&line, NOW), expected);
    }

    #[test]
    fn a_list_says_that_a_page_token_is_set_and_never_shows_it() {
        let limits = LimitSettings {
            enforce_ceilings: true,
            messenger: crate::settings::ClassLimits { text: 40, media: 10 },
            instagram: crate::settings::ClassLimits { text: 40, media: 10 },
        };
        let view = view(&line(), NOW);
        let json = serde_json::to_string(&view).expect("it serialises");
        assert!(json.contains(r#""has_pat":true"#) && !json.contains("EAAsecret"), "{json}");
        let table = list(&[view], &limits, 160);
        assert!(table.contains("set") && table.contains("(40)") && !table.contains("EAAsecret"), "{table}");
    }
}
