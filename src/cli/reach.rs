//! `campaign send --check`: counts the recipients of a file by what is known of them, before anything is logged.
//!
//! The file is read here, and its recipients are asked about in parts: a file of any length, in bounded memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::campaign::{PAUSES, TRIES};
use super::output::{Output, Refused};
use super::remote::Remote;
use super::screen::Screen;
use super::table::{Column, Table};
use crate::batch::{Addressed, Format, Named, Recipients};
use crate::domain::{LineId, MAX_DEST_CHARS};

/// Recipients of one request, and the bytes of their ids: within the bounds of the call.
const AT_ONCE: usize = 1_000;
const BYTES_AT_ONCE: usize = 32 * 1024;
/// Bytes of a request for each recipient, beside the id.
const OVERHEAD: usize = 48;

/// The recipients of a file, counted.
#[derive(Debug, Default, Serialize)]
struct Reach {
    messages: u64,
    /// Different recipients; each counts once for a line.
    recipients: u64,
    open: i64,
    closed: i64,
    unknown: i64,
    unreachable: i64,
    /// Recipients whose line the account does not have.
    not_found: u64,
    /// Messages that name no recipient or no line, or not as an id.
    unreadable: u64,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Line {
    app_id: i64,
    open: i64,
    closed: i64,
    unknown: i64,
    unreachable: i64,
}

/// The answer to one request.
#[derive(Debug, Deserialize)]
struct Answer {
    lines: Vec<Line>,
    not_found: u64,
}

/// A recipient to be asked about.
#[derive(Debug, Serialize)]
struct Asked {
    app_id: i64,
    dest: String,
}

/// Count the recipients of a file. `line`: the line of messages that name none.
pub async fn check(
    remote: &Remote,
    path: &Path,
    format: Format,
    line: Option<LineId>,
    out: &Output,
) -> anyhow::Result<()> {
    let named = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut addressed = Addressed::new(BufReader::new(file), format);
    let (mut reach, mut lines) = (Reach::default(), BTreeMap::new());
    let mut seen = Recipients::default();
    let (mut asked, mut bytes) = (Vec::new(), 0);
    while let Some(recipient) = addressed.next_recipient().with_context(named)? {
        reach.messages += 1;
        let Some(recipient) = recipient.and_then(|recipient| to_ask(recipient, line)) else {
            reach.unreadable += 1;
            continue;
        };
        if seen.remember(seen.recipient("", &recipient.app_id.to_string(), &recipient.dest)) {
            continue;
        }
        reach.recipients += 1;
        bytes += recipient.dest.len() + OVERHEAD;
        asked.push(recipient);
        if asked.len() == AT_ONCE || bytes >= BYTES_AT_ONCE {
            reach.add(ask(remote, &asked).await?, &mut lines);
            (asked, bytes) = (Vec::new(), 0);
        }
    }
    if reach.messages == 0 {
        bail!("{}: no message in it", path.display());
    }
    if !asked.is_empty() {
        reach.add(ask(remote, &asked).await?, &mut lines);
    }
    reach.lines = lines.into_values().collect();
    out.answer(&reach, |reach| reach.told(out.screen))
}

/// Return the recipient as the server is asked about it; `None` if no message can have it.
fn to_ask(named: Named, line: Option<LineId>) -> Option<Asked> {
    let app_id = if named.line.is_empty() { line?.0 } else { named.line.parse().ok()? };
    let fits = app_id > 0 && named.dest.chars().count() <= MAX_DEST_CHARS && !named.dest.contains('\0');
    fits.then_some(Asked { app_id, dest: named.dest })
}

/// Ask about recipients, again while the server is busy.
async fn ask(remote: &Remote, recipients: &[Asked]) -> anyhow::Result<Answer> {
    let mut failures = 0;
    loop {
        let request =
            remote.request(Method::POST, "recipients/check").json(&json!({"recipients": recipients}));
        match remote.ask(request, "lines").await {
            Ok(answer) => return serde_json::from_value(answer).context("the answer cannot be read"),
            Err(error) if is_busy(&error) && failures + 1 < TRIES => {
                tokio::time::sleep(PAUSES.delay(failures)).await;
                failures += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|Refused(answer)| answer["status_code"] == 503)
}

impl Reach {
    fn add(&mut self, answer: Answer, lines: &mut BTreeMap<i64, Line>) {
        self.not_found += answer.not_found;
        for counted in answer.lines {
            let line =
                lines.entry(counted.app_id).or_insert(Line { app_id: counted.app_id, ..Line::default() });
            for (sums, counts) in [
                (&mut line.open, counted.open),
                (&mut line.closed, counted.closed),
                (&mut line.unknown, counted.unknown),
                (&mut line.unreachable, counted.unreachable),
                (&mut self.open, counted.open),
                (&mut self.closed, counted.closed),
                (&mut self.unknown, counted.unknown),
                (&mut self.unreachable, counted.unreachable),
            ] {
                *sums += counts;
            }
        }
    }

    fn told(&self, screen: Screen) -> String {
        const COLUMNS: [Column; 5] = [
            Column::number("LINE"),
            Column::number("OPEN"),
            Column::number("CLOSED"),
            Column::number("UNKNOWN"),
            Column::number("UNREACHABLE"),
        ];
        let mut table = Table::new(&COLUMNS, screen);
        for line in &self.lines {
            let cells = [line.app_id, line.open, line.closed, line.unknown, line.unreachable];
            let cells = cells.map(|number| number.to_string());
            table.add(cells.each_ref().map(String::as_str));
        }
        let some =
            |count: u64, text: &str| if count == 0 { String::new() } else { format!(", {count} {text}") };
        format!(
            "{}\n{} messages to {} recipients{}{}; nothing was logged",
            table.render().trim_end(),
            self.messages,
            self.recipients,
            some(self.not_found, "of lines that the account does not have"),
            some(self.unreadable, "messages without a line or a recipient"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str, dest: &str) -> Named {
        Named { campaign: String::new(), line: line.into(), dest: dest.into() }
    }

    #[test]
    fn line_of_the_option_is_the_default() {
        let app_id = |named, line| to_ask(named, line).map(|asked| asked.app_id);
        assert_eq!(app_id(named("", "253"), Some(LineId(7))), Some(7));
        assert_eq!(app_id(named("8", "253"), Some(LineId(7))), Some(8));
        assert_eq!(app_id(named("", "253"), None), None);
        assert_eq!(app_id(named("x", "253"), Some(LineId(7))), None);
    }

    #[test]
    fn parts_add_up_for_each_line() {
        let (mut reach, mut lines) =
            (Reach { messages: 5, recipients: 4, ..Reach::default() }, BTreeMap::new());
        let line = Line { app_id: 7, open: 1, closed: 0, unknown: 1, unreachable: 0 };
        reach.add(Answer { lines: vec![line], not_found: 0 }, &mut lines);
        reach.add(Answer { lines: vec![Line { closed: 2, ..line }], not_found: 1 }, &mut lines);
        assert_eq!((reach.open, reach.closed, reach.unknown, reach.not_found), (2, 2, 2, 1));
        reach.lines = lines.into_values().collect();
        assert_eq!(reach.lines.len(), 1);
        let told = reach.told(Screen { width: Some(80), colours: false });
        assert!(told.contains("UNREACHABLE") && told.contains("1 of lines that"), "{told}");
        assert!(told.ends_with("nothing was logged"), "{told}");
    }
}
