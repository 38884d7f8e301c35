//! Refusals of one line under a code that the table does not know.
//!
//! A code about messages is met now and then; a code about the line is met by each message. After a few in a
//! row, to different recipients and with no message sent between, the line counts as refused, and its backlog
//! is not spent on finding out.

use std::collections::BTreeSet;

/// Such refusals since the line's last success.
#[derive(Debug, Default)]
pub struct UnlistedStreak {
    code: Option<i32>,
    recipients: BTreeSet<String>,
}

impl UnlistedStreak {
    /// Record a refused message to this recipient. Return whether the line is refused: after `limit`
    /// recipients, and then with each further one.
    pub fn refused(&mut self, code: Option<i32>, dest: &str, limit: u32) -> bool {
        let limit = limit as usize;
        if limit == 0 {
            return false;
        }
        if self.code != code {
            *self = UnlistedStreak { code, ..UnlistedStreak::default() };
        }
        if self.recipients.len() < limit {
            self.recipients.insert(dest.to_owned());
        }
        self.recipients.len() >= limit
    }

    /// Record that Graph took a message of the line.
    pub fn succeeded(&mut self) {
        *self = UnlistedStreak::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(streak: &mut UnlistedStreak, code: i32, dest: &str) -> bool {
        streak.refused(Some(code), dest, 3)
    }

    #[test]
    fn ends_in_a_refused_line_after_so_many_recipients() {
        let mut streak = UnlistedStreak::default();
        let said: Vec<bool> =
            ["a", "b", "c", "d", "a"].iter().map(|dest| refused(&mut streak, 7, dest)).collect();
        assert_eq!(said, [false, false, true, true, true]);
    }

    #[test]
    fn one_recipient_is_not_the_line() {
        let mut streak = UnlistedStreak::default();
        assert!((0..20).all(|_| !refused(&mut streak, 7, "ann")));
    }

    #[test]
    fn another_code_or_a_success_begins_anew() {
        let mut streak = UnlistedStreak::default();
        assert!(!refused(&mut streak, 7, "a") && !refused(&mut streak, 7, "b"));
        assert!(!refused(&mut streak, 8, "c") && !refused(&mut streak, 8, "d"));
        streak.succeeded();
        assert!(!refused(&mut streak, 8, "e"));
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let mut streak = UnlistedStreak::default();
        assert!((0..20).all(|n| !streak.refused(Some(7), &n.to_string(), 0)));
    }
}
