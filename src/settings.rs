//! Settings: built-in `config/default.toml` < `--config FILE` < environment `META_DISPATCH__SECTION__KEY`.
//!
//! Every value is checked before anything starts; a wrong one is a single line that names its key. Secrets are
//! [`SecretString`]s and print as `[redacted]`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use config::{Config, Environment, File, FileFormat};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::message::Class;

/// The built-in settings file, with every key and its documentation.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

const ENVIRONMENT_PREFIX: &str = "META_DISPATCH";

/// A setting that cannot be used: one line, naming the key and never the value of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

#[derive(Debug, Clone, Deserialize)]
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    /// May hold a password.
    pub url: SecretString,
    pub max_connections: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSettings {
    /// May hold a password.
    pub url: SecretString,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSettings {
    pub base_url: url::Url,
    /// Empty: none.
    pub app_secret: SecretString,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub media_timeout: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    #[serde(with = "humantime_serde")]
    pub default_wait: Duration,
    pub trusted_proxies: String,
    pub max_connections_per_address: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    pub max_backlog: i64,
    #[serde(with = "humantime_serde")]
    pub idempotency_ttl: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatchSettings {
    pub concurrency: usize,
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    pub on_ambiguous: OnAmbiguous,
    pub on_5xx: On5xx,
    pub max_attempts: u32,
    #[serde(with = "humantime_serde")]
    pub valid_for: Duration,
}

/// What becomes of a message whose call has an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAmbiguous {
    Hold,
    Retry,
}

/// What becomes of a message that Graph answered with a server error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On5xx {
    Retry,
    Hold,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    #[serde(with = "humantime_serde")]
    pub cap: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    pub enforce_ceilings: bool,
    pub messenger: ClassLimits,
    pub instagram: ClassLimits,
}

/// Messages a second a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassLimits {
    pub text: u32,
    pub media: u32,
}

impl LimitSettings {
    /// The defaults of a class.
    pub fn of(&self, class: Class) -> ClassLimits {
        match class {
            Class::Messenger => self.messenger,
            Class::Instagram => self.instagram,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSettings {
    pub publish: EventScope,
}

/// Which events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventScope {
    None,
    Outcomes,
    All,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    pub verify_token: SecretString,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySettings {
    /// 32 bytes in base64; empty: none.
    pub key: SecretString,
    #[serde(with = "humantime_serde")]
    pub ban: Duration,
    pub ban_loopback: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A source of settings stronger than the file and the environment: what a command itself prescribes (`demo`), or
/// a test.
pub type Overrides = Vec<(String, String)>;

impl Settings {
    /// Reads and checks all settings.
    pub fn load(file: Option<&Path>) -> Result<Settings, SettingsError> {
        Settings::load_with(file, Vec::new())
    }

    /// The same, with some keys (`section.key`) prescribed.
    pub fn load_with(file: Option<&Path>, overrides: Overrides) -> Result<Settings, SettingsError> {
        let mut sources = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = file {
            sources = sources.add_source(File::from(path).format(FileFormat::Toml).required(true));
        }
        sources = sources
            .add_source(Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__"));
        for (key, value) in overrides {
            sources = sources
                .set_override(&key, value)
                .map_err(|error| SettingsError(format!("setting {key}: {error}")))?;
        }
        let config = sources.build().map_err(|error| SettingsError(format!("settings: {error}")))?;
        let settings: Settings = serde_path_to_error::deserialize(config).map_err(|error| {
            SettingsError(format!("setting {}: {}", error.path(), without_value(error.inner())))
        })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let database = self.database.url.expose_secret();
        require(
            ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| database.starts_with(scheme)),
            "database.url",
            "must begin with sqlite: or postgres://",
        )?;
        require(self.database.max_connections >= 4, "database.max_connections", "must be at least 4")?;
        let broker = self.broker.url.expose_secret();
        require(
            broker == "embedded" || broker.starts_with("amqp://") || broker.starts_with("amqps://"),
            "broker.url",
            "must be embedded, amqp://… or amqps://…",
        )?;
        require(
            matches!(self.graph.base_url.scheme(), "http" | "https")
                && self.graph.base_url.has_host()
                && self.graph.base_url.query().is_none(),
            "graph.base_url",
            "must be an http(s) URL without a query",
        )?;
        for (key, length) in [
            ("graph.connect_timeout", self.graph.connect_timeout),
            ("graph.timeout", self.graph.timeout),
            ("graph.media_timeout", self.graph.media_timeout),
            ("dispatch.valid_for", self.dispatch.valid_for),
            ("retry.base", self.retry.base),
            ("retry.cap", self.retry.cap),
            ("ingest.idempotency_ttl", self.ingest.idempotency_ttl),
        ] {
            require(length >= Duration::from_millis(1), key, "must be longer than zero")?;
        }
        require(
            self.graph.connect_timeout < self.graph.timeout,
            "graph.connect_timeout",
            "must be shorter than graph.timeout",
        )?;
        require(self.retry.base <= self.retry.cap, "retry.base", "must not exceed retry.cap")?;
        require(self.http.default_wait <= Duration::from_secs(30), "http.default_wait", "must be 0s to 30s")?;
        require(
            self.http.max_connections_per_address > 0,
            "http.max_connections_per_address",
            "must be positive",
        )?;
        self.http.proxies()?;
        require(self.ingest.max_backlog > 0, "ingest.max_backlog", "must be positive")?;
        require(
            (1..=100_000).contains(&self.dispatch.concurrency),
            "dispatch.concurrency",
            "must be 1 to 100000",
        )?;
        require(self.dispatch.lease >= Duration::from_secs(1), "dispatch.lease", "must be at least 1s")?;
        require(self.dispatch.max_attempts > 0, "dispatch.max_attempts", "must be positive")?;
        for (key, limit) in [
            ("limits.messenger.text", self.limits.messenger.text),
            ("limits.messenger.media", self.limits.messenger.media),
            ("limits.instagram.text", self.limits.instagram.text),
            ("limits.instagram.media", self.limits.instagram.media),
        ] {
            require((1..=1_000_000).contains(&limit), key, "must be 1 to 1000000")?;
        }
        self.security.key_bytes().map(drop)
    }
}

impl HttpSettings {
    /// `http.trusted_proxies` as networks: address and prefix length.
    pub fn proxies(&self) -> Result<Vec<(std::net::IpAddr, u8)>, SettingsError> {
        let wrong = || {
            SettingsError("setting http.trusted_proxies: must be addresses or networks such as 10.0.0.0/8, separated by commas".into())
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

impl SecuritySettings {
    /// The key that seals page tokens, if one is set.
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
            .ok_or_else(|| SettingsError("setting security.key: must be 32 bytes in base64".into()))
    }
}

fn require(holds: bool, key: &str, demand: &str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError(format!("setting {key}: {demand}"))) }
}

/// The library's message without the rejected value, which may be a secret.
fn without_value(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::Type { expected, .. } => format!("expected {expected}"),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
