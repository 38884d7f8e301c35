//! The forms in which page tokens are stored: plain, sealed, or sealed so that no key of these settings opens them.
//!
//! Never here: a token, or a change of one.

use secrecy::ExposeSecret;
use serde::Serialize;

use super::key::BATCH;
use crate::domain::LineId;
use crate::seal::{KeyRing, Purpose, is_sealed};
use crate::store::{Store, StoreError};
use crate::text::trimmed;

/// Lines that a text names at most.
const SHOWN: usize = 10;

/// The stored page tokens, by form.
#[derive(Debug, Default, Serialize)]
pub struct StoredTokens {
    plain: u64,
    /// Sealed tokens that a key of these settings opens.
    sealed: u64,
    cannot_open: Vec<Unopened>,
}

#[derive(Debug, Serialize)]
struct Unopened {
    v8l_id: LineId,
    reason: String,
}

impl StoredTokens {
    /// Count all stored page tokens.
    pub async fn count(store: &dyn Store, keys: &KeyRing) -> Result<StoredTokens, StoreError> {
        let mut counted = StoredTokens::default();
        let mut after = LineId(0);
        loop {
            let tokens = store.page_tokens(after, BATCH).await?;
            let Some(last) = tokens.last() else { return Ok(counted) };
            after = last.line;
            for token in &tokens {
                counted.add(token.line, trimmed(token.text.expose_secret()), keys);
            }
        }
    }

    fn add(&mut self, line: LineId, text: &str, keys: &KeyRing) {
        if !is_sealed(text) {
            self.plain += 1;
            return;
        }
        match keys.open(&text.into(), Purpose::PageToken(line)) {
            Ok(_) => self.sealed += 1,
            Err(refusal) => {
                self.cannot_open.push(Unopened { v8l_id: line, reason: refusal.to_string() });
            }
        }
    }

    /// Return the counts as a text, with the remedies.
    pub fn human(&self, keys: &KeyRing) -> String {
        let mut text = format!("Page tokens: {} in plain, {} sealed.", self.plain, self.sealed);
        if self.plain > 0 && keys.first().is_some() {
            text.push_str(
                "\nWarning: security.key is set, and some tokens are in plain: `key seal` seals them.",
            );
        }
        if self.cannot_open.is_empty() {
            return text;
        }
        text.push_str(&format!(
            "\nWarning: some tokens cannot be opened ({}), and their lines wait: put the missing key into security.key, or \
             replace the token with `line set-pat`.",
            self.cannot_open.len()
        ));
        for Unopened { v8l_id, reason } in self.cannot_open.iter().take(SHOWN) {
            text.push_str(&format!("\n  line {v8l_id}: {reason}"));
        }
        if self.cannot_open.len() > SHOWN {
            text.push_str("\n  … (all with --json)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(key: u8) -> KeyRing {
        KeyRing::new(&[[key; 32]])
    }

    fn sealed(line: i64, key: u8) -> String {
        let purpose = Purpose::PageToken(LineId(line));
        ring(key).first().unwrap().seal(&"EAAsecret".into(), purpose).expose_secret().to_owned()
    }

    #[test]
    fn tokens_are_counted_by_form() {
        let mut counted = StoredTokens::default();
        for (line, text) in
            [(1, "EAAsecret".to_owned()), (2, sealed(2, 1)), (3, sealed(3, 2)), (4, sealed(2, 1))]
        {
            counted.add(LineId(line), &text, &ring(1));
        }
        let lines: Vec<LineId> = counted.cannot_open.iter().map(|unopened| unopened.v8l_id).collect();
        assert_eq!((counted.plain, counted.sealed, lines), (1, 1, vec![LineId(3), LineId(4)]));
        let text = counted.human(&ring(1));
        assert!(
            text.starts_with("Page tokens: 1 in plain, 1 sealed.\nWarning: ") && !text.contains("EAA"),
            "{text}"
        );
        assert!(
            text.contains("`key seal`") && text.contains("line 3: key ") && text.contains("line 4: "),
            "{text}"
        );
    }

    #[test]
    fn plain_tokens_without_a_key_are_no_warning() {
        let mut counted = StoredTokens::default();
        counted.add(LineId(1), "EAAsecret", &KeyRing::default());
        assert_eq!(counted.human(&KeyRing::default()), "Page tokens: 1 in plain, 0 sealed.");
    }
}
