//! The outcome of a call, chosen by the first word of its recipient id (up to the first `-`).
//!
//! [`choose`] and [`outcomes_help`] read the same table. Codes, subcodes, HTTP statuses and texts are those
//! seen from Graph (Meta's "Error Codes" pages of Messenger and Graph, and public issues with whole bodies).

use std::borrow::Cow;
use std::sync::OnceLock;

use super::refusal::{
    INVALIDATED, OAUTH, OUTSIDE_WINDOW, PlayedError, RATE_LIMITED, TRY_LATER, UNAVAILABLE, UNEXPECTED_ERROR,
    UNKNOWN_ERROR, message_of,
};

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
    ("cut-applied…", "delivered, with echo and receipts; connection closed without an answer"),
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
    let Some((word, rest)) = dest.split_once('-') else { return ChosenOutcome::sent() };
    let chosen = match rest.strip_prefix(APPLIED) {
        Some(times) if word == "cut" => applied_then_cut(times),
        _ => None,
    };
    chosen.or_else(|| named(word)).unwrap_or_else(ChosenOutcome::sent)
}

/// The second word of `cut-applied`, the one outcome of two words.
const APPLIED: &str = "applied";

/// Read what follows `cut-applied`: the end, `-…`, or `x<K>` before either.
fn applied_then_cut(rest: &str) -> Option<ChosenOutcome> {
    let (times, _) = rest.split_once('-').unwrap_or((rest, ""));
    let first_calls = match times.strip_prefix('x') {
        Some(times) => Some(number(times)?),
        None if times.is_empty() => None,
        None => return None,
    };
    Some(ChosenOutcome {
        label: Cow::Borrowed("cut-applied"),
        reply: PlayedAnswer::Cut,
        delivered: true,
        first_calls,
    })
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
    fn cut_applied_delivers_and_cuts() {
        for (dest, first_calls) in
            [("cut-applied", None), ("cut-applied-ana", None), ("cut-appliedx1-ana", Some(1))]
        {
            let chosen = choose(dest);
            assert_eq!((chosen.reply, chosen.delivered), (PlayedAnswer::Cut, true), "{dest}");
            assert_eq!((&*chosen.label, chosen.first_calls), ("cut-applied", first_calls), "{dest}");
        }
        for dest in ["cut-ana", "cut-appliedly", "cut-appliedx-ana"] {
            assert!(!choose(dest).delivered, "{dest}");
        }
    }

    #[test]
    fn help_names_every_word_once() {
        let help = outcomes_help();
        for row in ROWS {
            assert_eq!(help.matches(&format!("  {}-…", row.word)).count(), 1, "{}", row.word);
        }
    }
}
