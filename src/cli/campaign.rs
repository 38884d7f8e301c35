//! `campaign`: sends a file of messages over HTTP; the other commands are in `progress.rs`.
//!
//! A file goes in parts, each named after the file's content and the options (or as the user says) and its place. Sent
//! again under the same name, what was logged already is not logged twice: the same command again goes on after a cut.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode};
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use url::form_urlencoded;

use super::check::explain;
use super::output::{Answered, Output, printable, reason};
use super::progress::{ListArgs, OneArgs, ask, list};
use super::remote::{NOT_OURS, Remote, RemoteArgs, accepted};
use super::upload::{Sent, Shown};
use super::{help, parse, reach};
use crate::batch::{Format, Part, Parts};
use crate::channel::Class;
use crate::domain::{LineId, MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS};
use crate::policy::Backoff;
use crate::text::trimmed;

/// Refused lines, and notes to logged ones, that are told one by one.
const TOLD: u64 = 20;
/// Tries of a part before the command gives up, with pauses that double from the first to the longest.
pub(super) const TRIES: u32 = 8;
pub(super) const PAUSES: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(10) };
const PART_TIMEOUT: Duration = Duration::from_secs(120);
/// The reason for which a line is left out.
const REPEATED: &str = "The recipient stands in an earlier line, and --once-per-dest was given.";
/// Characters that `-` and the number of a part take of a batch's name.
const PART_DIGITS: usize = 10;

#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// Send a file of messages; a repeat sends only what is missing
    #[command(after_help = help::CAMPAIGN_SEND)]
    Send(Box<SendFileArgs>),
    /// List campaigns, newest first
    List(ListArgs),
    /// Show a campaign's progress
    Status(OneArgs),
    /// Pause a campaign
    Pause(OneArgs),
    /// Resume a paused campaign
    Resume(OneArgs),
    /// Cancel a campaign; its waiting messages are not sent
    Cancel(OneArgs),
}

/// Arguments of `campaign send`.
#[derive(Debug, Args)]
pub struct SendFileArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// File to send: .csv, .ndjson or .jsonl
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Label of the campaign (default: the name of the file and today's date)
    #[arg(long, value_parser = parse::campaign)]
    cp_id: Option<String>,
    /// Send without a label of its own: lines may have theirs
    #[arg(long, conflicts_with = "cp_id")]
    no_cp_id: bool,
    /// Id of the line that sends
    #[arg(long, value_name = "V8L_ID", value_parser = parse::id(LineId))]
    app_id: Option<LineId>,
    /// Channel (default: the channel of each message's app_id)
    #[arg(long, value_parser = parse::class())]
    class: Option<Class>,
    /// Type of the messages: text, image, audio, video or (Messenger) file
    #[arg(long)]
    mtype: Option<String>,
    /// Text, or URL of the asset
    #[arg(long, value_name = "TEXT|URL")]
    mdata: Option<String>,
    /// Lane: high or bulk
    #[arg(long)]
    priority: Option<String>,
    /// Earliest time to send: RFC 3339 or Unix seconds (default: now)
    #[arg(long, value_name = "TIME")]
    send_at: Option<String>,
    /// Seconds after that time in which a message may be sent
    #[arg(long, value_name = "SECONDS")]
    valid_for: Option<u64>,
    /// Columns of a CSV that are no parameters and are passed over; without names, all of them
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    ignore_columns: Option<String>,
    /// Refuse lines whose recipient stands in an earlier line
    #[arg(long)]
    once_per_dest: bool,
    /// Name of the batch (default: a hash of file and options); the same name again sends only lines not logged yet
    #[arg(long, value_name = "NAME", value_parser = batch_id)]
    batch_id: Option<String>,
    /// Count the recipients by what is known of their windows, and log nothing
    #[arg(long)]
    check: bool,
}

/// A name to which the numbers of parts can be added.
fn batch_id(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_BATCH_ID_CHARS - PART_DIGITS).contains(&text.len());
    match fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "1 to {} printable ASCII characters without blanks",
            MAX_BATCH_ID_CHARS - PART_DIGITS
        )),
    }
}

pub async fn run(command: CampaignCommand, out: &Output) -> anyhow::Result<()> {
    match command {
        CampaignCommand::Send(arguments) => send(&arguments, out).await,
        CampaignCommand::List(args) => list(&args, out).await,
        CampaignCommand::Status(one) => ask(Method::GET, &one, "", out).await,
        CampaignCommand::Pause(one) => ask(Method::POST, &one, "/pause", out).await,
        CampaignCommand::Resume(one) => ask(Method::POST, &one, "/resume", out).await,
        CampaignCommand::Cancel(one) => ask(Method::POST, &one, "/cancel", out).await,
    }
}

/// The answers to a part.
struct PartAnswer {
    lines: Vec<LineAnswer>,
    logged_before: u64,
    not_utf8: u64,
}

/// The answer to one line of a part.
#[derive(Debug, Deserialize)]
struct LineAnswer {
    line: i64,
    cdls_id: Option<i64>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    status_code: i64,
    /// The reason of the answer, among others.
    #[serde(flatten)]
    more: Map<String, Value>,
}

async fn send(arguments: &SendFileArgs, out: &Output) -> anyhow::Result<()> {
    let remote = arguments.remote.connect()?;
    let path = &arguments.file;
    let format = format_of(path)?;
    if arguments.check {
        return reach::check(&remote, path, format, arguments.app_id, out).await;
    }
    let options = options(arguments);
    let open = || File::open(path).with_context(|| format!("{}: cannot be read", path.display()));
    // The batch's name does not hang on the day: the command that goes on after a cut may be tomorrow's.
    let (content, length) = name(open()?, &options)?;
    let label = default_label(arguments, OffsetDateTime::now_utc());
    let options = labelled(options, label.as_deref());
    let name = arguments.batch_id.as_ref().unwrap_or(&content);
    let file = BufReader::new(open()?);
    let mut parts = Parts::new(file, format).once_per_dest(arguments.once_per_dest);
    let shown = Shown::new(length);
    let mut sent = Sent { cp_id: label, ..Sent::default() };
    let mut number = 0;
    while let Some(part) = parts.next_part().with_context(|| path.display().to_string())? {
        number += 1;
        leave_out(&part, &mut sent, &shown);
        // Rows without a cell are no batch.
        if part.messages > 0 {
            let query = query(&options, &format!("{name}-{number}"), parts.separator());
            let answered = send_part(&remote, format, &query, &part).await?;
            count(answered, &part, &mut sent, &shown);
        }
        shown.advance(part.bytes, &sent);
    }
    if sent.lines == 0 {
        bail!("{}: no message in it", path.display());
    }
    shown.finish(&sent);
    out.answer(&sent, Sent::told)?;
    if sent.refused > 0 {
        let refused = format!(
            "{} of {} lines were refused; send them, repaired, in a file of their own: the changed file is another \
             batch, unless --batch-id names it",
            sent.refused, sent.lines
        );
        return Err(Answered(refused).into());
    }
    Ok(())
}

/// The label of a file that is sent without one: its name, and the date.
fn default_label(arguments: &SendFileArgs, now: OffsetDateTime) -> Option<String> {
    if arguments.cp_id.is_some() || arguments.no_cp_id {
        return None;
    }
    let stem = arguments.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let date = now.date().to_string();
    let kept: String = trimmed(&stem)
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_CP_ID_CHARS - date.len() - 1)
        .collect();
    Some(format!("{kept}-{date}"))
}

fn labelled(options: String, label: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(options);
    if let Some(label) = label {
        query.append_pair("cp_id", label);
    }
    query.finish()
}

/// Counts what a part leaves out.
fn leave_out(part: &Part, sent: &mut Sent, shown: &Shown) {
    sent.duplicates += part.repeated;
    for line in &part.left_out {
        let refused = LineAnswer {
            line: *line,
            cdls_id: None,
            status: "Invalid parameter: dest".to_owned(),
            status_code: 229,
            more: Map::from_iter([("detail".to_owned(), REPEATED.into())]),
        };
        refuse(&refused, 0, sent, shown);
    }
}

/// Counts what was answered to a part.
fn count(answered: PartAnswer, part: &Part, sent: &mut Sent, shown: &Shown) {
    sent.logged_before += answered.logged_before;
    sent.not_utf8 += answered.not_utf8;
    for answer in answered.lines {
        if answer.cdls_id.is_none() {
            refuse(&answer, part.lines_before, sent, shown);
        } else {
            sent.lines += 1;
            sent.logged += 1;
            note(&answer, part.lines_before, sent, shown);
        }
    }
}

fn refuse(answer: &LineAnswer, lines_before: i64, sent: &mut Sent, shown: &Shown) {
    sent.lines += 1;
    sent.refused += 1;
    if sent.refused <= TOLD {
        let line = lines_before + answer.line;
        let reason = reason(&answer.more).map(|reason| format!(": {reason}")).unwrap_or_default();
        let told = format!("line {line}: {} (status_code {}){reason}", answer.status, answer.status_code);
        shown.tell(&printable(&told));
    }
}

/// Print the note in the answer to a logged line, if it has one.
fn note(answer: &LineAnswer, lines_before: i64, sent: &mut Sent, shown: &Shown) {
    let Some(reason) = reason(&answer.more) else { return };
    sent.notes += 1;
    if sent.notes <= TOLD {
        shown.tell(&format!("line {}: {}", lines_before + answer.line, printable(&reason)));
    }
}

/// The query of a part: the defaults for every line, its name, and the separator that the file's header or its first
/// line has shown.
fn query(options: &str, name: &str, separator: Option<u8>) -> String {
    let mut query = form_urlencoded::Serializer::new(options.to_owned());
    query.append_pair("batch_id", name);
    if let Some(separator) = separator {
        query.append_pair("separator", &char::from(separator).to_string());
    }
    query.finish()
}

fn format_of(path: &Path) -> anyhow::Result<Format> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => Ok(Format::Csv),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        _ => bail!("{}: the name must end in .csv, .ndjson or .jsonl", path.display()),
    }
}

/// The defaults for every line, as a query.
fn options(arguments: &SendFileArgs) -> String {
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let given = [
        ("cp_id", arguments.cp_id.clone()),
        ("app_id", number(arguments.app_id.map(|line| line.0))),
        ("class", arguments.class.map(|class| class.to_string())),
        ("mtype", arguments.mtype.clone()),
        ("mdata", arguments.mdata.clone()),
        ("priority", arguments.priority.clone()),
        ("send_at", arguments.send_at.clone()),
        ("valid_for", arguments.valid_for.map(|seconds| seconds.to_string())),
        ("ignore_columns", arguments.ignore_columns.clone()),
        ("once_per_dest", arguments.once_per_dest.then(|| "1".to_owned())),
    ];
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in given {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    query.finish()
}

/// The batch's name, from the file's content and the options; and the file's length.
fn name(mut file: File, options: &str) -> anyhow::Result<(String, u64)> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(options.as_bytes());
    hash.update(&[0]);
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        hash.update(&buffer[..read]);
    }
    Ok((hex::encode(&hash.finish().as_ref()[..16]), length))
}

/// Sends a part until it is answered whole; its name makes that safe.
async fn send_part(remote: &Remote, format: Format, query: &str, part: &Part) -> anyhow::Result<PartAnswer> {
    let mut failures = 0;
    loop {
        match try_part(remote, format, query, part).await {
            Ok(answered) => return Ok(answered),
            Err(Failed::ForGood(error)) => return Err(error),
            Err(Failed::ForNow(error)) if failures + 1 == TRIES => {
                return Err(error.context("gave up; run the same command again within 24 hours to continue"));
            }
            Err(Failed::ForNow(_)) => tokio::time::sleep(PAUSES.delay(failures)).await,
        }
        failures += 1;
    }
}

enum Failed {
    ForNow(anyhow::Error),
    ForGood(anyhow::Error),
}

async fn try_part(remote: &Remote, format: Format, query: &str, part: &Part) -> Result<PartAnswer, Failed> {
    let content_type = match format {
        Format::Csv => "text/csv",
        Format::Ndjson => "application/x-ndjson",
    };
    let answer = remote
        .request(Method::POST, &format!("messages/batch?{query}"))
        .header(reqwest::header::CONTENT_TYPE, content_type)
        .timeout(PART_TIMEOUT)
        .body(part.body.clone())
        .send()
        .await
        .map_err(|error| Failed::ForNow(explain(error)))?;
    let busy = answer.status() == StatusCode::SERVICE_UNAVAILABLE;
    let answer = accepted(answer).await.map_err(|error| match busy {
        true => Failed::ForNow(error),
        false => Failed::ForGood(error),
    })?;
    if !answer.headers().contains_key("batch-id") {
        return Err(Failed::ForGood(anyhow::anyhow!(NOT_OURS)));
    }
    let counted = |name: &str| {
        let count = answer.headers().get(name).and_then(|count| count.to_str().ok()?.parse().ok());
        count.unwrap_or(0)
    };
    let (logged_before, not_utf8) = (counted("batch-logged-before"), counted("batch-not-utf8"));
    let text = answer.text().await.map_err(|error| Failed::ForNow(explain(error)))?;
    let lines: Result<Vec<LineAnswer>, _> =
        text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect();
    let lines =
        lines.map_err(|error| Failed::ForNow(anyhow::Error::from(error).context("an answer was cut")))?;
    if lines.iter().any(|answer| answer.cdls_id.is_none() && answer.status_code == 503) {
        return Err(Failed::ForNow(anyhow::anyhow!("temporarily unavailable (status_code 503)")));
    }
    Ok(PartAnswer { lines, logged_before, not_utf8 })
}
