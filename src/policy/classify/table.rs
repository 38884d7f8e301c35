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
    /// The answer decides nothing.
    Unclear,
}

/// A row: codes, subcodes, meaning.
struct Rule(Codes, Subcodes, Meaning);

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
const FETCH: Meaning = Again { at_most: Some(3), not_before: None };
/// The same for a video that took Meta longer than 75 s, or is corrupt: one more.
const SLOW_FETCH: Meaning = Again { at_most: Some(2), not_before: None };
/// Another app controls the thread until its flow ends, which takes minutes; the message ends after half an
/// hour.
const OTHER_APP: Meaning = Again { at_most: Some(6), not_before: Some(Duration::from_secs(5 * 60)) };
/// A passing failure, bounded by `dispatch.max_attempts` alone.
const PASSING: Meaning = Again { at_most: None, not_before: None };

const TABLE: &[Rule] = &[
    // Server failures. First, so that no rule of subcodes hides that Graph may have taken the message.
    Rule(One(1), Of(&[1357046]), InFactSent), // "invalid JSON reply" while every message was sent
    Rule(One(1), Any, Server), // unknown, possibly downtime; seen with a message that was delivered
    Rule(One(2), Of(&[2018344]), Final), // the Page must accept terms about labels
    Rule(One(2), Any, Server), // service error, downtime
    // 10 and 551 end their message, always.
    Rule(
        One(10),
        Of(&[
            2018278, // outside the allowed window, Messenger
            2534022, // outside the allowed window, Instagram
            2018065, // outside the window, needs the permission for news
            2018108, // this person cannot receive messages now
            2018336, // thread impacted by privacy rules
            1893015, 1404170, // marketing opt-in and frequency
            1545041, // this person is not available
            2018300, 2018321, // another app controls the thread
        ]),
        Final,
    ),
    // None: permission missing, app not live. 2534077: account links broken. 1893063: Page restricted for a
    // time.
    Rule(One(10), Any, FinalForLine),
    Rule(One(551), Any, Final), // person not available: blocked the Page, deactivated
    // Subcodes that mean the same under every code left: 1545041 is seen with 200 as well as 551.
    Rule(AnyCode, Of(&[1545041]), Final),
    Rule(AnyCode, Of(&[2018300, 2018321]), OTHER_APP),
    Rule(One(2018300), Any, OTHER_APP),
    Rule(One(2018321), Any, OTHER_APP),
    // Rate limits.
    Rule(One(4), Of(&[2018354]), Final), // marketing frequency
    Rule(One(4), Any, RateApp),
    Rule(One(341), Any, RateApp),
    Rule(One(9), Of(&[2018352]), Final), // marketing opt-in
    Rule(One(9), Any, RateLine),         // too many actions
    Rule(One(17), Any, RateLine),
    Rule(One(32), Any, RateLine),
    Rule(One(613), Of(&[1893016, 2018338]), Final), // marketing frequency; abuse warning for this person
    Rule(One(613), Of(&[1996]), RateApp),           // inconsistent call volume of the app
    Rule(One(613), Any, RateLine),
    Rule(Range(80000..=80009), Any, RateUseCase), // 80001 Page, 80002 Instagram, 80006 Messenger
    // Passing failures of one message.
    Rule(One(1200), Any, PASSING), // temporary send failure, try again later
    Rule(One(389), Any, FETCH),    // cannot fetch the video's URL
    Rule(One(546), Any, Final),    // type of file not allowed
    Rule(One(100), Of(&[2018008]), FETCH), // could not fetch the URL: TLS, size, too slow
    Rule(One(100), Of(&[2018294]), SLOW_FETCH),
    // Refusals of the line, of its app or of this program's calls, whatever is sent.
    Rule(One(100), Of(&[2534013, 2534029]), LineRefused), // Page not linked to Instagram; business blocked there
    Rule(One(100), Any, Final),
    Rule(One(3), Any, LineRefused),              // the app lacks a capability
    Rule(One(5), Any, LineRefused), // calls of the app are not allowed from this server's address
    Rule(One(11), Any, LineRefused), // the call is deprecated
    Rule(One(12), Any, LineRefused), // the API version of graph.base_url has ended
    Rule(One(15), Any, LineRefused), // the call needs another kind of token
    Rule(One(101), Any, LineRefused), // the app is not known, or is switched off
    Rule(One(102), Any, LineRefused), // login status or token invalid
    Rule(One(104), Any, LineRefused), // the call's signature or proof is wrong
    Rule(One(190), Any, LineRefused), // token invalid, expired, revoked
    Rule(One(200), Of(&[2018021]), Final), // fee for matching phone numbers
    Rule(One(200), Of(&[2534041]), LineRefused), // the account's owner has turned the app's access to messages off
    // Permission not granted or removed, also 230 and 299: of the Page, or for this recipient. 2018027 and
    // 2018028, an app that is not reviewed, still reach the people with a role in the app.
    Rule(Range(200..=299), Any, Suspect),
    // Temporarily blocked for policy: the Page, or, as with 1346003 (content that others have reported), this
    // message.
    Rule(One(368), Any, Suspect),
    Rule(One(412), Any, LineRefused),         // app not installed
    Rule(Range(450..=467), Any, LineRefused), // the session behind the token: expired, its user logged out or locked
    Rule(One(492), Any, LineRefused),         // the token's user has lost the role on the Page
    Rule(One(506), Any, Final),               // duplicate post
    Rule(One(508), Any, Final),               // link cannot be shared
    Rule(One(803), Any, Suspect),             // an object does not exist: the recipient, or the Page
    Rule(One(900), Any, LineRefused),         // app does not exist
    Rule(One(2022), Any, Suspect), // temporarily blocked after violations; also said of one message
    Rule(One(2500), Any, LineRefused), // no active token, unknown path
    Rule(One(36103), Any, LineRefused), // Instagram account not eligible
    Rule(One(9000001), Any, Final), // message deleted
];

/// Return the meaning that Meta documents for an error; `None` for another code, and without one.
pub(super) fn look_up(error: &GraphError) -> Option<Meaning> {
    let Some(code) = error.code else {
        return error.is_about_the_token().then_some(LineRefused);
    };
    let of_caller = if code == 100 { concerns_the_caller(error) } else { None };
    of_caller.or_else(|| TABLE.iter().find(|row| row.fits(code, error.subcode)).map(|row| row.2))
}

/// Return the meaning of a code 100 about the call itself instead of the message: the wrong kind of token, or
/// the app's settings. A `GraphMethodException` (also 100/33, "does not exist") is about an object: `me`, or
/// the recipient. The text decides only where there is no subcode.
fn concerns_the_caller(error: &GraphError) -> Option<Meaning> {
    let says = |text: &&str| error.message.contains(*text);
    match error.subcode {
        None if ["appsecret_proof", "Object with ID 'me'"].iter().any(says) => Some(LineRefused),
        None | Some(33) if error.kind == "GraphMethodException" => Some(Suspect),
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

/// Return the codes and subcodes of each row of the table, in its order. `None` is any code; an empty list is
/// any subcode.
pub fn known_codes() -> impl Iterator<Item = (Option<RangeInclusive<i64>>, &'static [i64])> {
    TABLE.iter().map(|row| {
        let codes = match &row.0 {
            One(code) => Some(*code..=*code),
            Range(range) => Some(range.clone()),
            AnyCode => None,
        };
        let subcodes: &'static [i64] = match &row.1 {
            Of(subcodes) => subcodes,
            Any => &[],
        };
        (codes, subcodes)
    })
}
