//! The secret of the app that a line names: the text of its record, and the secret opened. A record that is read again
//! with the same text keeps the opened secret.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::actor::Line;
use crate::graph::AppSecret;
use crate::seal::{KeyRing, Purpose};
use crate::store::LineRecord;

/// The secret of a line's own app.
pub(super) struct LineSecret {
    app: String,
    stored: SecretString,
    /// `None`: the text does not open.
    opened: Option<Arc<AppSecret>>,
}

impl Line {
    /// Note the secret of the app that the record names; [`configure`](Line::configure) gives it to the sender.
    pub fn note_app(&mut self, record: &LineRecord, keys: &KeyRing) {
        let before = self.app_secret.take();
        let (Some(app), Some(stored)) = (&record.meta_app, &record.app_secret) else { return };
        let is_same = |before: &LineSecret| {
            before.app == *app && before.stored.expose_secret() == stored.expose_secret()
        };
        if let Some(before) = before.filter(is_same) {
            self.app_secret = Some(before);
            return;
        }
        let opened = match keys.open(stored, Purpose::AppSecret(app)) {
            Ok(secret) => AppSecret::of(&secret).map(Arc::new),
            Err(error) => {
                let reason = error.of_app();
                tracing::warn!(line = %self.id, app, reason, "secret of the app cannot be opened: calls go without its proof; put its key into security.app_key and restart, or set the secret again with `app add`");
                None
            }
        };
        self.app_secret = Some(LineSecret { app: app.clone(), stored: stored.clone(), opened });
    }

    /// Return the secret for calls.
    pub(super) fn own_app_secret(&self) -> Option<Arc<AppSecret>> {
        self.app_secret.as_ref().and_then(|secret| secret.opened.clone())
    }
}
