//! `campaign`: sends a file of messages, and looks at and steers a campaign; over HTTP.
//!
//! A file goes in parts, each named after the file's content and the options (or as the user says) and its place. Sent
//! again under the same name, what was logged already is not logged twice: the same command again goes on after a cut.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

use super::check::explain;
use super::output::{Answered, Output, printable, tell_note};
use super::parse;
use super::parts::{Format, Part, Parts};
use super::remote::{Remote, RemoteArgs, accepted};
use crate::message::{Class, LineId, MAX_BATCH_ID_CHARS};

/// Refused lines that are told one by one.
const TOLD: u64 = 20;
/// Tries of a part before the command gives up, with pauses that double from the first to the longest.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const PART_TIMEOUT: Duration = Duration::from_secs(120);
/// Characters that `-` and the number of a part take of a batch's name.
const PART_DIGITS: usize = 10;

#[derive(Debug, Subcommand)]
pub enum CampaignCommand {
    /// Send a file of messages; safe to repeat for a day after an interruption
    #[command(
        after_help = "A CSV file begins with a header row of parameter names (dest, mdata, …). An NDJSON file has one \
                            JSON object a line, with the same names. The options are defaults for every line. The \
                            server remembers logged lines for ingest.idempotency_ttl (24 hours by default). A changed file, \
                            or the same file with other options, is a new batch, and all its lines are sent. To send \
                            repaired lines, put them into a file of their own, or name the batch with --batch-id \
                            from the beginning."
    )]
    Send(SendFileArgs),
    /// Show a campaign's progress
    Status(OneArgs),
    /// Pause a campaign
    Pause(OneArgs),
    /// Resume a paused campaign
    Resume(OneArgs),
    /// Cancel a campaign; its waiting messages are not sent
    Cancel(OneArgs),
}

/// One campaign, and the process to call.
#[derive(Debug, Args)]
pub struct OneArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Label of the campaign
    #[arg(value_name = "CP_ID", value_parser = parse::name)]
    cp_id: String,
}

/// Arguments of `campaign send`.
#[derive(Debug, Args)]
pub struct SendFileArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// File to send: .csv, .ndjson or .jsonl
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Label of the campaign
    #[arg(long)]
    cp_id: Option<String>,
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
    /// Name of the batch (default: a hash of file and options); the same name again sends only lines not logged yet
    #[arg(long, value_name = "NAME", value_parser = batch_id)]
    batch_id: Option<String>,
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
        CampaignCommand::Status(one) => ask(Method::GET, &one, "", out).await,
        CampaignCommand::Pause(one) => ask(Method::POST, &one, "/pause", out).await,
        CampaignCommand::Resume(one) => ask(Method::POST, &one, "/resume", out).await,
        CampaignCommand::Cancel(one) => ask(Method::POST, &one, "/cancel", out).await,
    }
}

async fn ask(method: Method, one: &OneArgs, command: &str, out: &Output) -> anyhow::Result<()> {
    let remote = one.remote.connect()?;
    let label = percent_encoding::utf8_percent_encode(&one.cp_id, percent_encoding::NON_ALPHANUMERIC);
    let request = remote.request(method, &format!("campaigns/{label}{command}"));
    let progress = remote.ask(request).await.with_context(|| format!("campaign {}", one.cp_id))?;
    out.answer(&progress, human)
}

fn human(progress: &Value) -> String {
    let counts = progress["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts
        .filter(|(_, rows)| rows.as_i64() != Some(0))
        .map(|(status, rows)| format!("{status} {rows}"))
        .collect();
    let mut text = format!(
        "campaign {}: {}\n{} messages: {}\nrate {}/s, eta {}",
        printable(progress["cp_id"].as_str().unwrap_or_default()),
        progress["state"].as_str().unwrap_or_default(),
        progress["total"],
        counts.join(", "),
        progress["rate"],
        progress["eta"].as_str().unwrap_or("none"),
    );
    if let Some(touched) = progress["touched"].as_i64() {
        text.push_str(&format!("\n{touched} messages touched"));
    }
    text
}

/// What became of a file.
#[derive(Debug, Default, Serialize)]
struct Sent {
    lines: u64,
    logged: u64,
    /// Of these, what an earlier sending had logged.
    logged_before: u64,
    refused: u64,
}

/// What was answered to a part.
struct PartAnswer {
    lines: Vec<LineAnswer>,
    logged_before: u64,
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
}

async fn send(arguments: &SendFileArgs, out: &Output) -> anyhow::Result<()> {
    let remote = arguments.remote.connect()?;
    let path = &arguments.file;
    let format = format_of(path)?;
    let options = options(arguments);
    let open = || File::open(path).with_context(|| format!("{}: cannot be read", path.display()));
    let (content, length) = name(open()?, &options)?;
    let name = arguments.batch_id.as_ref().unwrap_or(&content);
    let mut parts = Parts::new(BufReader::new(open()?), format);
    let shown = Shown::new(length);
    let mut sent = Sent::default();
    let mut number = 0;
    while let Some(part) = parts.next().with_context(|| path.display().to_string())? {
        number += 1;
        let part_name = form_urlencoded::Serializer::new(String::new())
            .append_pair("batch_id", &format!("{name}-{number}"))
            .finish();
        let query = format!("{options}&{part_name}");
        let answered = send_part(&remote, format, query.trim_start_matches('&'), &part).await?;
        sent.logged_before += answered.logged_before;
        for answer in answered.lines {
            sent.lines += 1;
            if answer.cdls_id.is_some() {
                sent.logged += 1;
                continue;
            }
            sent.refused += 1;
            if sent.refused <= TOLD {
                let line = part.lines_before + answer.line;
                let status = printable(&answer.status);
                shown.tell(&format!("line {line}: {status} (status_code {})", answer.status_code));
            }
        }
        shown.advance(part.bytes, &sent);
    }
    shown.finish(&sent);
    out.answer(&sent, told)?;
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

fn told(sent: &Sent) -> String {
    let new = sent.logged.saturating_sub(sent.logged_before);
    let before = match sent.logged_before {
        0 => String::new(),
        before => format!(", {before} were logged before"),
    };
    format!("{new} messages logged{before}, {} lines refused", sent.refused)
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
    let mut pause = FIRST_PAUSE;
    for tries_left in (0..TRIES).rev() {
        match try_part(remote, format, query, part).await {
            Ok(answered) => return Ok(answered),
            Err(Failed::ForGood(error)) => return Err(error),
            Err(Failed::ForNow(error)) if tries_left == 0 => {
                return Err(error.context("gave up; run the same command again within 24 hours to continue"));
            }
            Err(Failed::ForNow(_)) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    bail!("gave up; run the same command again within 24 hours to continue")
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
    let logged_before = answer.headers().get("batch-logged-before");
    let logged_before = logged_before.and_then(|rows| rows.to_str().ok()?.parse().ok()).unwrap_or(0);
    let text = answer.text().await.map_err(|error| Failed::ForNow(explain(error)))?;
    let lines: Result<Vec<LineAnswer>, _> =
        text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect();
    let lines =
        lines.map_err(|error| Failed::ForNow(anyhow::Error::from(error).context("an answer was cut")))?;
    if lines.iter().any(|answer| answer.cdls_id.is_none() && answer.status_code == 503) {
        return Err(Failed::ForNow(anyhow::anyhow!("temporarily unavailable (status_code 503)")));
    }
    Ok(PartAnswer { lines, logged_before })
}

/// A bar on a terminal; elsewhere a line a second.
struct Shown {
    bar: ProgressBar,
    is_terminal: bool,
    length: u64,
    started: Instant,
    told: std::cell::Cell<Instant>,
}

impl Shown {
    fn new(length: u64) -> Shown {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3}% {msg}, ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Shown { bar, is_terminal, length, started: now, told: std::cell::Cell::new(now) }
    }

    fn tell(&self, note: &str) {
        self.bar.suspend(|| tell_note(note));
    }

    fn advance(&self, bytes: u64, sent: &Sent) {
        self.bar.inc(bytes);
        self.bar.set_message(self.line(sent));
        if !self.is_terminal && self.told.get().elapsed() >= Duration::from_secs(1) {
            self.told.set(Instant::now());
            tell_note(&format!("{}, ETA {}s", self.line(sent), self.left().as_secs()));
        }
    }

    fn line(&self, sent: &Sent) -> String {
        let rate = sent.lines as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        format!("{} lines, {} refused, {rate:.0}/s", sent.lines, sent.refused)
    }

    fn left(&self) -> Duration {
        let done = self.bar.position().max(1);
        self.started.elapsed().mul_f64(self.length.saturating_sub(done) as f64 / done as f64)
    }

    fn finish(&self, sent: &Sent) {
        self.bar.finish_and_clear();
        if !self.is_terminal {
            tell_note(&self.line(sent));
        }
    }
}
