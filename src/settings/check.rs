//! The rules for values of settings beyond their types.

use std::time::Duration;

use secrecy::ExposeSecret;
use tracing_subscriber::EnvFilter;

use super::{ClassLimits, Settings, SettingsError};
use crate::channel::{Class, Medium};

impl Settings {
    /// Check that the settings can be used, each by itself and together.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        self.check_connections()?;
        self.check_durations()?;
        self.check_numbers()?;
        self.http.proxies()?;
        self.admin.hosts()?;
        self.graph.proxy()?;
        self.graph.code_overrides()?;
        self.check_tls()?;
        self.check_plaintext()?;
        self.security.keys()?;
        self.security.token_keys()?;
        self.security.app_keys()?;
        for (key, secret) in [
            ("graph.app_secret", &self.graph.app_secret),
            ("webhooks.verify_token", &self.webhooks.verify_token),
        ] {
            let clean = !secret.expose_secret().contains(|c: char| c.is_whitespace() || c.is_control());
            require(clean, key, "must not hold spaces, line ends or control characters")?;
        }
        self.log.filter.parse::<EnvFilter>().map(drop).map_err(|error| SettingsError::of("log.filter", error))
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
        let is_amqp = |url: url::Url| matches!(url.scheme(), "amqp" | "amqps") && url.has_host();
        require(
            broker == "embedded" || (broker.contains("://") && url::Url::parse(broker).is_ok_and(is_amqp)),
            "broker.url",
            "must be embedded, or amqp://user:password@host:5672/vhost, or amqps://… (special characters percent-encoded)",
        )?;
        for (key, url) in [("database.url", database), ("broker.url", broker)] {
            let demand = "must not hold an @ behind the host, or a #; percent-encode special characters of the password";
            require(!may_cut_a_password(url), key, demand)?;
        }
        check_parameters(database)?;
        for (key, url) in [
            ("graph.base_url", &self.graph.base_url),
            ("graph.instagram_base_url", &self.graph.instagram_base_url),
        ] {
            let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
            require(is_http, key, "must be an http:// or https:// URL")?;
            let is_plain = url.query().is_none() && url.fragment().is_none();
            require(is_plain, key, "must not have a query or a fragment")?;
            let is_anonymous = url.username().is_empty() && url.password().is_none();
            require(is_anonymous, key, "must not hold a user or password")?;
        }
        require(
            self.admin.listen.tcp() != Some(self.http.listen) || self.http.listen.port() == 0,
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
        let keep = self.log.keep;
        let is_long = keep.is_zero() || (Duration::from_secs(3_600)..=LONGEST).contains(&keep);
        require(is_long, "log.keep", "must be 0s (for ever), or 1h to 3650d")?;
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
            self.ingest.max_spool >= bytesize::ByteSize::mib(1),
            "ingest.max_spool",
            "must be at least 1 MiB, such as 4 GiB",
        )?;
        require(
            self.security.quota_backlog >= 0,
            "security.quota_backlog",
            "must be at least 1, or 0 for no quota",
        )?;
        require(
            (1..=100_000).contains(&self.dispatch.concurrency),
            "dispatch.concurrency",
            "must be 1 to 100000",
        )?;
        require(
            self.dispatch.memory >= bytesize::ByteSize::mib(1),
            "dispatch.memory",
            "must be at least 1 MiB, such as 256 MiB",
        )?;
        require(self.dispatch.max_attempts > 0, "dispatch.max_attempts", "must be at least 1")?;
        require(self.dispatch.line_trials > 0, "dispatch.line_trials", "must be at least 1")?;
        for class in Class::ALL {
            let ClassLimits { text, media } = self.limits.of(*class);
            for (medium, limit) in [(Medium::Text, text), (Medium::Media, media)] {
                let key = format!("limits.{class}.{medium}");
                require((1..=1_000_000).contains(&limit), &key, "must be 1 to 1000000")?;
            }
        }
        Ok(())
    }
}

/// The parameters that the driver of PostgreSQL reads. It would log any other one with its value, which may be a
/// password under a mistyped name.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Whether a `/`, a `?` or a `#` may belong to a password, which the parser ends there: the rest of such a password would
/// be shown and logged as a part of the URL.
fn may_cut_a_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://").filter(|_| !url.starts_with("sqlite:")) else { return false };
    let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[host_ends..].contains(['@', '#'])
}

/// Refuse parameters of `database.url` that nothing reads. The error does not repeat their names: behind an `&` in a
/// password, its rest counts as a name.
fn check_parameters(url: &str) -> Result<(), SettingsError> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return require(!path.contains('?'), "database.url", "must be sqlite:PATH, without parameters");
    }
    let Ok(url) = url::Url::parse(url) else { return Ok(()) };
    for (place, (name, _)) in (1..).zip(url.query_pairs()) {
        let is_known = PARAMETERS.contains(&&*name) || (name.starts_with("options[") && name.ends_with(']'));
        let near = PARAMETERS.iter().find(|known| strsim::osa_distance(&name, known) <= 2);
        let meant = near.map_or_else(String::new, |near| format!(", perhaps {near}"));
        let known = PARAMETERS.join(", ");
        let demand = format!("its parameter {place} is not known{meant}; known ones are {known}");
        require(is_known, "database.url", demand)?;
    }
    Ok(())
}

fn require(holds: bool, key: &str, demand: impl std::fmt::Display) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError::of(key, demand)) }
}
