//! Meta's codes and what they mean for a message and its line.
//!
//! Sources: Messenger Platform "Common Error Codes", Graph API "Handle Errors" and "Rate Limits", and bodies seen in
//! public issue trackers where those pages are silent. Every code 10 and 551 ends its message at the first answer;
//! a code 10 that is about the app, the Page or its link also stops the line.

use std::time::Duration;

use super::envelope::GraphError;
use super::{PauseTarget, Verdict};

/// What an answer leads to.
#[derive(Debug, Clone)]
pub struct Rule {
    pub verdict: Verdict,
    pub pause: Option<Pause>,
}

/// How a line (or every line of the app) pauses.
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    pub target: PauseTarget,
    pub first: Duration,
    pub cap: Duration,
    /// Whether a time named in a usage header stands instead.
    pub obeys_header: bool,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

const fn pause(target: PauseTarget, first: Duration, cap: Duration, obeys_header: bool) -> Option<Pause> {
    Some(Pause { target, first, cap, obeys_header })
}

const LINE_PAUSE: Option<Pause> = pause(PauseTarget::Line, minutes(30), minutes(240), false);

pub const REFUSED: Rule = Rule { verdict: Verdict::Refused, pause: None };
pub const SERVER_FAILED: Rule = Rule { verdict: Verdict::ServerFailed, pause: None };
pub const AMBIGUOUS: Rule = Rule { verdict: Verdict::Ambiguous, pause: None };
/// The line may not send, and the message waits with it.
pub const LINE: Rule = Rule { verdict: Verdict::WaitForLine, pause: LINE_PAUSE };
/// The message is refused, and the line may not send.
const REFUSED_AND_LINE: Rule = Rule { verdict: Verdict::Refused, pause: LINE_PAUSE };
/// Too fast for this line.
pub const RATE: Rule = Rule {
    verdict: Verdict::TryAgain,
    pause: pause(PauseTarget::Line, Duration::from_secs(1), minutes(1), true),
};
/// The business use case's limit.
const BUSINESS_RATE: Rule =
    Rule { verdict: Verdict::TryAgain, pause: pause(PauseTarget::Line, minutes(15), minutes(60), true) };
/// The app's limit, shared by all its lines.
const APP_RATE: Rule =
    Rule { verdict: Verdict::TryAgain, pause: pause(PauseTarget::App, minutes(5), minutes(60), true) };
const HOLD: Rule = Rule { verdict: Verdict::Hold, pause: None };

const fn retry(at_most: Option<u32>, not_before: Duration) -> Rule {
    Rule { verdict: Verdict::RetryCounted { at_most, not_before }, pause: None }
}

/// The rule for an error's code and subcode; `None` for codes that are not in Meta's tables.
pub fn rule(error: &GraphError) -> Option<Rule> {
    let subcode = error.subcode.unwrap_or(0);
    Some(match (error.code?, subcode) {
        // Meta: the messages were sent, although an error came back.
        (1, 1357046) => HOLD,
        (2, 2018344) => REFUSED,
        (1 | 2, _) => SERVER_FAILED,

        // Marketing messages: opt-in and frequency of one person.
        (4, 2018354) | (9, 2018352) | (613, 1893016 | 2018338) => REFUSED,
        (4 | 341, _) | (613, 1996) => APP_RATE,
        (17 | 32 | 613, _) => RATE,
        (80000..=80014, _) => BUSINESS_RATE,

        // Outside the window, or this person cannot receive messages now.
        (10, 2018278 | 2534022 | 2018065 | 2018108 | 2018336 | 1893015 | 1404170) => REFUSED,
        // No permission, app not live, Page restricted (1893063), link to Instagram broken (2534077).
        (10, _) => REFUSED_AND_LINE,
        (551, _) | (200, 1545041 | 2018021) => REFUSED,

        // Meta could not fetch the asset: its server may have been busy.
        (100, 2018008) | (389, _) => retry(Some(3), Duration::ZERO),
        (100, 2018294) => retry(Some(2), Duration::ZERO),
        (100, 2534013 | 2534029) => LINE,
        (100, 0 | 33) if is_about_the_token(error) => LINE,
        (100 | 506 | 546 | 508 | 9000001, _) => REFUSED,

        (3 | 102 | 190 | 412 | 803 | 900 | 2500 | 36103, _) => LINE,
        (200..=299, _) => LINE,
        // Blocked for a time after a violation of a policy.
        (368 | 2022, _) => LINE,

        (1200, _) => retry(None, Duration::ZERO),
        // Another app or an automated flow has the conversation.
        (2018300 | 2018321, _) => retry(None, minutes(2)),
        _ => return None,
    })
}

/// Code 100 without a subcode is mostly a bad recipient. Only its text tells the rest apart: the secret's proof is
/// missing or wrong, or the token is not a Page's.
fn is_about_the_token(error: &GraphError) -> bool {
    error.message.contains("appsecret_proof")
        || error.message.contains("Object with ID 'me'")
        || error.kind.as_deref() == Some("GraphMethodException")
}
