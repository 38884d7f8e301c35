//! The windows of recipients: open for a time after they wrote, and enforced on demand.
//!
//! Never here: what a person wrote (`conversations.rs`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::identities::Object;
use super::refusal::{INSTAGRAM_WINDOW_CLOSED, PlayedError, WINDOW_CLOSED};

/// The rules, as `PUT /simulator/windows` gives them.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowRules {
    pub enforced: bool,
    /// How long a window stays open.
    pub hours: f64,
    /// The window of a recipient who never wrote.
    pub unknown: UnknownWindow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownWindow {
    #[default]
    Closed,
    Open,
}

impl Default for WindowRules {
    fn default() -> WindowRules {
        WindowRules { enforced: false, hours: 24.0, unknown: UnknownWindow::Closed }
    }
}

impl WindowRules {
    /// Return what is wrong with the rules.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.hours > 0.0 && self.hours <= 10_000.0 {
            Ok(())
        } else {
            Err("hours: must be above 0".to_owned())
        }
    }
}

/// The windows by account and recipient. Times are Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Windows {
    rules: WindowRules,
    until: BTreeMap<(String, String), u64>,
}

impl Windows {
    pub fn put(&mut self, rules: WindowRules) {
        self.rules = rules;
    }

    /// Close all windows.
    pub fn reset(&mut self) {
        self.until.clear();
    }

    /// Open the window of a person who wrote, and return its end.
    pub fn open(&mut self, account: &str, dest: &str, at: u64) -> u64 {
        let until = at + (self.rules.hours * 3_600_000.0) as u64;
        let kept = self.until.entry((account.to_owned(), dest.to_owned())).or_default();
        *kept = until.max(*kept);
        *kept
    }

    /// Return the refusal of a message to this recipient.
    pub fn refusal(&self, object: Object, account: &str, dest: &str, now: u64) -> Option<PlayedError> {
        if !self.rules.enforced {
            return None;
        }
        let is_open = match self.until.get(&(account.to_owned(), dest.to_owned())) {
            Some(until) => now < *until,
            None => self.rules.unknown == UnknownWindow::Open,
        };
        (!is_open).then_some(match object {
            Object::Page => WINDOW_CLOSED,
            Object::Instagram => INSTAGRAM_WINDOW_CLOSED,
        })
    }

    /// Return the rules and the open windows.
    pub fn listed(&self, now: u64) -> Value {
        let WindowRules { enforced, hours, unknown } = self.rules;
        let is_open = |(_, until): &(&(String, String), &u64)| **until > now;
        let open: Vec<Value> = self
            .until
            .iter()
            .filter(is_open)
            .map(|((account, dest), until)| json!({ "account": account, "dest": dest, "until_ms": until }))
            .collect();
        json!({ "enforced": enforced, "hours": hours, "unknown": unknown, "open": open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn window_is_open_for_its_hours() {
        let mut windows = Windows::default();
        assert_eq!(windows.refusal(Object::Page, "1001", "ana", 0), None);
        windows.put(WindowRules { enforced: true, ..WindowRules::default() });
        assert_eq!(windows.refusal(Object::Page, "1001", "ana", 0), Some(WINDOW_CLOSED));
        assert_eq!(windows.open("1001", "ana", HOUR), 25 * HOUR);
        assert_eq!(windows.refusal(Object::Page, "1001", "ana", 25 * HOUR - 1), None);
        assert_eq!(windows.refusal(Object::Page, "1001", "ana", 25 * HOUR), Some(WINDOW_CLOSED));
        assert_eq!(windows.refusal(Object::Page, "1002", "ana", HOUR), Some(WINDOW_CLOSED));
        let instagram = windows.refusal(Object::Instagram, "1784", "ana", HOUR);
        assert_eq!(instagram, Some(INSTAGRAM_WINDOW_CLOSED));
    }

    #[test]
    fn unknown_recipient_may_be_inside() {
        let mut windows = Windows::default();
        windows.put(WindowRules { enforced: true, hours: 0.5, unknown: UnknownWindow::Open });
        assert_eq!(windows.refusal(Object::Page, "1", "ana", 0), None);
        windows.open("1", "ana", 0);
        assert_eq!(windows.refusal(Object::Page, "1", "ana", HOUR), Some(WINDOW_CLOSED));
        assert_eq!(windows.listed(0)["open"][0]["until_ms"], HOUR / 2);
    }
}
