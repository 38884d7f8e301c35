//! The result of a file that `campaign send` sends: its counts, and their display meanwhile.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::output::{printable, tell_note};

/// The result of a file.
#[derive(Debug, Default, Serialize)]
pub struct Sent {
    /// The label that the command gave the messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cp_id: Option<String>,
    pub lines: u64,
    pub logged: u64,
    /// Of these, what an earlier sending had logged.
    pub logged_before: u64,
    pub refused: u64,
    /// Lines whose recipient stands in an earlier one.
    pub duplicates: u64,
    /// Values that were not UTF-8, and were read as windows-1252.
    pub not_utf8: u64,
    /// Logged lines whose answer says more.
    #[serde(skip)]
    pub notes: u64,
}

impl Sent {
    /// In one line.
    pub fn told(&self) -> String {
        let some =
            |count: u64, text: &str| if count == 0 { String::new() } else { format!(", {count} {text}") };
        format!(
            "{} messages logged{}, {} lines refused{}{}{}",
            self.logged.saturating_sub(self.logged_before),
            some(self.logged_before, "were logged before"),
            self.refused,
            some(self.duplicates, "lines repeat a recipient"),
            some(self.not_utf8, "values are not UTF-8 and were read as windows-1252"),
            self.cp_id.as_ref().map(|label| format!("\ncampaign {}", printable(label))).unwrap_or_default(),
        )
    }
}

/// A bar on a terminal; elsewhere a line a second.
pub struct Shown {
    bar: ProgressBar,
    is_terminal: bool,
    length: u64,
    started: Instant,
    told: std::cell::Cell<Instant>,
}

impl Shown {
    pub fn new(length: u64) -> Shown {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3}% {msg}, ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let now = Instant::now();
        Shown { bar, is_terminal, length, started: now, told: std::cell::Cell::new(now) }
    }

    pub fn tell(&self, note: &str) {
        self.bar.suspend(|| tell_note(note));
    }

    pub fn advance(&self, bytes: u64, sent: &Sent) {
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

    pub fn finish(&self, sent: &Sent) {
        self.bar.finish_and_clear();
        if !self.is_terminal {
            tell_note(&self.line(sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_tells_what_was_odd() {
        let plain = Sent { lines: 2, logged: 2, ..Sent::default() };
        assert_eq!(plain.told(), "2 messages logged, 0 lines refused");
        let odd = Sent {
            lines: 9,
            logged: 7,
            logged_before: 3,
            refused: 2,
            duplicates: 1,
            not_utf8: 4,
            ..Sent::default()
        };
        assert_eq!(
            odd.told(),
            "4 messages logged, 3 were logged before, 2 lines refused, 1 lines repeat a recipient, 4 values are not \
             UTF-8 and were read as windows-1252"
        );
    }
}
