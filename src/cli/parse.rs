//! Parsers of arguments: ids, words of the domain, durations, and texts that must not be empty.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::channel::{Class, Login};
use crate::domain::{self, CountedAddress, MAX_CP_ID_CHARS, Status, TokenScope, TokenScopes};
use crate::text::trimmed;

/// The largest id that JavaScript and most JSON readers keep exactly; far above any that is ever reached by
/// counting.
const LARGEST_ID: i64 = (1 << 53) - 1;

/// Parse an id: a positive integer, made into its type.
pub fn id<T: Clone + Send + Sync + 'static>(make: fn(i64) -> T) -> impl TypedValueParser<Value = T> {
    clap::value_parser!(i64).range(1..=LARGEST_ID).map(make)
}

/// Parse `messenger` or `instagram`.
pub fn class() -> impl TypedValueParser<Value = Class> {
    PossibleValuesParser::new(Class::ALL.iter().map(|class| class.as_str()))
        .map(|word| word.parse().expect("it is one of the possible values"))
}

/// The way in which a line is connected to Meta, or `auto`: the token of the line shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginChoice(pub Option<Login>);

/// Parse `facebook`, `instagram`, `unified` or `auto`.
pub fn login() -> impl TypedValueParser<Value = LoginChoice> {
    PossibleValuesParser::new(Login::ALL.iter().map(|login| login.as_str()).chain(["auto"]))
        .map(|word| LoginChoice(word.parse().ok()))
}

/// Parse a status, in capitals or not.
pub fn status() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str()))
        .map(|word| word.to_uppercase().parse().expect("it is one of the possible values"))
}

/// Parse a duration above zero, and short enough to be added to a time.
pub fn duration(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; durations are written 30s, 5m, 24h, 7d"))?;
    if length < Duration::from_millis(1) {
        return Err("must be longer than zero".into());
    }
    if length > Duration::from_secs(3650 * 86_400) {
        return Err("must be at most 3650d".into());
    }
    Ok(length)
}

/// The longest time from now to an end.
const FARTHEST_END: time::Duration = time::Duration::days(36_500);

/// Parse an end: a duration from now, or an RFC 3339 time that has not passed.
pub fn end(text: &str) -> Result<OffsetDateTime, String> {
    let now = OffsetDateTime::now_utc();
    let end = match OffsetDateTime::parse(text.trim(), &Rfc3339) {
        Ok(end) => end,
        Err(_) => {
            now + duration(text)
                .map_err(|error| format!("{error}; or give a time such as 2027-01-01T00:00:00Z"))?
        }
    };
    if end <= now {
        return Err("must not have passed".into());
    }
    if end > now + FARTHEST_END {
        return Err("must come within a hundred years".into());
    }
    Ok(end)
}

/// Parse the scopes of a token.
pub fn scopes(text: &str) -> Result<TokenScopes, String> {
    let known = || TokenScope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    text.parse::<TokenScopes>().map_err(|error| format!("{error}; the scopes are {}", known()))
}

/// Parse a network, or an address.
pub fn network(text: &str) -> Result<IpNet, String> {
    domain::network(text.trim()).ok_or_else(|| {
        "must be an address or a network such as 203.0.113.0/24; write an IPv4 network as such, not as ::ffff:…".into()
    })
}

/// Parse an address of a caller, or a /64 network of IPv6.
pub fn caller_address(text: &str) -> Result<CountedAddress, String> {
    text.trim().parse::<CountedAddress>().map_err(|error| error.to_string())
}

/// Parse a campaign's label, as ingest takes it.
pub fn campaign(text: &str) -> Result<String, String> {
    let label = name(text)?;
    if label.chars().count() > MAX_CP_ID_CHARS {
        return Err(format!("must be at most {MAX_CP_ID_CHARS} characters"));
    }
    Ok(label)
}

/// Parse a campaign's label for the path of a URL, where `.` and `..` mean folders.
pub fn campaign_in_path(text: &str) -> Result<String, String> {
    let label = campaign(text)?;
    if [".", ".."].contains(&label.as_str()) {
        return Err("no URL can name this label; steer its messages by their ids".into());
    }
    Ok(label)
}

/// Parse Meta's id of a Page or of an Instagram account: digits.
pub fn meta_id(text: &str) -> Result<String, String> {
    let id = trimmed(text);
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(id.to_owned());
    }
    Err("must be digits only: not a name, a URL, or a number as a spreadsheet writes it".into())
}

/// Return the name of the wrapping of a token that was copied with more than itself, if any; the text is not
/// repeated.
pub fn wrapping(token: &str) -> Option<&'static str> {
    let lower = token.to_ascii_lowercase();
    let begins = |words: &[&str]| words.iter().any(|word| lower.starts_with(word));
    if begins(&["{", "["]) {
        return Some("JSON around it");
    }
    if token.contains(['"', '\'', '`', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{ab}', '\u{bb}']) {
        return Some("quotes around it");
    }
    if token.contains(['<', '>']) {
        return Some("angle brackets (<…>) around it");
    }
    if begins(&["bearer ", "authorization:"]) {
        return Some("the word Bearer before it");
    }
    let is_named = begins(&["access_token", "token=", "token:", "page_token", "tsid=", "sid="]);
    if is_named || token.contains("://") || token.contains("access_token=") {
        return Some("a name or a URL around it (access_token=…)");
    }
    None
}

/// Parse a text that is not empty and holds no control characters; white space and invisible characters
/// around it are cut.
pub fn name(text: &str) -> Result<String, String> {
    let name = trimmed(text);
    if name.is_empty() {
        return Err("must not be empty".into());
    }
    if name.contains(char::is_control) {
        return Err("must not hold control characters".into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("xmas ")]
    #[case("\u{a0}xmas\u{200b}\n")]
    #[case("\u{feff}xmas")]
    fn label_is_trimmed_as_ingest_trims_it(#[case] text: &str) {
        assert_eq!((campaign(text), name(text)), (Ok("xmas".to_owned()), Ok("xmas".to_owned())));
    }

    #[rstest]
    #[case("")]
    #[case(" \u{200b}")]
    #[case("a\nb")]
    fn label_that_ingest_refuses_is_refused(#[case] text: &str) {
        assert!(campaign(text).is_err());
    }

    #[test]
    fn label_is_measured_after_trimming() {
        let longest = "x".repeat(MAX_CP_ID_CHARS);
        assert_eq!(campaign(&format!(" {longest} ")), Ok(longest.clone()));
        assert!(campaign(&format!("{longest}x")).is_err());
    }

    #[test]
    fn label_in_path_is_no_folder() {
        assert!(campaign_in_path(".").is_err() && campaign_in_path(" .. ").is_err());
        assert_eq!(campaign_in_path("50% off/a?b"), Ok("50% off/a?b".to_owned()));
    }

    #[rstest]
    #[case("90d", true)]
    #[case("2999-01-01T00:00:00Z", false)]
    #[case("2020-01-01T00:00:00Z", false)]
    #[case("2060-01-01T00:00:00-03:00", true)]
    #[case("0s", false)]
    #[case("soon", false)]
    fn end_is_ahead(#[case] text: &str, #[case] is_good: bool) {
        assert_eq!(end(text).is_ok(), is_good, "{:?}", end(text));
        assert!(end(text).is_ok_and(|end| end > OffsetDateTime::now_utc()) == is_good);
    }

    #[test]
    fn unknown_scope_is_named_with_the_known_ones() {
        assert_eq!(scopes("send,read").map(|scopes| scopes.to_string()), Ok("send,read".to_owned()));
        let refused = scopes("send,fly").expect_err("unknown");
        assert!(refused.contains("fly") && refused.contains("campaigns, callbacks"), "{refused}");
    }

    #[rstest]
    #[case("1001", true)]
    #[case(" 1001\u{a0}", true)]
    #[case("1.00184E+14", false)]
    #[case("https://facebook.com/1001", false)]
    #[case("My Page", false)]
    #[case("", false)]
    fn meta_id_has_only_digits(#[case] text: &str, #[case] is_good: bool) {
        assert_eq!(meta_id(text).is_ok(), is_good);
    }

    #[rstest]
    #[case("EAAone", None)]
    #[case("123|a-b_c", None)]
    #[case("\"EAAone\"", Some("quotes"))]
    #[case("\u{201c}EAAone\u{201d}", Some("quotes"))]
    #[case("<EAAone>", Some("angle brackets"))]
    #[case("access_token=EAAone", Some("name"))]
    #[case("https://graph.facebook.com/me?access_token=EAAone", Some("name"))]
    #[case("{\"access_token\":\"EAAone\"}", Some("JSON"))]
    #[case("Bearer EAAone", Some("Bearer"))]
    fn wrapping_of_a_token_is_named(#[case] token: &str, #[case] word: Option<&str>) {
        let told = wrapping(token);
        assert_eq!(told.is_some(), word.is_some(), "{told:?}");
        assert!(
            told.is_none_or(|told| word.is_some_and(|word| told.contains(word)) && !told.contains("EAA"))
        );
    }
}
