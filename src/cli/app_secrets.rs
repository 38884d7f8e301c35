//! The stored secrets of Meta's apps: their forms, and the sealing of them in place.
//!
//! Each secret is replaced where it still has the text that was read. Never here: a secret in an answer or an error.

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::seal::{self, KeyRing, OpenError, Purpose, is_sealed};
use crate::store::{AppField, AppRecord, Store, StoreError};
use crate::text::trimmed;

/// The stored secrets, by form: the app secret and the verify token of each app.
#[derive(Debug, Default, Serialize)]
pub struct StoredSecrets {
    apps: u64,
    plain: u64,
    /// Sealed secrets that a key of these settings opens.
    sealed: u64,
    cannot_open: Vec<Unopened>,
}

#[derive(Debug, Serialize)]
pub struct Unopened {
    meta_app_id: String,
    reason: String,
}

/// The result of a run over the stored secrets.
#[derive(Debug, Default, Serialize)]
pub struct SealedSecrets {
    sealed: u64,
    already: u64,
    failed: Vec<Unopened>,
    /// Secrets in plain that the command leaves alone.
    #[serde(skip)]
    pub plain: u64,
}

/// The secrets that a command seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppSecretChoice {
    Plain,
    OfOtherKeys,
}

/// One secret of an app, as stored.
struct Stored<'a> {
    app: &'a str,
    field: AppField,
    text: &'a SecretString,
}

impl Stored<'_> {
    fn purpose(&self) -> Purpose<'_> {
        match self.field {
            AppField::Secret => Purpose::AppSecret(self.app),
            AppField::VerifyToken => Purpose::VerifyToken(self.app),
        }
    }

    /// Return the text without white space, which other programs may have left.
    fn trimmed(&self) -> &str {
        trimmed(self.text.expose_secret())
    }

    fn opened(&self, keys: &KeyRing) -> Result<SecretString, OpenError> {
        keys.open(&self.trimmed().into(), self.purpose())
    }

    fn unopened(&self, refusal: &OpenError) -> Unopened {
        Unopened { meta_app_id: self.app.to_owned(), reason: refusal.of_app() }
    }
}

/// Return the secrets of apps that are not blank.
fn secrets(apps: &[AppRecord]) -> Vec<Stored<'_>> {
    let mut found = Vec::new();
    for app in apps {
        for (field, text) in [(AppField::Secret, &app.secret), (AppField::VerifyToken, &app.verify_token)] {
            found.extend(text.as_ref().map(|text| Stored { app: &app.id, field, text }));
        }
    }
    found.retain(|stored: &Stored<'_>| !stored.trimmed().is_empty());
    found
}

impl StoredSecrets {
    /// Count all stored secrets of apps.
    pub async fn count(store: &dyn Store, keys: &KeyRing) -> Result<StoredSecrets, StoreError> {
        Ok(StoredSecrets::of(&store.apps().await?, keys))
    }

    fn of(apps: &[AppRecord], keys: &KeyRing) -> StoredSecrets {
        let mut counted = StoredSecrets { apps: apps.len() as u64, ..StoredSecrets::default() };
        for stored in secrets(apps) {
            match stored.opened(keys) {
                Ok(_) if is_sealed(stored.trimmed()) => counted.sealed += 1,
                Ok(_) => counted.plain += 1,
                Err(refusal) => counted.cannot_open.push(stored.unopened(&refusal)),
            }
        }
        counted
    }

    /// Whether there is no app.
    pub fn is_empty(&self) -> bool {
        self.apps == 0
    }

    /// Return the counts as a text, with the remedies.
    pub fn human(&self, keys: &KeyRing) -> String {
        let mut text =
            format!("Secrets of {} apps: {} in plain, {} sealed.", self.apps, self.plain, self.sealed);
        if self.plain > 0 && keys.first().is_some() {
            text.push_str(
                "\nWarning: security.app_key is set, and some secrets are in plain: `key seal` seals them.",
            );
        }
        for Unopened { meta_app_id, reason } in &self.cannot_open {
            text.push_str(&format!(
                "\nWarning: a secret of app {meta_app_id} cannot be opened ({reason}), and its webhooks are refused: put the \
                 key into security.app_key, or add the app again."
            ));
        }
        text
    }
}

impl SealedSecrets {
    /// Seal the chosen secrets of all apps with the first key.
    pub async fn over(
        choice: AppSecretChoice,
        store: &dyn Store,
        keys: &KeyRing,
    ) -> anyhow::Result<SealedSecrets> {
        let mut done = SealedSecrets::default();
        let first = keys.first().context("setting security.app_key: no key is set")?;
        for stored in secrets(&store.apps().await?) {
            let text = stored.trimmed();
            let secret = match (choice, is_sealed(text)) {
                (AppSecretChoice::Plain, false) => SecretString::from(text),
                (AppSecretChoice::Plain, true) => {
                    done.already += 1;
                    continue;
                }
                (AppSecretChoice::OfOtherKeys, false) => {
                    done.plain += 1;
                    continue;
                }
                (AppSecretChoice::OfOtherKeys, true) => match stored.opened(keys) {
                    Ok(_) if seal::key_id(text) == Some(first.id()) => {
                        done.already += 1;
                        continue;
                    }
                    Ok(secret) => secret,
                    Err(refusal) => {
                        done.failed.push(stored.unopened(&refusal));
                        continue;
                    }
                },
            };
            let sealed = first.seal(&secret, stored.purpose());
            match store.swap_app_secret(stored.app, stored.field, stored.text, &sealed).await? {
                true => done.sealed += 1,
                false => done.failed.push(Unopened {
                    meta_app_id: stored.app.to_owned(),
                    reason: "its secret was changed meanwhile: run the command again".to_owned(),
                }),
            }
        }
        Ok(done)
    }

    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Return the result as lines of text.
    pub fn human(&self) -> Vec<String> {
        let counts = format!("secrets of apps sealed: {}; sealed already: {}", self.sealed, self.already);
        let failed =
            self.failed.iter().map(|failed| format!("app {}: {}", failed.meta_app_id, failed.reason));
        std::iter::once(counts).chain(failed).collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn ring(key: u8) -> KeyRing {
        KeyRing::new(&[[key; 32]])
    }

    fn app(id: &str, secret: &str, key: Option<u8>) -> AppRecord {
        let text = |purpose: Purpose<'_>| match key {
            Some(key) => ring(key).first().unwrap().seal(&secret.into(), purpose),
            None => secret.into(),
        };
        AppRecord {
            id: id.to_owned(),
            name: None,
            secret: Some(text(Purpose::AppSecret(id))),
            verify_token: Some(text(Purpose::VerifyToken(id))),
            created_at: datetime!(2026-11-23 14:15:20 UTC),
        }
    }

    #[test]
    fn secrets_are_counted_by_form() {
        let apps = [app("1", "s3cret", None), app("2", "s3cret", Some(1)), app("3", "s3cret", Some(2))];
        let counted = StoredSecrets::of(&apps, &ring(1));
        assert_eq!((counted.apps, counted.plain, counted.sealed, counted.cannot_open.len()), (3, 2, 2, 2));
        let text = counted.human(&ring(1));
        assert!(text.contains("`key seal`") && text.contains("app 3") && !text.contains("s3cret"), "{text}");
    }
}
