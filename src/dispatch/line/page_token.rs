//! The page token of a line: the text of its record, and the token opened. A record that is read again with the
//! same text keeps the opened token; only a changed text is opened.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::seal::{KeyRing, OpenError, Purpose};
use crate::store::LineRecord;

/// A page token that is not blank.
pub struct PageToken {
    stored: SecretString,
    opened: Result<Arc<SecretString>, OpenError>,
}

impl PageToken {
    /// Return the token of a record, if it has one. `before`: the token of the record as it was read before.
    pub fn of(record: &LineRecord, before: Option<PageToken>, keys: &KeyRing) -> Option<PageToken> {
        let stored = record.page_token.as_ref().filter(|token| !token.expose_secret().trim().is_empty())?;
        let is_same = |before: &PageToken| before.stored.expose_secret() == stored.expose_secret();
        if let Some(before) = before.filter(is_same) {
            return Some(before);
        }
        let opened = keys.open(stored, Purpose::PageToken(record.id)).map(Arc::new);
        if let Err(reason) = &opened {
            tracing::warn!(line = %record.id, %reason, "page token cannot be opened: line waits; put its key into security.key and restart, or replace the token with `line set-pat`");
        }
        Some(PageToken { stored: stored.clone(), opened })
    }

    /// Return the token for calls, if it could be opened.
    pub fn opened(&self) -> Option<Arc<SecretString>> {
        self.opened.as_ref().ok().cloned()
    }

    /// Return the reason why the token could not be opened.
    pub fn refusal(&self) -> Option<&OpenError> {
        self.opened.as_ref().err()
    }
}
