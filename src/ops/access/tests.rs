use std::io::Write;

use rstest::rstest;

use super::*;

const READER: &str = "reader-0123456789";
const OPERATOR: &str = "operator-0123456789";

/// Return the rules of a listener, with a token of each role if it has tokens.
async fn access(listen: &str, has_tokens: bool) -> Access {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "read:{READER}\noperate:{OPERATOR}\n").expect("the file can be written");
    let door = match (has_tokens, listen.parse::<AdminAddress>().expect("an address").is_local()) {
        (true, _) => Door::Tokens(TokenFile::open(file.path()).await.expect("it is right")),
        (false, true) => Door::Open,
        (false, false) => Door::Shut,
    };
    Access { hosts: Hosts::new(&listen.parse().expect("an address"), Vec::new()), door }
}

fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        headers.append(*name, value.parse().expect("a header value"));
    }
    headers
}

const LOCAL: (&str, &str) = ("host", "localhost:9090");
const BEYOND: &str = "10.1.2.3:9090";

#[rstest]
#[case::loopback("127.0.0.1:9090", &[LOCAL], Ok(()))]
#[case::rebound("127.0.0.1:9090", &[("host", "evil.example:9090")], Err(Denial::OtherHost))]
#[case::no_host("127.0.0.1:9090", &[], Err(Denial::OtherHost))]
#[case::two_hosts("127.0.0.1:9090", &[LOCAL, ("host", "evil.example")], Err(Denial::OtherHost))]
#[case::beyond(BEYOND, &[("host", BEYOND)], Err(Denial::Shut))]
#[tokio::test]
async fn listener_without_tokens_is_open_on_loopback_alone(
    #[case] listen: &str,
    #[case] given: &[(&'static str, &str)],
    #[case] expected: Result<(), Denial>,
) {
    let access = access(listen, false).await;
    let uri = Uri::from_static("/metrics");
    assert_eq!(access.check(&Method::GET, &uri, &headers(given)).await, expected);
    for probe in PROBES {
        assert_eq!(access.check(&Method::GET, &Uri::from_static(probe), &headers(given)).await, Ok(()));
    }
}

#[rstest]
#[case::none(Method::GET, "", Err(Denial::NoToken))]
#[case::unknown(Method::GET, "Bearer unknown-0123456789", Err(Denial::UnknownToken))]
#[case::other_scheme(Method::GET, "Digest reader-0123456789", Err(Denial::NoToken))]
#[case::bearer(Method::GET, "bearer reader-0123456789", Ok(()))]
#[case::head(Method::HEAD, "Bearer reader-0123456789", Ok(()))]
// admin:reader-0123456789
#[case::password(Method::GET, "Basic YWRtaW46cmVhZGVyLTAxMjM0NTY3ODk=", Ok(()))]
#[case::broken_password(Method::GET, "Basic ***", Err(Denial::NoToken))]
#[case::reader_changes(Method::POST, "Bearer reader-0123456789", Err(Denial::ReadOnly))]
#[case::reader_deletes(Method::DELETE, "Bearer reader-0123456789", Err(Denial::ReadOnly))]
#[case::operator_changes(Method::POST, "Bearer operator-0123456789", Ok(()))]
#[tokio::test]
async fn token_opens_what_its_role_may(
    #[case] method: Method,
    #[case] authorization: &str,
    #[case] expected: Result<(), Denial>,
) {
    for (listen, host) in
        [(BEYOND, BEYOND), ("127.0.0.1:9090", "localhost"), ("unix:/run/a.sock", "localhost")]
    {
        let access = access(listen, true).await;
        let mut given = vec![("host", host)];
        if !authorization.is_empty() {
            given.push(("authorization", authorization));
        }
        let checked = access.check(&method, &Uri::from_static("/metrics"), &headers(&given)).await;
        assert_eq!(checked, expected, "{listen}");
    }
}

#[rstest]
#[case::no_page(&[], true)]
#[case::own_page(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:9090")], true)]
#[case::typed(&[("sec-fetch-site", "none")], true)]
#[case::other_site(&[("sec-fetch-site", "cross-site")], false)]
#[case::other_port_of_the_site(&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:8080")], false)]
#[case::other_origin(&[("origin", "http://evil.example")], false)]
#[case::no_origin_to_tell(&[("origin", "null")], false)]
#[case::other_scheme(&[("origin", "ftp://localhost:9090")], false)]
#[case::two_sites(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false)]
#[tokio::test]
async fn page_of_another_site_changes_nothing(
    #[case] given: &[(&'static str, &str)],
    #[case] expected: bool,
) {
    let access = access("127.0.0.1:9090", false).await;
    let headers = headers(&[&[LOCAL][..], given].concat());
    let uri = Uri::from_static("/pause");
    assert_eq!(access.check(&Method::POST, &uri, &headers).await.is_ok(), expected);
    assert_eq!(
        access.check(&Method::GET, &uri, &headers).await,
        Ok(()),
        "a page of another site may link here"
    );
}

#[tokio::test]
async fn absolute_uri_names_the_host() {
    let access = access("127.0.0.1:9090", false).await;
    let uri = Uri::from_static("http://evil.example/metrics");
    assert_eq!(access.check(&Method::GET, &uri, &headers(&[LOCAL])).await, Err(Denial::OtherHost));
}
