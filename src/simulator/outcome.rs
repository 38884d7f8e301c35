//! The outcome of a call, chosen by the first word of its recipient id (up to the first `-`).
//!
//! [`choose`] and [`outcomes_help`] read the same table. Codes, subcodes, HTTP statuses and texts are those
//! seen from Graph (Meta's "Error Codes" pages of Messenger and Graph, and public issues with whole bodies).

use std::borrow::Cow;
use std::sync::OnceLock;

/// How a call ends on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlayedAnswer {
    /// HTTP 200 with a message id.
    Sent,
    /// HTTP 200 with a message id, two seconds later.
    Slow,
    /// Graph's error envelope.
    Error(PlayedError),
    /// An HTTP error with a page of a gateway, without Graph's envelope.
    Gateway(u16),
    /// HTTP 200 with a web page.
    Html,
    /// HTTP 200 with an empty body.
    Empty,
    /// HTTP 200 without `message_id`.
    NoId,
    /// HTTP 200, and the connection closed in the middle of its body.
    Truncated,
    /// No answer, the connection stays open.
    Timeout,
    /// No answer, the connection is closed.
    Cut,
}

/// An error of Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlayedError {
    pub http_status: u16,
    /// `type`.
    pub kind: &'static str,
    pub code: u32,
    pub subcode: Option<u32>,
    pub message: &'static str,
}

/// The chosen outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChosenOutcome {
    /// The outcome's name in lists and counters.
    pub label: Cow<'static, str>,
    pub reply: PlayedAnswer,
    /// Whether the recipient gets the message, whatever the answer to the caller.
    pub delivered: bool,
    /// Only this many first calls to a recipient have the outcome; later ones are sent.
    pub first_calls: Option<u64>,
}

impl ChosenOutcome {
    /// Return the outcome of an ordinary, successful call.
    pub fn sent() -> ChosenOutcome {
        ChosenOutcome {
            label: Cow::Borrowed("sent"),
            reply: PlayedAnswer::Sent,
            delivered: true,
            first_calls: None,
        }
    }

    /// Return the outcome of a call refused before its recipient matters.
    pub fn refused(label: &'static str, error: PlayedError) -> ChosenOutcome {
        ChosenOutcome {
            label: Cow::Borrowed(label),
            reply: PlayedAnswer::Error(error),
            delivered: false,
            first_calls: None,
        }
    }
}

const OAUTH: &str = "OAuthException";

const fn oauth(http_status: u16, code: u32, subcode: Option<u32>, message: &'static str) -> PlayedAnswer {
    PlayedAnswer::Error(PlayedError { http_status, kind: OAUTH, code, subcode, message })
}

/// A row of the table.
struct PlayedOutcome {
    word: &'static str,
    meaning: &'static str,
    delivered: bool,
    reply: PlayedAnswer,
}

const fn lost(word: &'static str, meaning: &'static str, reply: PlayedAnswer) -> PlayedOutcome {
    PlayedOutcome { word, meaning, delivered: false, reply }
}

const fn delivered(word: &'static str, meaning: &'static str, reply: PlayedAnswer) -> PlayedOutcome {
    PlayedOutcome { word, meaning, delivered: true, reply }
}

const OUTSIDE_WINDOW: &str = "(#10) This message is sent outside of allowed window. Learn more about the new policy here: https://developers.facebook.com/docs/messenger-platform/policy-overview";
const UNAVAILABLE: &str = "(#551) This person isn't available right now.";
const TRY_LATER: &str = "(#1200) Temporary send message failure. Please try again later.";
const UNKNOWN_ERROR: &str = "An unknown error occurred";
const UNEXPECTED_ERROR: &str = "An unexpected error has occurred. Please retry your request later.";

const ROWS: &[PlayedOutcome] = &[
    lost("code10", "10/2018278 HTTP 400: outside the window", oauth(400, 10, Some(2018278), OUTSIDE_WINDOW)),
    lost(
        "igcode10",
        "10/2534022 HTTP 403 IGApiException: outside the window, Instagram",
        PlayedAnswer::Error(PlayedError {
            http_status: 403,
            kind: "IGApiException",
            code: 10,
            subcode: Some(2534022),
            message: "This message is sent outside of allowed window.",
        }),
    ),
    lost(
        "code10line",
        "10 without subcode HTTP 400: the app lacks the permission",
        oauth(400, 10, None, "(#10) Application does not have permission for this action"),
    ),
    lost(
        "code551",
        "551/1545041 HTTP 400: person not available",
        oauth(400, 551, Some(1545041), UNAVAILABLE),
    ),
    lost(
        "code100",
        "100/2018001 HTTP 400: no such recipient",
        oauth(400, 100, Some(2018001), "(#100) No matching user found"),
    ),
    lost(
        "code190",
        "190/460 HTTP 400: the page token is no longer valid",
        oauth(400, 190, Some(460), INVALIDATED),
    ),
    lost("code613", "613 HTTP 400: rate limit of the line", oauth(400, 613, None, RATE_LIMITED)),
    lost(
        "code4",
        "4 HTTP 403: rate limit of the app",
        oauth(403, 4, None, "(#4) Application request limit reached"),
    ),
    lost("code1200", "1200 HTTP 400: temporary failure", oauth(400, 1200, None, TRY_LATER)),
    lost("code1", "1 HTTP 500: unknown error", oauth(500, 1, None, UNKNOWN_ERROR)),
    lost("code2", "2 HTTP 500: service error", oauth(500, 2, None, UNEXPECTED_ERROR)),
    lost("http500", "HTTP 500 with a gateway's page (http<N>: 400 to 599)", PlayedAnswer::Gateway(500)),
    delivered("taken500", "delivered, answered 1 HTTP 500", oauth(500, 1, None, UNKNOWN_ERROR)),
    lost("timeout", "request read, never answered", PlayedAnswer::Timeout),
    delivered("takentimeout", "delivered, never answered", PlayedAnswer::Timeout),
    lost("cut", "request read, connection closed without an answer", PlayedAnswer::Cut),
    delivered("takencut", "delivered, connection closed without an answer", PlayedAnswer::Cut),
    lost("html", "HTTP 200 with a web page", PlayedAnswer::Html),
    lost("empty", "HTTP 200 with an empty body", PlayedAnswer::Empty),
    delivered(
        "truncated",
        "delivered, HTTP 200, connection closed in the middle of the body",
        PlayedAnswer::Truncated,
    ),
    delivered("noid", "delivered, HTTP 200 without message_id", PlayedAnswer::NoId),
    delivered("slow", "sent, answered after 2 s", PlayedAnswer::Slow),
];

/// The words that stand for many.
const PATTERNS: &[(&str, &str)] = &[
    (
        "code<N>[_<SUBCODE>]-…",
        "the error with this code, e.g. code10_1893063-ana; codes 1 and 2 HTTP 500, 4 and 230 HTTP 403, else 400",
    ),
    ("igcode<N>[_<SUBCODE>]-…", "the same as IGApiException; code 10 HTTP 403"),
    ("<word>x<K>-…", "that outcome for the first K calls to this recipient, then sent, e.g. code1200x2-ana"),
    ("anything else", "sent"),
];

/// Return the table of outcomes as text, a line each, for `--help`.
pub fn outcomes_help() -> &'static str {
    static HELP: OnceLock<String> = OnceLock::new();
    HELP.get_or_init(|| {
        let rows = ROWS.iter().map(|row| (format!("{}-…", row.word), row.meaning));
        let patterns = PATTERNS.iter().map(|(word, meaning)| ((*word).to_owned(), *meaning));
        rows.chain(patterns).fold(
            String::from("The part of the recipient id before its first \"-\" chooses the outcome:\n"),
            |text, (word, meaning)| format!("{text}  {word:<24} {meaning}\n"),
        )
    })
}

/// Return the outcome of a call to this recipient.
pub(super) fn choose(dest: &str) -> ChosenOutcome {
    dest.split_once('-').and_then(|(word, _)| named(word)).unwrap_or_else(ChosenOutcome::sent)
}

fn named(word: &str) -> Option<ChosenOutcome> {
    if let Some(row) = ROWS.iter().find(|row| row.word == word) {
        return Some(ChosenOutcome {
            label: Cow::Borrowed(row.word),
            reply: row.reply,
            delivered: row.delivered,
            first_calls: None,
        });
    }
    if let Some((word, times)) = word.rsplit_once('x')
        && let Some(times) = number(times)
    {
        let chosen = named(word)?;
        return chosen.first_calls.is_none().then_some(ChosenOutcome { first_calls: Some(times), ..chosen });
    }
    let reply = if let Some(status) = word.strip_prefix("http") {
        PlayedAnswer::Gateway(number(status).filter(|status| (400..=599).contains(status))?)
    } else if let Some(code) = word.strip_prefix("igcode") {
        PlayedAnswer::Error(graph_error(code, "IGApiException")?)
    } else {
        PlayedAnswer::Error(graph_error(word.strip_prefix("code")?, OAUTH)?)
    };
    Some(ChosenOutcome { label: Cow::Owned(word.to_owned()), reply, delivered: false, first_calls: None })
}

/// Read `<N>[_<SUBCODE>]`.
fn graph_error(text: &str, kind: &'static str) -> Option<PlayedError> {
    let (code, subcode) = match text.split_once('_') {
        Some((code, subcode)) => (number(code)?, Some(number(subcode)?)),
        None => (number(text)?, None),
    };
    let http_status = match code {
        1 | 2 => 500,
        4 | 230 => 403,
        10 if kind != OAUTH => 403,
        _ => 400,
    };
    Some(PlayedError { http_status, kind, code, subcode, message: message_of(code, subcode) })
}

/// Read digits only: `parse` alone would take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Return Graph's own words for a code and subcode, where they are known.
fn message_of(code: u32, subcode: Option<u32>) -> &'static str {
    match (code, subcode) {
        (1, _) => UNKNOWN_ERROR,
        (2, _) => UNEXPECTED_ERROR,
        (10, Some(2018278 | 2018065 | 2534022)) => OUTSIDE_WINDOW,
        (10, _) => "(#10) Application does not have permission for this action",
        (100, _) => "(#100) Invalid parameter",
        (190, _) => INVALIDATED,
        (551, _) | (200, Some(1545041)) => UNAVAILABLE,
        (613, _) => RATE_LIMITED,
        (1200, _) => TRY_LATER,
        (80001 | 80002 | 80006, _) => {
            "There have been too many calls to this account. Wait a bit and try again. For more info, please refer to https://developers.facebook.com/docs/graph-api/overview/rate-limiting."
        }
        _ => "The simulator was asked for this error",
    }
}

const INVALIDATED: &str = "Error validating access token: The session has been invalidated because the user changed their password or Facebook has changed the session for security reasons.";
const RATE_LIMITED: &str = "(#613) Calls to this api have exceeded the rate limit.";

/// The token's own limit is reached.
pub(super) const OVER_LIMIT: PlayedError =
    PlayedError { http_status: 400, kind: OAUTH, code: 613, subcode: None, message: RATE_LIMITED };

/// No `Authorization: Bearer`.
pub(super) const NO_TOKEN: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 2500,
    subcode: None,
    message: "An active access token must be used to query information about the current user.",
};

/// The token's time is over.
pub(super) const EXPIRED_TOKEN: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 190,
    subcode: Some(463),
    message: "Error validating access token: Session has expired. The current time is after its end.",
};

/// The app demands `appsecret_proof`, and there is none or a wrong one.
pub(super) const WRONG_PROOF: PlayedError = PlayedError {
    http_status: 400,
    kind: "GraphMethodException",
    code: 100,
    subcode: None,
    message: "Invalid appsecret_proof provided in the API argument",
};

/// A request that is not `POST …/me/messages`.
pub(super) const UNKNOWN_PATH: PlayedError = PlayedError {
    http_status: 400,
    kind: OAUTH,
    code: 2500,
    subcode: None,
    message: "Unknown path components: the simulator knows POST /me/messages only",
};

/// Return the error for a body that Graph does not take.
pub(super) const fn wrong_parameter(message: &'static str) -> PlayedError {
    PlayedError { http_status: 400, kind: OAUTH, code: 100, subcode: None, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(dest: &str) -> (u16, u32, Option<u32>) {
        match choose(dest).reply {
            PlayedAnswer::Error(error) => (error.http_status, error.code, error.subcode),
            other => panic!("{dest} is {other:?}"),
        }
    }

    #[test]
    fn id_without_a_known_word_is_sent() {
        for dest in [
            "2531000000000001",
            "code10",
            "bob-cut",
            "code-1",
            "codex2-bob",
            "code+1-bob",
            "code1x1x1-bob",
            "",
        ] {
            assert_eq!(choose(dest), ChosenOutcome::sent(), "{dest}");
        }
    }

    #[test]
    fn any_code_and_subcode_can_be_chosen() {
        assert_eq!(error("code10_1893063-bob"), (400, 10, Some(1893063)));
        assert_eq!(error("code1_1357046-bob"), (500, 1, Some(1357046)));
        assert_eq!(error("code80006-bob"), (400, 80006, None));
        assert_eq!(error("igcode10_2534077-bob"), (403, 10, Some(2534077)));
    }

    #[test]
    fn count_limits_an_outcome_to_first_calls() {
        assert_eq!(choose("code1200x2-bob").first_calls, Some(2));
        assert_eq!(choose("takencutx1-bob").first_calls, Some(1));
        assert_eq!(error("code10_2018108x3-bob"), (400, 10, Some(2018108)));
        assert_eq!(choose("http503x1-bob").reply, PlayedAnswer::Gateway(503));
    }

    #[test]
    fn help_names_every_word_once() {
        let help = outcomes_help();
        for row in ROWS {
            assert_eq!(help.matches(&format!("  {}-…", row.word)).count(), 1, "{}", row.word);
        }
    }
}
