//! Meta's error codes, row by row: the first row that fits decides.
//!
//! Sources: Messenger Platform "Common Error Codes" (June 2026), Graph API "Handling Errors" and "Rate Limits", and
//! for the codes these leave out, bodies reported by users of the API. Add what is learnt as a row here, and nowhere
//! else. Refusals that Meta documents for other calls (payments, linking, calling) need no row: an unknown code of
//! Graph in a 4xx answer is a refusal.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::envelope::GraphError;

/// What a code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This message is refused.
    Final,
    /// This message is refused, and so will be the line's next ones: every code 10 that is not about the recipient.
    FinalForLine,
    /// The line is refused, whatever it sends.
    LineRefused,
    /// Too many calls of the line.
    RateLine,
    /// A business use case limit of the line.
    RateUseCase,
    /// Too many calls of the app.
    RateApp,
    /// Not taken for a passing reason that concerns this message.
    Again { at_most: Option<u32>, not_before: Option<Duration> },
    /// A redirect, or a 4xx without Graph's envelope: somebody else answered, and Graph was not asked.
    NotGraphs,
    /// The server failed, and may have taken the message.
    Server,
    /// An error although everything was sent.
    InFactSent,
    /// Nothing can be told.
    Unclear,
}

/// A row: codes, subcodes, meaning.
struct Row(Codes, Subcodes, Meaning);

enum Codes {
    One(i64),
    Range(RangeInclusive<i64>),
    /// Whatever the code: the subcode says it all.
    Any,
}

enum Subcodes {
    /// One of these.
    Of(&'static [i64]),
    /// Whatever the subcode, or none: the code's default.
    Any,
}

use Codes::{Any as AnyCode, One, Range};
use Meaning::*;
use Subcodes::{Any, Of};

/// Tries in all (the first included) of a message that Meta could not fetch the media of: twice more.
const FETCH: Meaning = Again { at_most: Some(3), not_before: None };
/// The same for a video that took Meta longer than 75 s, or is corrupt: once more.
const SLOW_FETCH: Meaning = Again { at_most: Some(2), not_before: None };
/// Another app controls the thread: until its flow ends, which takes minutes; given up after half an hour.
const OTHER_APP: Meaning = Again { at_most: Some(6), not_before: Some(Duration::from_secs(5 * 60)) };
/// A passing failure, bounded by `dispatch.max_attempts` alone.
const PASSING: Meaning = Again { at_most: None, not_before: None };

const TABLE: &[Row] = &[
    // Server failures. First, so that no rule of subcodes hides that Graph may have taken the message.
    Row(One(1), Of(&[1357046]), InFactSent), // "invalid JSON reply" while every message was sent
    Row(One(1), Any, Server), // unknown, possibly downtime; seen with a message that was delivered
    Row(One(2), Of(&[2018344]), Final), // the Page must accept terms about labels
    Row(One(2), Any, Server), // service error, downtime
    // 10 and 551 end their message, always.
    Row(
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
    // None: permission missing, app not live. 2534077: account links broken. 1893063: Page restricted for a time.
    Row(One(10), Any, FinalForLine),
    Row(One(551), Any, Final), // person not available: blocked the Page, deactivated
    // Subcodes that mean the same under every code left: 1545041 is seen with 200 as well as 551.
    Row(AnyCode, Of(&[1545041]), Final),
    Row(AnyCode, Of(&[2018300, 2018321]), OTHER_APP),
    Row(One(2018300), Any, OTHER_APP),
    Row(One(2018321), Any, OTHER_APP),
    // Rate limits.
    Row(One(4), Of(&[2018354]), Final), // marketing frequency
    Row(One(4), Any, RateApp),
    Row(One(341), Any, RateApp),
    Row(One(9), Of(&[2018352]), Final), // marketing opt-in
    Row(One(9), Any, RateLine),         // too many actions
    Row(One(17), Any, RateLine),
    Row(One(32), Any, RateLine),
    Row(One(613), Of(&[1893016, 2018338]), Final), // marketing frequency; abuse warning for this person
    Row(One(613), Of(&[1996]), RateApp),           // inconsistent call volume of the app
    Row(One(613), Any, RateLine),
    Row(Range(80000..=80009), Any, RateUseCase), // 80001 Page, 80002 Instagram, 80006 Messenger
    // Passing failures of one message.
    Row(One(1200), Any, PASSING), // temporary send failure, try again later
    Row(One(389), Any, FETCH),    // cannot fetch the video's URL
    Row(One(546), Any, Final),    // type of file not allowed
    Row(One(100), Of(&[2018008]), FETCH), // could not fetch the URL: TLS, size, too slow
    Row(One(100), Of(&[2018294]), SLOW_FETCH),
    // Refusals of the line.
    Row(One(100), Of(&[2534013, 2534029]), LineRefused), // Page not linked to Instagram; business blocked there
    Row(One(100), Any, Final),
    Row(One(3), Any, LineRefused),        // the app lacks a capability
    Row(One(102), Any, LineRefused),      // login status or token invalid
    Row(One(190), Any, LineRefused),      // token invalid, expired, revoked
    Row(One(200), Of(&[2018021]), Final), // fee for matching phone numbers
    // Permission not granted or removed; 2018027/2018028 app unreviewed; 2534041 access turned off; 230, 299.
    Row(Range(200..=299), Any, LineRefused),
    Row(One(368), Any, LineRefused),   // temporarily blocked for policy
    Row(One(412), Any, LineRefused),   // app not installed
    Row(One(506), Any, Final),         // duplicate post
    Row(One(508), Any, Final),         // link cannot be shared
    Row(One(803), Any, LineRefused),   // object alias does not exist
    Row(One(900), Any, LineRefused),   // app does not exist
    Row(One(2022), Any, LineRefused),  // temporarily blocked after violations
    Row(One(2500), Any, LineRefused),  // no active token, unknown path
    Row(One(36103), Any, LineRefused), // Instagram account not eligible
    Row(One(9000001), Any, Final),     // message deleted
];

/// What Meta documents for an error; `None` for a code it does not, or none at all.
pub(super) fn look_up(error: &GraphError) -> Option<Meaning> {
    let code = error.code?;
    if concerns_the_caller(code, error) {
        return Some(LineRefused);
    }
    TABLE.iter().find(|row| row.fits(code, error.subcode)).map(|row| row.2)
}

/// Code 100 about the call itself instead of the message: the wrong kind of token, or the app's settings. The only
/// object we name in a path is `me`, so a `GraphMethodException` (also 100/33, "does not exist") is about the line;
/// the text is looked at only where neither subcode nor type tells.
fn concerns_the_caller(code: i64, error: &GraphError) -> bool {
    if code != 100 {
        return false;
    }
    let about_me = error.kind == "GraphMethodException";
    match error.subcode {
        None => {
            about_me
                || ["appsecret_proof", "Object with ID 'me'"].iter().any(|text| error.message.contains(text))
        }
        Some(33) => about_me,
        Some(_) => false,
    }
}

impl Row {
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
