//! Meta's error codes, row by row: the first row that fits decides.
//!
//! Sources: Messenger Platform "Common Error Codes" (June 2026), Graph API "Handling Errors" and "Rate
//! Limits", and for the codes these leave out, bodies reported by users of the API. A new finding becomes a
//! row here, and nowhere else. Refusals that Meta documents for other calls (payments, linking, calling) need
//! no row: an unknown code of Graph in a 4xx answer is a refusal of the message, until
//! `dispatch.unknown_refusals` of them come in a row.
//!
//! A refusal belongs to a scope. Where a code is surely about the line or the app, the message waits with its
//! line. Where it may be about one message or one recipient as well, it is `Suspect`: another message
//! decides.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::body::GraphError;
use super::overrides::CodeOverrides;

/// The meaning of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This message is refused.
    Final,
    /// This message and the line's next ones are refused: every code 10 that is not about the recipient.
    FinalForLine,
    /// The line is refused, whatever the message.
    LineRefused,
    /// This message is refused, or the line: the next message of the line decides.
    Suspect,
    /// A refusal under a code that is not in the table.
    Unlisted,
    /// Too many calls of the line.
    RateLine,
    /// A business use case limit of the line.
    RateUseCase,
    /// Too many calls of the app.
    RateApp,
    /// Not taken for a passing reason that concerns this message.
    Again { at_most: Option<u32>, not_before: Option<Duration> },
    /// A redirect, or a 4xx without Graph's envelope: another server answered, and the request did not reach
    /// Graph.
    NotGraphs,
    /// The server failed, and may have taken the message.
    Server,
    /// An error although everything was sent.
    InFactSent,
    /// Graph may have taken the message: a code that the settings call so.
    MaybeSent,
    /// The answer decides nothing.
    Unclear,
}

/// A row: codes, subcodes, meaning, cause and remedy for people.
struct Rule(Codes, Subcodes, Meaning, &'static str, &'static str);

enum Codes {
    One(i64),
    Range(RangeInclusive<i64>),
    /// Any code: the subcode alone decides.
    Any,
}

enum Subcodes {
    /// One of these.
    Of(&'static [i64]),
    /// Any subcode, or none: the code's default.
    Any,
}

use Codes::{Any as AnyCode, One, Range};
use Meaning::*;
use Subcodes::{Any, Of};

/// Tries, the first included, of a message whose media Meta could not fetch: two more.
const FETCH_TRIES: u32 = 3;
pub(super) const FETCH: Meaning = Again { at_most: Some(FETCH_TRIES), not_before: None };
/// The same for a video that took Meta longer than 75 s, or is corrupt: one more.
const SLOW_FETCH_TRIES: u32 = 2;
const SLOW_FETCH: Meaning = Again { at_most: Some(SLOW_FETCH_TRIES), not_before: None };
/// The text of a failed fetch, which comes without a subcode too: "(#100) Failed to fetch the file from the url".
pub(super) const FETCH_TEXT: &str = "fetch the file";
/// Texts of a code 100 about the wrong kind of token, or the app's settings.
pub(super) const CALLER_TEXTS: [&str; 2] = ["appsecret_proof", "Object with ID 'me'"];
/// The type of a code 100 about an object that does not exist: `me`, or the recipient.
pub(super) const OBJECT_TYPE: &str = "GraphMethodException";
/// The id of an attachment is not known to Meta, or not any more: not taken. The asset is uploaded again, and once more;
/// then its URL is sent.
const UNKNOWN_ATTACHMENT: Meaning = Again { at_most: Some(3), not_before: None };
/// Another app controls the thread until its flow ends, which takes minutes; the message ends after half an
/// hour.
const OTHER_APP: Meaning = Again { at_most: Some(6), not_before: Some(Duration::from_secs(5 * 60)) };
/// A passing failure, bounded by `dispatch.max_attempts` alone.
pub(super) const PASSING: Meaning = Again { at_most: None, not_before: None };

const NOTHING: &str = "";
const SETTLE: &str = "settle the row as sent: `log reconcile`, or `log resolve --as ok`";
const TERMS: &str = "accept the terms at Meta";
const WRITES: &str = "wait until the person writes again";
const HAND_OVER: &str = "let the other app hand the conversation over";
const SLOWER: &str = "wait; if the code recurs, lower the line's rate (`line set`)";
pub(super) const MEDIA: &str = "check that the URL is public and fast, and the file's type and size";
pub(super) const RECIPIENT: &str = "check the recipient's id, and that the line received it";
const LINK: &str = "leave the link out, or have Meta review its domain";
const CONNECT: &str = "connect the account at Meta again, then set the new token: `line set-pat`";
const PERMISSION: &str = "grant the permission, or finish the app's review, at Meta; then `line resume`";
const RESTRICTED: &str = "look at the Page's support inbox or the account's status at Meta, and correct or appeal; then `line resume`";
const APP: &str = "check the app in Meta's dashboard; then `line resume`";
const VERSION_ENDED: &str = "set a current version in `graph.base_url`, and restart";
pub(super) const TOKEN: &str = "set a new page token: `line set-pat`";
const SECRET: &str = "check `graph.app_secret` and the line's token";
const ACCESS: &str =
    "let the account's owner allow access to messages in Instagram's settings; then `line resume`";

const TABLE: &[Rule] = &[
    // Server failures. First, so that no rule of subcodes hides that Graph may have taken the message.
    // "Invalid JSON reply" while every message was sent.
    Rule(One(1), Of(&[1357046]), InFactSent, "an error although the message was sent", SETTLE),
    // Seen with a message that was delivered.
    Rule(One(1), Of(&[99]), Server, "unknown error, often a missing permission", PERMISSION),
    Rule(One(1), Any, Server, "unknown error, possibly downtime", NOTHING),
    Rule(One(2), Of(&[2018344]), Final, "the Page has to accept terms about labels", TERMS),
    Rule(One(2), Any, Server, "service error, downtime", NOTHING),
    // 10 and 551 end their message, always.
    Rule(One(10), Of(&[2018278]), Final, "outside the window of 24 hours, Messenger", WRITES),
    Rule(One(10), Of(&[2534022]), Final, "outside the window of 24 hours, Instagram", WRITES),
    Rule(One(10), Of(&[2018065]), Final, "outside the window, and without the permission for news", WRITES),
    Rule(One(10), Of(&[2018108]), Final, "this person cannot receive messages now", WRITES),
    Rule(One(10), Of(&[2018336]), Final, "privacy rules concern the conversation", WRITES),
    Rule(One(10), Of(&[1893015, 1404170]), Final, "opt-in and frequency of marketing", WRITES),
    Rule(One(10), Of(&[1545041]), Final, "the person is not available", WRITES),
    Rule(One(10), Of(&[2018300, 2018321]), Final, "another app controls the conversation", HAND_OVER),
    Rule(
        One(10),
        Of(&[2534077]),
        FinalForLine,
        "the link of Instagram account, Page and user is broken, or two-factor authentication is missing",
        CONNECT,
    ),
    Rule(One(10), Of(&[1893063]), FinalForLine, "the Page may not send for a time", RESTRICTED),
    Rule(One(10), Any, FinalForLine, "a permission is missing, or the app is not live", PERMISSION),
    Rule(
        One(551),
        Of(&[1545041]),
        Final,
        "the person is not available: has blocked the Page, or is deactivated",
        WRITES,
    ),
    Rule(One(551), Any, Final, "the person is not available", WRITES),
    // Subcodes that mean the same under every code left: 1545041 is seen with 200 as well as 551.
    Rule(AnyCode, Of(&[1545041]), Final, "the person is not available", WRITES),
    Rule(AnyCode, Of(&[2018300, 2018321]), OTHER_APP, "another app controls the conversation", HAND_OVER),
    Rule(One(2018300), Any, OTHER_APP, "another app controls the conversation", HAND_OVER),
    Rule(One(2018321), Any, OTHER_APP, "another app controls the conversation", HAND_OVER),
    // Rate limits.
    Rule(One(4), Of(&[2018354]), Final, "frequency of marketing", NOTHING),
    Rule(One(4), Of(&[2018022]), RateApp, "too many messages to phone numbers", SLOWER),
    Rule(One(4), Any, RateApp, "too many calls of the app", SLOWER),
    Rule(One(341), Any, RateApp, "limit of the app", SLOWER),
    Rule(One(9), Of(&[2018352]), Final, "opt-in of marketing", NOTHING),
    Rule(One(9), Any, RateLine, "too many actions", SLOWER),
    Rule(One(17), Any, RateLine, "too many calls of the user", SLOWER),
    Rule(One(32), Any, RateLine, "too many calls of the Page", SLOWER),
    Rule(One(613), Of(&[1893016]), Final, "frequency of marketing", NOTHING),
    Rule(One(613), Of(&[2018338]), Final, "warning of abuse, for this person", NOTHING),
    Rule(One(613), Of(&[1996]), RateApp, "uneven calls of the app", SLOWER),
    Rule(One(613), Of(&[2534040]), RateLine, "too many calls of the line", SLOWER),
    Rule(One(613), Any, RateLine, "too many calls of the line", SLOWER),
    // 80001 Page, 80002 Instagram, 80006 Messenger.
    Rule(Range(80000..=80009), Any, RateUseCase, "business use case limit", SLOWER),
    // Passing failures of one message.
    Rule(One(1200), Of(&[2018012, 2018024]), PASSING, "temporary failure", NOTHING),
    Rule(One(1200), Any, PASSING, "temporary failure", NOTHING),
    Rule(One(389), Any, FETCH, "Meta cannot fetch the video", MEDIA),
    Rule(One(546), Any, Final, "type of file not allowed", MEDIA),
    Rule(One(100), Of(&[2018008]), FETCH, "Meta cannot fetch the URL: TLS, size, too slow", MEDIA),
    Rule(One(100), Of(&[2018294]), SLOW_FETCH, "a video that is too slow or corrupt", MEDIA),
    Rule(One(100), Of(&[2018047]), Final, "type of media not allowed", MEDIA),
    Rule(One(100), Of(&[2018109]), Final, "the attachment is too big", MEDIA),
    Rule(
        One(100),
        Of(&[2018074]),
        UNKNOWN_ATTACHMENT,
        "the attachment's id is unknown, or has ended",
        NOTHING,
    ),
    Rule(One(100), Of(&[2018001]), Final, "no such person, Messenger", RECIPIENT),
    Rule(One(100), Of(&[2534014]), Final, "no such person, Instagram", RECIPIENT),
    Rule(One(100), Of(&[33]), Final, "an object does not exist", RECIPIENT),
    Rule(One(100), Of(&[2534037]), Final, "another app owns the conversation", HAND_OVER),
    Rule(
        One(100),
        Of(&[2018014, 2018034, 2018164, 2018320, 2018328, 1893061, 2534015, 2534025]),
        Final,
        "the content does not fit this kind of message",
        NOTHING,
    ),
    // Refusals of the line, of its app or of this program's calls, whatever is sent.
    Rule(One(100), Of(&[2534013]), LineRefused, "the Page is not linked to the Instagram account", CONNECT),
    Rule(
        One(100),
        Of(&[2534029]),
        LineRefused,
        "the business is blocked from messages on Instagram",
        RESTRICTED,
    ),
    Rule(One(100), Any, Final, "such as no such recipient", RECIPIENT),
    Rule(One(3), Any, LineRefused, "the app lacks a capability", PERMISSION),
    Rule(One(5), Any, LineRefused, "calls are not allowed from this server's address", APP),
    Rule(One(11), Any, LineRefused, "the call is deprecated", VERSION_ENDED),
    Rule(One(12), Any, LineRefused, "the version in `graph.base_url` has ended", VERSION_ENDED),
    Rule(One(15), Any, LineRefused, "the call needs another kind of token", TOKEN),
    Rule(One(101), Any, LineRefused, "the app is not known, or is switched off", APP),
    Rule(One(102), Any, LineRefused, "login or token invalid", TOKEN),
    Rule(One(104), Any, LineRefused, "signature or proof of the call is wrong", SECRET),
    Rule(One(190), Of(&[458]), LineRefused, "the app was removed by the token's user", CONNECT),
    Rule(One(190), Of(&[459, 464]), LineRefused, "the token's user has to log in at facebook.com", CONNECT),
    Rule(One(190), Of(&[460]), LineRefused, "the password of the token's user has changed", TOKEN),
    Rule(One(190), Of(&[463, 467]), LineRefused, "the token has ended", TOKEN),
    Rule(One(190), Of(&[492]), LineRefused, "the token's user has lost the role on the Page", CONNECT),
    Rule(One(190), Any, LineRefused, "token invalid, ended or revoked", TOKEN),
    Rule(One(200), Of(&[2018021]), Final, "fee for matching phone numbers", NOTHING),
    Rule(
        One(200),
        Of(&[2534041]),
        LineRefused,
        "the account's owner turned the app's access to messages off",
        ACCESS,
    ),
    // Of the Page, or for this recipient: an app that is not reviewed still reaches the people with a role in it.
    Rule(
        One(200),
        Of(&[2018027, 2018028]),
        Suspect,
        "the app is not reviewed, and the person has no role in it",
        PERMISSION,
    ),
    Rule(
        Range(200..=299),
        Any,
        Suspect,
        "permission not granted or removed: of the Page, or for this recipient",
        PERMISSION,
    ),
    // Of the Page, or, as with 1346003 (content that others have reported), of this message.
    Rule(
        One(368),
        Of(&[1346003]),
        Suspect,
        "blocked for a time: content that others have reported",
        RESTRICTED,
    ),
    Rule(
        One(368),
        Any,
        Suspect,
        "blocked for a time by Meta's policy: the Page, or this message",
        RESTRICTED,
    ),
    Rule(One(412), Any, LineRefused, "the app is not installed", CONNECT),
    Rule(Range(450..=467), Any, LineRefused, "the session behind the token has ended", TOKEN),
    Rule(One(492), Any, LineRefused, "the token's user has lost the role on the Page", CONNECT),
    Rule(One(506), Any, Final, "duplicate post", NOTHING),
    // Some read it as a restriction of the account; texts without a link still pass.
    Rule(One(508), Of(&[2534122]), Final, "the link may not be shared", LINK),
    Rule(One(508), Any, Final, "the link may not be shared", LINK),
    Rule(One(803), Any, Suspect, "an object does not exist: the recipient, or the Page", RECIPIENT),
    Rule(One(900), Any, LineRefused, "the app does not exist", APP),
    Rule(
        One(2022),
        Any,
        Suspect,
        "blocked for a time after violations: the Page, or this message",
        RESTRICTED,
    ),
    Rule(One(2500), Any, LineRefused, "no active token, or an unknown path", TOKEN),
    Rule(One(36103), Any, LineRefused, "the Instagram account is not eligible", CONNECT),
    Rule(One(9000001), Any, Final, "the message was deleted", NOTHING),
];

/// The subcode of code 100 about an attachment's id.
pub(super) const UNKNOWN_ATTACHMENT_ID: i64 = 2018074;

/// Return the tries, the first included, after which an asset counts as one that Meta cannot fetch or use; `None` if the
/// error is not about the asset.
pub(super) fn tries_of_asset(error: &GraphError) -> Option<u32> {
    match (error.code?, error.subcode) {
        (389, _) | (100, Some(2018008)) => Some(FETCH_TRIES),
        (100, None) if error.message.contains(FETCH_TEXT) => Some(FETCH_TRIES),
        (100, Some(2018294)) => Some(SLOW_FETCH_TRIES),
        // The type is not allowed or does not fit, or the asset is too big.
        (546, _) | (100, Some(2018047 | 2018109)) => Some(1),
        _ => None,
    }
}

/// Return the meaning of an error: that of the settings, else the one that Meta documents; `None` for another code,
/// and without one.
pub(super) fn look_up(error: &GraphError, overrides: &CodeOverrides) -> Option<Meaning> {
    let Some(code) = error.code else {
        return error.is_about_the_token().then_some(LineRefused);
    };
    let of_settings = || overrides.meaning(code, error.subcode);
    let of_text = || if code == 100 { by_text(error) } else { None };
    let of_table = || TABLE.iter().find(|row| row.fits(code, error.subcode)).map(|row| row.2);
    of_settings().or_else(of_text).or_else(of_table)
}

/// Whether a row of the table names the code, and the subcode if there is one.
pub(super) fn is_named(code: i64, subcode: Option<i64>) -> bool {
    TABLE.iter().any(|row| row.fits(code, subcode) && (subcode.is_none() || matches!(row.1, Of(_))))
}

/// Return the remedy for a code; `None` where the table has none.
pub(super) fn remedy(code: i64, subcode: Option<i64>) -> Option<&'static str> {
    let row = TABLE.iter().find(|row| row.fits(code, subcode));
    row.map(|row| row.4).filter(|remedy| !remedy.is_empty())
}

/// Return the meaning of a code 100 about the call itself instead of the message (the wrong kind of token, or
/// the app's settings), or about an asset that was not fetched. A `GraphMethodException` (also 100/33, "does not
/// exist") is about an object: `me`, or the recipient. The text decides only where there is no subcode.
fn by_text(error: &GraphError) -> Option<Meaning> {
    let says = |text: &&str| error.message.contains(*text);
    match error.subcode {
        None if CALLER_TEXTS.iter().any(says) => Some(LineRefused),
        None if says(&FETCH_TEXT) => Some(FETCH),
        None | Some(33) if error.kind == OBJECT_TYPE => Some(Suspect),
        _ => None,
    }
}

impl Rule {
    fn fits(&self, code: i64, subcode: Option<i64>) -> bool {
        let code_fits = match &self.0 {
            One(one) => *one == code,
            Range(range) => range.contains(&code),
            AnyCode => true,
        };
        code_fits
            && match &self.1 {
                Of(subcodes) => subcode.is_some_and(|subcode| subcodes.contains(&subcode)),
                Any => true,
            }
    }
}

/// A row of the table, for people and programs.
#[derive(Debug, Clone)]
pub(super) struct TableRow {
    /// `None`: any code.
    pub codes: Option<RangeInclusive<i64>>,
    /// None: any subcode.
    pub subcodes: &'static [i64],
    pub meaning: Meaning,
    pub cause: &'static str,
    pub remedy: &'static str,
}

/// Return the rows of the table, in its order.
pub(super) fn rows() -> impl Iterator<Item = TableRow> {
    TABLE.iter().map(|row| TableRow {
        codes: match &row.0 {
            One(code) => Some(*code..=*code),
            Range(range) => Some(range.clone()),
            AnyCode => None,
        },
        subcodes: match row.1 {
            Of(subcodes) => subcodes,
            Any => &[],
        },
        meaning: row.2,
        cause: row.3,
        remedy: row.4,
    })
}

/// Return the codes and subcodes of each row of the table, in its order. `None` is any code; an empty list is
/// any subcode.
pub fn known_codes() -> impl Iterator<Item = (Option<RangeInclusive<i64>>, &'static [i64])> {
    rows().map(|row| (row.codes, row.subcodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_subcodes_stand_before_the_default_of_their_code() {
        for (at, row) in TABLE.iter().enumerate() {
            let One(code) = row.0 else { continue };
            let Of(subcodes) = row.1 else { continue };
            let first = |subcode: &i64| TABLE.iter().position(|row| row.fits(code, Some(*subcode)));
            assert!(subcodes.iter().all(|subcode| first(subcode) == Some(at)), "{code} {subcodes:?}");
        }
    }

    #[test]
    fn only_named_subcodes_are_known() {
        assert!(is_named(190, None) && is_named(190, Some(463)) && is_named(200, Some(1545041)));
        assert!(!is_named(190, Some(999)) && !is_named(10, Some(999)) && !is_named(77_777, None));
        assert!(is_named(80006, None) && !is_named(80006, Some(5)));
    }

    #[test]
    fn refusals_of_a_line_have_a_remedy() {
        for row in TABLE.iter().filter(|row| matches!(row.2, LineRefused | FinalForLine | Suspect)) {
            assert!(!row.4.is_empty(), "{}", row.3);
        }
    }
}
