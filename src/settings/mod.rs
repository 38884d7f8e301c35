//! Settings: built-in `config/default.toml` < `--config FILE` < environment `META_DISPATCH__SECTION__KEY`.
//!
//! Every value is checked before anything starts; a wrong one is a single line that names its key. Secrets are
//! [`SecretString`]s: they print as `[REDACTED]`, and serialise as `[set]` or `[not set]`, URLs with `***` for
//! their passwords.

mod check;
mod duration;
mod limits;
mod names;
mod redact;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::channel::Class;

/// The built-in settings file, with every key and its documentation.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A setting that cannot be used: one line, naming the key and never the value of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

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
    pub limits: LimitSettings,
    pub events: EventSettings,
    pub webhooks: WebhookSettings,
    pub security: SecuritySettings,
    pub shutdown: ShutdownSettings,
    pub log: LogSettings,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// May hold a password.
    #[serde(serialize_with = "redact::url")]
    pub url: SecretString,
    pub max_connections: u32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSettings {
    /// May hold a password.
    #[serde(serialize_with = "redact::url")]
    pub url: SecretString,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSettings {
    #[serde(deserialize_with = "sources::url")]
    pub base_url: url::Url,
    /// May hold a password. Empty: none.
    #[serde(serialize_with = "redact::url")]
    pub proxy: SecretString,
    /// Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub app_secret: SecretString,
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    #[serde(with = "duration")]
    pub timeout: Duration,
    #[serde(with = "duration")]
    pub media_timeout: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    #[serde(with = "duration")]
    pub default_wait: Duration,
    pub trusted_proxies: String,
    pub max_connections_per_address: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    pub max_backlog: i64,
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
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySettings {
    /// 32 bytes in base64; empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub key: SecretString,
    #[serde(with = "duration")]
    pub ban: Duration,
    pub ban_loopback: bool,
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

impl DatabaseSettings {
    /// Return the name of the database for commands: the URL without passwords, a file by its path from the
    /// root.
    pub fn name(&self) -> String {
        let url = self.url.expose_secret();
        let Some(path) = url.strip_prefix("sqlite:") else { return redact::without_passwords(url) };
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        format!("sqlite:{}", whole.display())
    }
}

impl GraphSettings {
    /// Return `graph.proxy` as a URL, if one is set.
    pub fn proxy(&self) -> Result<Option<url::Url>, SettingsError> {
        let text = self.proxy.expose_secret();
        if text.is_empty() {
            return Ok(None);
        }
        let is_origin = |url: &url::Url| {
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.has_host()
        };
        // The parser also reads `http:user:password@host`, whose password would not be recognised where
        // settings are shown.
        let has_scheme = ["http://", "https://"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        text.parse().ok().filter(|url: &url::Url| has_scheme && is_origin(url)).map(Some).ok_or_else(|| {
            let demand =
                "must be http://host:port, with user:password@ before the host if need be, or https://…";
            SettingsError::of("graph.proxy", demand)
        })
    }
}

impl HttpSettings {
    /// Return `http.trusted_proxies` as networks: address and prefix length.
    pub fn proxies(&self) -> Result<Vec<(std::net::IpAddr, u8)>, SettingsError> {
        let wrong = || {
            SettingsError::of(
                "http.trusted_proxies",
                "must be addresses or networks such as 10.0.0.0/8, separated by commas",
            )
        };
        self.trusted_proxies
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| {
                let (address, prefix) = entry.split_once('/').map_or((entry, None), |(a, p)| (a, Some(p)));
                let address: std::net::IpAddr = address.parse().map_err(|_| wrong())?;
                let longest = if address.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.map_or(Ok(longest), |p| p.parse::<u8>().map_err(|_| wrong()))?;
                if prefix > longest { Err(wrong()) } else { Ok((address, prefix)) }
            })
            .collect()
    }
}

impl Settings {
    /// Return the changed settings that have no effect in this version (contract: "Commands and settings").
    pub fn without_effect(&self) -> Vec<&'static str> {
        let SecuritySettings { key, ban, ban_loopback } = &self.security;
        [
            ("security.key", !key.expose_secret().is_empty()),
            ("security.ban", *ban != Duration::from_secs(86_400)),
            ("security.ban_loopback", *ban_loopback),
            ("webhooks.verify_token", !self.webhooks.verify_token.expose_secret().is_empty()),
        ]
        .into_iter()
        .filter_map(|(key, is_set)| is_set.then_some(key))
        .collect()
    }
}

impl SecuritySettings {
    /// Return the key that seals page tokens, if one is set.
    pub fn key_bytes(&self) -> Result<Option<[u8; 32]>, SettingsError> {
        use base64::Engine;
        let text = self.key.expose_secret();
        if text.is_empty() {
            return Ok(None);
        }
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Some)
            .ok_or_else(|| SettingsError::of("security.key", "must be 32 bytes in base64"))
    }
}
