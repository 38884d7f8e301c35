//! Settings: built-in `config/default.toml` < `--config FILE` < environment `META_DISPATCH__SECTION__KEY`.
//!
//! Every value is checked before anything starts; a wrong one is a single line that names its key. Secrets are
//! [`SecretString`]s: they print as `[REDACTED]`, and serialise as `[set]` or `[not set]`, URLs with `***` for
//! their passwords.

mod check;
mod duration;
mod keys;
mod limits;
mod listen;
mod names;
mod peers;
mod plaintext;
mod redact;
mod secret_files;
mod sources;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::channel::Class;
use crate::policy::classify::{CodeOverrides, OverrideError};
pub use listen::AdminAddress;
pub use plaintext::{Plaintext, PlaintextRefused};
pub use secret_files::{ExposedFile, exposed_mode};
pub use tls::{TlsFiles, authorities};

/// The built-in settings file, with every key and its documentation.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A setting that cannot be used: one line, naming the key and never the value of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{}", escaped(.0))]
pub struct SettingsError(String);

/// Return a text in one line: a key in quotes, the name of a variable and a path may hold line ends.
fn escaped(text: &str) -> String {
    let written = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(written).collect()
}

impl SettingsError {
    /// Create `setting section.key: demand`. The demand must not repeat the value, which may be a secret.
    pub(crate) fn of(key: &str, demand: impl std::fmt::Display) -> SettingsError {
        SettingsError(format!("setting {key}: {demand}"))
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub database: DatabaseSettings,
    pub broker: BrokerSettings,
    pub graph: GraphSettings,
    pub http: HttpSettings,
    pub admin: AdminSettings,
    pub ingest: IngestSettings,
    pub dispatch: DispatchSettings,
    pub retry: RetrySettings,
    pub attachments: AttachmentSettings,
    pub limits: LimitSettings,
    pub events: EventSettings,
    pub webhooks: WebhookSettings,
    pub security: SecuritySettings,
    pub shutdown: ShutdownSettings,
    pub log: LogSettings,
    /// Files with secrets that others may open, found while the settings were read.
    #[serde(skip)]
    pub exposed_files: Vec<ExposedFile>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// May hold a password.
    #[serde(serialize_with = "redact::url")]
    pub url: SecretString,
    pub max_connections: u32,
    /// As in `security.plaintext`.
    #[serde(skip)]
    pub plaintext: Plaintext,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSettings {
    /// May hold a password.
    #[serde(serialize_with = "redact::url")]
    pub url: SecretString,
    /// Empty: none.
    pub ca_file: PathBuf,
    pub reply_to: ReplyScope,
    /// As in `security.plaintext`.
    #[serde(skip)]
    pub plaintext: Plaintext,
}

/// The queues to which producers may have their answers sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyScope {
    /// Direct reply-to, queues that the broker named, and names that begin with the validated `user_id` and a dot.
    Own,
    Any,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSettings {
    #[serde(deserialize_with = "sources::url")]
    pub base_url: url::Url,
    /// Of lines of Instagram Login.
    #[serde(deserialize_with = "sources::url")]
    pub instagram_base_url: url::Url,
    /// May hold a password. Empty: none.
    #[serde(serialize_with = "redact::url")]
    pub proxy: SecretString,
    /// Empty: none.
    pub ca_file: PathBuf,
    /// Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub app_secret: SecretString,
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(with = "duration")]
    pub media_timeout: Duration,
    /// Codes of Graph to which the operator gives a meaning. Empty: none.
    pub codes: String,
    /// As in `security.plaintext`.
    #[serde(skip)]
    pub plaintext: Plaintext,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Empty, as the key is then: no TLS.
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    #[serde(with = "duration")]
    pub default_wait: Duration,
    pub trusted_proxies: String,
    /// Over all addresses; 0: as many as the limit of open files leaves.
    pub max_connections: usize,
    pub max_connections_per_address: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    pub listen: AdminAddress,
    /// Empty, as the key is then: no TLS.
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    /// The file of the tokens. Empty: none.
    pub token_file: String,
    /// Further names of the listener, separated by commas; `*`: any.
    pub hosts: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    pub max_backlog: i64,
    /// Disk for the answers of all batches that are being read.
    pub max_spool: bytesize::ByteSize,
    #[serde(with = "duration")]
    pub idempotency_ttl: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchSettings {
    pub concurrency: usize,
    /// Memory for the messages in hand.
    pub memory: bytesize::ByteSize,
    #[serde(with = "duration")]
    pub lease: Duration,
    pub on_ambiguous: OnAmbiguous,
    pub on_5xx: On5xx,
    pub max_attempts: u32,
    pub line_trials: u32,
    /// 0: no limit.
    pub unknown_refusals: u32,
    /// Whether workers look for the messages of UNKNOWN rows in Meta's conversations.
    pub reconcile: bool,
    /// Whether a known closed window ends a message without a call.
    pub window_check: bool,
    /// Whether messages to recipients that cannot be reached end without a call.
    pub suppress_unreachable: bool,
    #[serde(with = "duration")]
    pub valid_for: Duration,
}

/// The treatment of a message whose call has an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAmbiguous {
    Hold,
    Retry,
}

/// The treatment of a message that Graph answered with a server error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum On5xx {
    Retry,
    Hold,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    #[serde(with = "duration")]
    pub base: Duration,
    #[serde(with = "duration")]
    pub cap: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentSettings {
    /// Whether an asset is uploaded once a line, and its messages are sent by its id.
    pub reuse: bool,
    pub on_unfetchable: OnUnfetchable,
}

/// The treatment of messages whose URL Meta cannot fetch, where assets are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnfetchable {
    Refuse,
    Hold,
}

#[derive(Debug, Clone, Serialize)]
pub struct LimitSettings {
    pub enforce_ceilings: bool,
    /// A section for each class.
    #[serde(flatten)]
    pub classes: HashMap<Class, ClassLimits>,
}

/// Messages a second a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimits {
    pub text: u32,
    pub media: u32,
}

impl LimitSettings {
    /// Return the limits of a line of this class that has none of its own: the class's section, or, where the
    /// settings have none, Meta's ceilings.
    pub fn of(&self, class: Class) -> ClassLimits {
        let ceiling = ClassLimits { text: class.ceiling.text, media: class.ceiling.media };
        self.classes.get(&class).copied().unwrap_or(ceiling)
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    pub publish: EventScope,
    /// Whether events of Meta's webhooks are published as they came.
    pub inbound: bool,
}

/// Which events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventScope {
    None,
    Outcomes,
    All,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub verify_token: SecretString,
    /// Whether an echo of Instagram, which names no row, is matched by recipient, text and time.
    pub match_instagram_echoes: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySettings {
    /// 32 bytes in base64, or several such keys: the first seals, all open. Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub key: SecretString,
    /// Keys in the same form: the hash of a new token is made with the first. Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub token_key: SecretString,
    /// Keys in the same form: the first seals the secrets of Meta's apps, all open. Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub app_key: SecretString,
    /// Zero: no address is banned.
    #[serde(with = "duration")]
    pub ban: Duration,
    pub ban_loopback: bool,
    pub plaintext: Plaintext,
    /// Of an account, in one process; 0: no quota.
    pub quota_rows_per_second: u32,
    /// Waiting rows of an account; 0: no quota.
    pub quota_backlog: i64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    #[serde(with = "duration")]
    pub grace: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// In the form of tracing's `EnvFilter`; empty: the command's own choice.
    pub filter: String,
    pub format: LogFormat,
    /// How long messages stay in the log; zero: for ever.
    #[serde(with = "duration")]
    pub keep: Duration,
}

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Settings (`section.key`, value) that take precedence over the file and the environment: prescribed by a
/// command (`demo`) or a test.
pub type Overrides = Vec<(String, String)>;

impl Settings {
    /// Read and check all settings.
    pub fn load(file: Option<&Path>) -> Result<Settings, SettingsError> {
        Settings::load_with(file, Vec::new())
    }

    /// Read and check all settings, with some keys (`section.key`) prescribed.
    pub fn load_with(file: Option<&Path>, overrides: Overrides) -> Result<Settings, SettingsError> {
        Settings::load_from(file, std::env::vars_os(), overrides)
    }
}

impl Settings {
    /// Return the settings that have no effect beside the others, each with its reason.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let is_embedded = self.broker.url.expose_secret() == "embedded";
        let reason = match self.events.inbound {
            true if !self.webhooks.is_on() => Some("webhooks are off; set webhooks.verify_token"),
            true if is_embedded => Some("the embedded broker has no exchanges; set broker.url to a RabbitMQ"),
            _ => None,
        };
        reason.map(|reason| ("events.inbound", reason)).into_iter().collect()
    }
}

impl GraphSettings {
    /// Return the meanings of codes.
    pub fn code_overrides(&self) -> Result<CodeOverrides, SettingsError> {
        self.codes.parse().map_err(|error: OverrideError| SettingsError::of("graph.codes", error))
    }
}

impl WebhookSettings {
    /// Whether Meta's webhooks are taken in.
    pub fn is_on(&self) -> bool {
        !self.verify_token.expose_secret().is_empty()
    }
}
