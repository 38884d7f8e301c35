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
            // PostgreSQL also takes `password` and `sslpassword` as parameters.
            let secret = name.to_ascii_lowercase().contains("password");
            (name.into_owned(), if secret { "***".to_owned() } else { value.into_owned() })
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
        }
    }
}
