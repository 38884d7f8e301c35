//! Settings: built-in `config/default.toml` < `--config FILE` < environment `META_DISPATCH__SECTION__KEY`.
//!
//! Every value is checked before anything starts; a wrong one is a single line that names its key. Secrets are
//! [`SecretString`]s: they print as `[REDACTED]`, and serialise as `[set]` or `[not set]`, URLs with `***` for
//! their passwords.

mod redact;
mod sources;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::message::Class;

/// The built-in settings file, with every key and its documentation.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// A setting that cannot be used: one line, naming the key and never the value of a secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl SettingsError {
    /// `setting section.key: demand`. The demand must not repeat the value, which may be a secret.
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
    /// Empty: none.
    #[serde(serialize_with = "redact::secret")]
    pub app_secret: SecretString,
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub media_timeout: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    #[serde(with = "humantime_serde")]
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
    #[serde(with = "humantime_serde")]
    pub idempotency_ttl: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAmbiguous {
    Hold,
    Retry,
}

/// What becomes of a message that Graph answered with a server error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum On5xx {
    Retry,
    Hold,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    #[serde(with = "humantime_serde")]
    pub cap: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    pub enforce_ceilings: bool,
    pub messenger: ClassLimits,
    pub instagram: ClassLimits,
}

/// Messages a second a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
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
    #[serde(with = "humantime_serde")]
    pub ban: Duration,
    pub ban_loopback: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownSettings {
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// In the form of tracing's `EnvFilter`; empty: the command's own choice.
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines are written to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Settings (`section.key`, value) stronger than the file and the environment: what a command itself prescribes
/// (`demo`), or a test.
pub type Overrides = Vec<(String, String)>;

impl Settings {
    /// Reads and checks all settings.
    pub fn load(file: Option<&Path>) -> Result<Settings, SettingsError> {
        Settings::load_with(file, Vec::new())
    }

    /// The same, with some keys (`section.key`) prescribed.
    pub fn load_with(file: Option<&Path>, overrides: Overrides) -> Result<Settings, SettingsError> {
        Settings::load_from(file, std::env::vars_os(), overrides)
    }

    fn check(&self) -> Result<(), SettingsError> {
        self.check_connections()?;
        self.check_durations()?;
        self.check_numbers()?;
        self.http.proxies()?;
        self.security.key_bytes()?;
        for (key, secret) in [
            ("graph.app_secret", &self.graph.app_secret),
            ("webhooks.verify_token", &self.webhooks.verify_token),
        ] {
            let clean = !secret.expose_secret().contains(|c: char| c.is_whitespace() || c.is_control());
            require(clean, key, "must not hold spaces, line ends or control characters")?;
        }
        crate::telemetry::parse_filter(&self.log.filter).map(drop)
    }

    fn check_connections(&self) -> Result<(), SettingsError> {
        let database = self.database.url.expose_secret();
        let named = match database.split_once(':') {
            Some(("sqlite", path)) => !path.trim_start_matches('/').is_empty(),
            Some(("postgres" | "postgresql", rest)) => {
                rest.starts_with("//") && url::Url::parse(database).is_ok()
            }
            _ => false,
        };
        require(
            named,
            "database.url",
            "must be sqlite:PATH or postgres://user:password@host:5432/name (special characters of the password percent-encoded)",
        )?;
        let broker = self.broker.url.expose_secret();
        require(
            broker == "embedded"
                || url::Url::parse(broker)
                    .is_ok_and(|url| matches!(url.scheme(), "amqp" | "amqps") && url.has_host()),
            "broker.url",
            "must be embedded, or amqp://user:password@host:5672/vhost, or amqps://… (special characters percent-encoded)",
        )?;
        let graph = &self.graph.base_url;
        require(
            matches!(graph.scheme(), "http" | "https") && graph.has_host(),
            "graph.base_url",
            "must be an http:// or https:// URL",
        )?;
        require(
            graph.query().is_none() && graph.fragment().is_none(),
            "graph.base_url",
            "must not have a query or a fragment",
        )?;
        require(
            graph.username().is_empty() && graph.password().is_none(),
            "graph.base_url",
            "must not hold a user or password",
        )?;
        require(
            self.http.listen != self.admin.listen || self.http.listen.port() == 0,
            "admin.listen",
            "must differ from http.listen",
        )
    }

    fn check_durations(&self) -> Result<(), SettingsError> {
        const ALWAYS: Duration = Duration::ZERO;
        const TICK: Duration = Duration::from_millis(1);
        const SECOND: Duration = Duration::from_secs(1);
        // Far beyond any use, and safe to add to a time.
        const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
        for (key, length, at_least) in [
            ("graph.connect_timeout", self.graph.connect_timeout, TICK),
            ("graph.timeout", self.graph.timeout, TICK),
            ("graph.media_timeout", self.graph.media_timeout, TICK),
            ("ingest.idempotency_ttl", self.ingest.idempotency_ttl, TICK),
            ("dispatch.lease", self.dispatch.lease, SECOND),
            ("dispatch.valid_for", self.dispatch.valid_for, TICK),
            ("retry.base", self.retry.base, TICK),
            ("retry.cap", self.retry.cap, TICK),
            ("security.ban", self.security.ban, ALWAYS),
            ("shutdown.grace", self.shutdown.grace, ALWAYS),
        ] {
            let shortest = humantime::format_duration(at_least);
            require(length >= at_least, key, format_args!("must be at least {shortest}"))?;
            require(length <= LONGEST, key, "must be at most 3650d")?;
        }
        for (key, timeout) in
            [("graph.timeout", self.graph.timeout), ("graph.media_timeout", self.graph.media_timeout)]
        {
            require(self.graph.connect_timeout < timeout, key, "must be longer than graph.connect_timeout")?;
        }
        require(self.retry.base <= self.retry.cap, "retry.base", "must not exceed retry.cap")?;
        require(self.http.default_wait <= Duration::from_secs(30), "http.default_wait", "must be 0s to 30s")
    }

    fn check_numbers(&self) -> Result<(), SettingsError> {
        require(self.database.max_connections >= 4, "database.max_connections", "must be at least 4")?;
        require(
            self.http.max_connections_per_address > 0,
            "http.max_connections_per_address",
            "must be at least 1",
        )?;
        require(self.ingest.max_backlog > 0, "ingest.max_backlog", "must be at least 1")?;
        require(
            (1..=100_000).contains(&self.dispatch.concurrency),
            "dispatch.concurrency",
            "must be 1 to 100000",
        )?;
        require(self.dispatch.max_attempts > 0, "dispatch.max_attempts", "must be at least 1")?;
        for (key, limit) in [
            ("limits.messenger.text", self.limits.messenger.text),
            ("limits.messenger.media", self.limits.messenger.media),
            ("limits.instagram.text", self.limits.instagram.text),
            ("limits.instagram.media", self.limits.instagram.media),
        ] {
            require((1..=1_000_000).contains(&limit), key, "must be 1 to 1000000")?;
        }
        Ok(())
    }
}

impl HttpSettings {
    /// `http.trusted_proxies` as networks: address and prefix length.
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
            .ok_or_else(|| SettingsError::of("security.key", "must be 32 bytes in base64"))
    }
}

fn require(holds: bool, key: &str, demand: impl std::fmt::Display) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError::of(key, demand)) }
}
