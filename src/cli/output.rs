//! Where a command's answer goes: standard output, as a table for people or as JSON for programs.
//!
//! A reader that has had enough (`| head`) ends the command quietly. Texts from callers are shown without control
//! characters, so that no message can move the cursor of an operator's terminal.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::screen::Screen;

/// How long a last line may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How this invocation answers.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON object instead of text.
    pub json: bool,
    /// The screen that a table has to fit.
    pub screen: Screen,
}

impl Output {
    pub fn new(json: bool) -> Output {
        Output { json, screen: Screen::stdout() }
    }

    /// Answers with `value` as JSON, or with the text that `human` makes of it.
    pub fn answer<T: Serialize>(&self, value: &T, human: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json { self.json(value) } else { self.text(&human(value)) }
    }

    /// Writes one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        write(&line)
    }

    /// Writes a text and a line end.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        write(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// A failure that the command's answer has shown already; what is left is the exit code, and a line for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Answered(pub String);

/// A refusal, or a message that has ended as ERROR: the envelope's `return`.
#[derive(Debug, thiserror::Error)]
#[error("{}", refusal(.0))]
pub struct Refused(pub Value);

fn refusal(answer: &Value) -> String {
    let status = answer["status"].as_str().unwrap_or_default();
    let row = match answer["cdls_id"].as_i64() {
        None | Some(0) => String::new(),
        Some(id) => format!("; it is message {id}"),
    };
    let reason = answer.as_object().and_then(reason).map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("refused: {status} (status_code {}){row}{reason}", answer["status_code"])
}

/// The reason that an answer gives, in one line: `detail`, and `error_*` of a message that Graph refused or that has ended.
/// Not yet printable: the texts are others'.
pub fn reason(answer: &Map<String, Value>) -> Option<String> {
    let shown = |name: &&str| match answer.get(*name) {
        None | Some(Value::Null) => None,
        Some(Value::String(word)) => Some(format!("{name} {word}")),
        Some(number) => Some(format!("{name} {number}")),
    };
    let codes: Vec<String> = ["error_kind", "error_code", "error_subcode"].iter().filter_map(shown).collect();
    let codes = Some(codes.join(", ")).filter(|codes| !codes.is_empty());
    let message = answer.get("error_message").and_then(Value::as_str);
    let error: Vec<&str> = codes.as_deref().into_iter().chain(message).collect();
    let error = Some(error.join(": ")).filter(|error| !error.is_empty());
    let detail = answer.get("detail").and_then(Value::as_str).filter(|detail| !detail.is_empty());
    let parts: Vec<&str> = detail.into_iter().chain(error.as_deref()).collect();
    Some(parts.join(" ")).filter(|reason| !reason.is_empty())
}

/// Whether the command ended because nobody reads its output any more.
pub fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells an error: on standard error, as one line; for programs (`json`) as the answer too, if there was none.
pub fn tell_error(error: &anyhow::Error, json: bool) {
    if json && error.downcast_ref::<Answered>().is_none() {
        let answer = match error.downcast_ref::<Refused>() {
            Some(Refused(answer)) => answer.clone(),
            None => serde_json::json!({"error": format!("{error:#}")}),
        };
        // The reader is gone: the exit code remains.
        let _ = write(format!("{answer}\n").as_bytes());
    }
    say_at_last(format!("error: {}\n", printable(&format!("{error:#}").replace('\n', " "))));
}

/// Writes on standard error before the program ends. One that is not read, or closed, holds the end up for a moment at
/// most; the exit code remains.
fn say_at_last(line: String) {
    let (done, is_done) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if saying.is_ok() {
        let _ = is_done.recv_timeout(LAST_WORDS);
    }
}

/// Asks on the terminal, and says whether the answer is yes. Where nobody can answer, it is.
pub fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    tell_note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Tells something beside the answer, on standard error.
pub fn tell_note(note: &str) {
    let _ = writeln!(io::stderr(), "{note}");
}

/// The text on one line: control characters, and those that reorder the text around them, are written as escapes.
pub fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .map(|c| if harmful(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect::<String>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(printable("two\nlines \u{1b}[2Jé"), "two\\nlines \\u{1b}[2Jé");
        assert_eq!(printable("plain é 👍"), "plain é 👍");
        assert_eq!(printable("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
    }
    #[test]
    fn reason_holds_detail_and_error() {
        let told = |answer: Value| reason(answer.as_object().expect("an object"));
        assert_eq!(told(serde_json::json!({"status": "OK", "detail": null})), None);
        assert_eq!(told(serde_json::json!({"detail": "Say who."})).as_deref(), Some("Say who."));
        let error = serde_json::json!({
            "detail": "Graph refused the message.", "error_kind": "refused", "error_code": 551,
            "error_subcode": 1_545_041, "error_message": "(#551) This person isn't available",
        });
        let expected = "Graph refused the message. error_kind refused, error_code 551, error_subcode 1545041: (#551) This \
                        person isn't available";
        assert_eq!(told(error).as_deref(), Some(expected));
        assert_eq!(told(serde_json::json!({"error_message": "no answer"})).as_deref(), Some("no answer"));
    }
}
