//! The rule for plain text (`security.plaintext`) on connections to PostgreSQL. With `sslmode` disable, allow or
//! prefer, a connection may be plain; with require and stronger it is not.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, Error, PgConnection};

use crate::settings::{Plaintext, PlaintextRefused};
use crate::store::StoreError;

/// Refuse a server as far as its host tells. A Unix socket counts as loopback.
pub fn check(options: &PgConnectOptions, rule: Plaintext) -> Result<(), StoreError> {
    if !may_be_plain(options) {
        return Ok(());
    }
    let checked = match is_socket(options) {
        true => rule.check_address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        false => rule.check_host(options.get_host()),
    };
    checked.map_err(|reason| refused(&reason))
}

/// Connect. A name that may be spoken to in plain text is looked up first, and one of the addresses that were
/// checked is used: a second look-up may answer otherwise.
pub async fn connect(options: &PgConnectOptions, rule: Plaintext) -> Result<PgConnection, Error> {
    let host = options.get_host();
    if !may_be_plain(options) || is_socket(options) || !rule.needs_addresses(host) {
        return PgConnection::connect_with(options).await;
    }
    let mut failed = Error::Io(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for address in rule.look_up(host, options.get_port()).await? {
        let options = options.clone().host(&address.ip().to_string());
        match PgConnection::connect_with(&options).await {
            Err(error @ Error::Io(_)) => failed = error,
            done => return done,
        }
    }
    Err(failed)
}

/// Return the error of a setting, if a connection was refused by the rule.
pub fn refusal(error: &Error) -> Option<StoreError> {
    let Error::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref::<PlaintextRefused>().map(refused)
}

fn refused(reason: &PlaintextRefused) -> StoreError {
    StoreError::Invalid(format!(
        "setting database.url: {reason} (add sslmode=verify-full, or at least sslmode=require)"
    ))
}

fn may_be_plain(options: &PgConnectOptions) -> bool {
    matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer)
}

fn is_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::prefers_tls("postgres://u:s3cret@203.0.113.9/log?sslmode=prefer", Plaintext::Private, false)]
    #[case::allows_tls("postgres://u:s3cret@203.0.113.9/log?sslmode=allow", Plaintext::Private, false)]
    #[case::without_tls("postgres://u:s3cret@203.0.113.9/log?sslmode=disable", Plaintext::Private, false)]
    #[case::in_ipv6("postgres://u:s3cret@[2001:db8::1]/log?sslmode=prefer", Plaintext::Private, false)]
    #[case::by_parameter(
        "postgres://u:s3cret@db/log?sslmode=prefer&host=203.0.113.9",
        Plaintext::Private,
        false
    )]
    #[case::with_tls("postgres://u:s3cret@203.0.113.9/log?sslmode=require", Plaintext::Private, true)]
    #[case::with_a_check("postgres://u:s3cret@203.0.113.9/log?sslmode=verify-full", Plaintext::Private, true)]
    #[case::of_a_network("postgres://u:s3cret@10.1.2.3/log?sslmode=prefer", Plaintext::Private, true)]
    #[case::by_name("postgres://u:s3cret@db.example/log?sslmode=prefer", Plaintext::Private, true)]
    #[case::by_socket(
        "postgres://u:s3cret@db/log?sslmode=prefer&host=/run/postgresql",
        Plaintext::Private,
        true
    )]
    #[case::anywhere("postgres://u:s3cret@203.0.113.9/log?sslmode=disable", Plaintext::Anywhere, true)]
    #[case::never("postgres://u:s3cret@127.0.0.1/log?sslmode=prefer", Plaintext::Never, false)]
    #[case::never_by_name("postgres://u:s3cret@localhost/log?sslmode=prefer", Plaintext::Never, false)]
    #[case::never_by_socket(
        "postgres://u@db/log?sslmode=prefer&host=/run/postgresql",
        Plaintext::Never,
        false
    )]
    #[case::never_without_tls("postgres://u:s3cret@127.0.0.1/log?sslmode=require", Plaintext::Never, true)]
    fn server_follows_the_rule(#[case] url: &str, #[case] rule: Plaintext, #[case] is_taken: bool) {
        let checked = check(&PgConnectOptions::from_str(url).unwrap(), rule);
        match checked {
            Ok(()) => assert!(is_taken, "{url}"),
            Err(error) => {
                assert!(!is_taken, "{error}");
                let text = error.to_string();
                assert!(text.starts_with("setting database.url: plain text"), "{text}");
                assert!(text.contains("sslmode=require") && !text.contains("s3cret"), "{text}");
            }
        }
    }

    #[test]
    fn refused_connection_is_an_error_of_the_setting() {
        let reason = PlaintextRefused::Public(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)));
        let error = Error::Io(io::Error::other(reason));
        assert!(matches!(refusal(&error), Some(StoreError::Invalid(text)) if text.contains("203.0.113.9")));
        assert!(refusal(&Error::Io(io::ErrorKind::ConnectionRefused.into())).is_none());
    }
}
