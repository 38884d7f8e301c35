//! The secrets that decide about a request of Meta: those of the settings, and those of each stored app.
//!
//! The list of apps is read every few seconds, and once more for a request that no known secret fits: a new app is usable
//! at once, and one that was removed is refused within ten seconds. While the database is away, the last list stays in use.
//! Never here: the decision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{sleep_until, timeout};

use crate::seal::{KeyRing, OpenError, Purpose};
use crate::settings::{Settings, SettingsError};
use crate::store::{AppRecord, SharedStore, StoreError};

/// Well below the ten seconds in which a change has to take effect.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Requests that fit no known secret read the list at most so often, all together; one that comes earlier waits.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long a request waits for the list.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The secrets of one app, or of the settings.
pub struct AppSecrets {
    /// `None`: the settings.
    pub id: Option<String>,
    /// The key of signatures.
    pub signs: Option<hmac::Key>,
    pub verify_token: Option<SecretString>,
}

/// The secrets that are known, those of the settings first.
pub type KnownSecrets = Arc<Vec<AppSecrets>>;

pub struct Apps {
    store: SharedStore,
    keys: KeyRing,
    app_secret: SecretString,
    verify_token: SecretString,
    known: RwLock<Known>,
    reading: tokio::sync::Mutex<()>,
    /// Apps with a secret that does not open, which were told of.
    unopened: Mutex<BTreeSet<String>>,
}

struct Known {
    secrets: KnownSecrets,
    read_at: Option<Instant>,
}

impl Apps {
    /// Create the list with the secrets of the settings alone.
    pub fn new(store: SharedStore, settings: &Settings) -> Result<Apps, SettingsError> {
        let keys = settings.security.app_keys()?;
        let apps = Apps {
            store,
            keys: KeyRing::new(keys.iter().map(|key| &**key)),
            app_secret: settings.graph.app_secret.clone(),
            verify_token: settings.webhooks.verify_token.clone(),
            known: RwLock::new(Known { secrets: Arc::default(), read_at: None }),
            reading: tokio::sync::Mutex::default(),
            unopened: Mutex::default(),
        };
        apps.known.write().secrets = Arc::new(vec![apps.of_settings()]);
        Ok(apps)
    }

    /// Read the list. Return the pause before the next time.
    pub async fn follow(&self) -> Duration {
        if let Err(error) = self.read().await {
            tracing::debug!(%error, "apps cannot be read: the last list stays in use");
        }
        READ_EVERY
    }

    pub fn known(&self) -> KnownSecrets {
        self.known.read().secrets.clone()
    }

    /// Return the secrets as they are now, for a request that no known one fits.
    pub async fn look_again(&self) -> Result<KnownSecrets, StoreError> {
        let asked = Instant::now();
        let look = async {
            // One reads, and the others that came before have what it has read.
            let _one_at_a_time = self.reading.lock().await;
            let read_at = self.known.read().read_at;
            if read_at.is_none_or(|at| at < asked) {
                if let Some(at) = read_at {
                    sleep_until((at + READ_AGAIN_AFTER).into()).await;
                }
                self.read().await?;
            }
            Ok::<_, StoreError>(self.known())
        };
        match timeout(READ_TIMEOUT, look).await {
            Ok(looked) => looked,
            Err(_) => Err(StoreError::Unavailable("no list of apps in time".to_owned())),
        }
    }

    async fn read(&self) -> Result<(), StoreError> {
        let read_at = Instant::now();
        let records = self.store.apps().await?;
        let mut secrets = vec![self.of_settings()];
        secrets.extend(records.iter().map(|record| self.opened(record)));
        *self.known.write() = Known { secrets: Arc::new(secrets), read_at: Some(read_at) };
        Ok(())
    }

    fn of_settings(&self) -> AppSecrets {
        AppSecrets {
            id: None,
            signs: key(&self.app_secret),
            verify_token: Some(self.verify_token.clone()).filter(|token| !token.expose_secret().is_empty()),
        }
    }

    fn opened(&self, record: &AppRecord) -> AppSecrets {
        let open = |stored: &Option<SecretString>, purpose: Purpose<'_>| {
            stored.as_ref().map(|stored| self.keys.open(stored, purpose)).transpose()
        };
        let secret = open(&record.secret, Purpose::AppSecret(&record.id));
        let verify_token = open(&record.verify_token, Purpose::VerifyToken(&record.id));
        self.tell(&record.id, secret.as_ref().err().or(verify_token.as_ref().err()));
        AppSecrets {
            id: Some(record.id.clone()),
            signs: secret.ok().flatten().as_ref().and_then(key),
            verify_token: verify_token
                .ok()
                .flatten()
                .filter(|verify_token| !verify_token.expose_secret().is_empty()),
        }
    }

    /// Tell once of an app whose secrets do not open.
    fn tell(&self, app: &str, refusal: Option<&OpenError>) {
        let mut unopened = self.unopened.lock();
        match refusal {
            Some(refusal) => {
                if unopened.insert(app.to_owned()) {
                    tracing::error!(
                        app,
                        reason = refusal.of_app(),
                        "secrets of an app cannot be opened: its webhooks are refused; put the key into security.app_key, or \
                         add the app again"
                    );
                }
            }
            None => {
                unopened.remove(app);
            }
        }
    }
}

fn key(secret: &SecretString) -> Option<hmac::Key> {
    let secret = secret.expose_secret();
    (!secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
}
