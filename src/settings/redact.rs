//! The display of secrets where settings are shown: whether one is set, never its value.

use secrecy::{ExposeSecret, SecretString};
use serde::Serializer;

/// Serialise a secret, for `serde(serialize_with)`: `[set]` or `[not set]`.
pub(super) fn secret<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose_secret().is_empty() { "[not set]" } else { "[set]" })
}

/// Serialise a URL, for `serde(serialize_with)`: `***` replaces its passwords.
pub(super) fn url<S: Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_passwords(url.expose_secret()))
}

/// Whether a URL holds a password; one that cannot be read counts as a password.
pub(super) fn holds_password(text: &str) -> bool {
    if !text.contains("://") || text.starts_with("sqlite:") {
        return false;
    }
    url::Url::parse(text)
        .map_or(true, |url| url.password().is_some() || url.query_pairs().any(|(name, _)| is_password(&name)))
}

/// Whether a parameter of a URL is a password: PostgreSQL takes `password`.
fn is_password(name: &str) -> bool {
    name.to_ascii_lowercase().contains("password")
}

/// Return a URL with `***` where its authority or its query holds a password. Text without `://` (a SQLite
/// path, `embedded`) has no place for one; a URL that cannot be read is not shown.
pub(super) fn without_passwords(text: &str) -> String {
    if !text.contains("://") || text.starts_with("sqlite:") {
        return text.to_owned();
    }
    let Ok(mut url) = url::Url::parse(text) else { return "[set]".to_owned() };
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return "[set]".to_owned();
    }
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let value = if is_password(&name) { "***".to_owned() } else { value.into_owned() };
            (name.into_owned(), value)
        })
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_in_a_url_is_always_replaced() {
        for (given, shown) in [
            ("postgres://user:hunter2@db:5432/log", "postgres://user:***@db:5432/log"),
            ("postgres:///log?user=u&password=hunter2", "postgres:///log?user=u&password=***"),
            ("amqps://user:hunter2@mq/%2f", "amqps://user:***@mq/%2f"),
            ("postgres://user:hunter2@[bad", "[set]"),
            ("sqlite:some file.db", "sqlite:some file.db"),
            ("embedded", "embedded"),
        ] {
            assert_eq!(without_passwords(given), shown);
            assert_eq!(holds_password(given), given.contains("hunter2"), "{given}");
        }
    }
}
