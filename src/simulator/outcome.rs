//! Which outcome a recipient's id chooses.

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, HTTP 200 with a message id.
    Sent,
    /// Taken after two seconds.
    Slow,
    /// Refused with this code and subcode (0: none), not taken.
    Code { code: i32, subcode: i32 },
    /// HTTP 403 and type IGApiException, as Instagram answers outside its window.
    InstagramWindow,
    /// HTTP 500 without a code.
    Http500,
    /// Taken, yet answered with HTTP 500 and code 1.
    Taken500,
    /// Read, and never answered.
    Timeout,
    /// The connection is cut after the request was read; not taken.
    Cut,
    /// Taken, then cut.
    TakenCut,
    /// HTTP 200 with a page of HTML.
    Html,
    /// HTTP 200 without a body.
    Empty,
    /// HTTP 200 with JSON that breaks off.
    Truncated,
    /// HTTP 200 without a message id.
    NoId,
}

/// The outcomes, as `simulate --help` shows them.
pub const OUTCOMES_HELP: &str = "\
The recipient's id chooses the outcome, by what stands before its first '-':

  code10-…            code 10/2018278: outside the 24-hour window (HTTP 400)
  igcode10-…          code 10/2534022: the same on Instagram (HTTP 403)
  code10line-…        code 10 without a subcode: the app lacks a permission
  code551-…           code 551/1545041: this person is not available
  code100-…           code 100/2018001: no matching user
  code190-…           code 190/463: the page token has expired
  code613-…           code 613: too many calls
  code4-…             code 4: the app's call limit
  code1200-…          code 1200/2018024: temporary failure
  code1-… code2-…     unknown error, service error (HTTP 500)
  codeN-… codeN_S-…   any code N, with subcode S
  http500-…           HTTP 500 without a code
  taken500-…          taken, yet answered with HTTP 500 and code 1
  timeout-…           the request is read and never answered
  cut-…               the connection is cut after the request was read
  takencut-…          taken, then cut
  html-… empty-…      HTTP 200 with a page of HTML, or with nothing
  truncated-… noid-…  HTTP 200 with JSON that breaks off, or without a message id
  slow-…              sent, after two seconds
  anything else       sent

An 'x' and a number before the '-' let only the first calls for a recipient end so; later ones are sent:
code1200x2-bob fails twice, then is sent. A page token that begins with EXPIRED is answered with code 190/463.";

/// The outcome that a recipient's id asks for, and for how many calls (`None`: for all).
pub fn of(dest: &str) -> (Outcome, Option<u32>) {
    let Some((prefix, _)) = dest.split_once('-') else { return (Outcome::Sent, None) };
    if let Some(outcome) = named(prefix) {
        return (outcome, None);
    }
    if let Some((name, times)) = prefix.rsplit_once('x')
        && let (Some(outcome), Ok(times)) = (named(name), times.parse())
    {
        return (outcome, Some(times));
    }
    (Outcome::Sent, None)
}

fn named(name: &str) -> Option<Outcome> {
    let code = |code, subcode| Some(Outcome::Code { code, subcode });
    match name {
        "code10" => code(10, 2018278),
        "igcode10" => Some(Outcome::InstagramWindow),
        "code10line" => code(10, 0),
        "code551" => code(551, 1545041),
        "code100" => code(100, 2018001),
        "code190" => code(190, 463),
        "code1200" => code(1200, 2018024),
        "http500" => Some(Outcome::Http500),
        "taken500" => Some(Outcome::Taken500),
        "timeout" => Some(Outcome::Timeout),
        "cut" => Some(Outcome::Cut),
        "takencut" => Some(Outcome::TakenCut),
        "html" => Some(Outcome::Html),
        "empty" => Some(Outcome::Empty),
        "truncated" => Some(Outcome::Truncated),
        "noid" => Some(Outcome::NoId),
        "slow" => Some(Outcome::Slow),
        _ => {
            let numbers = name.strip_prefix("code")?;
            let (number, subcode) = numbers.split_once('_').unwrap_or((numbers, "0"));
            code(number.parse().ok()?, subcode.parse().ok()?)
        }
    }
}

impl Outcome {
    /// Whether the message reaches its recipient.
    pub fn delivers(self) -> bool {
        matches!(self, Outcome::Sent | Outcome::Slow | Outcome::Taken500 | Outcome::TakenCut | Outcome::NoId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipients_prefix_chooses_the_outcome_and_how_often() {
        let code = |code, subcode| Outcome::Code { code, subcode };
        for (dest, expected) in [
            ("ann", (Outcome::Sent, None)),
            ("ann-marie", (Outcome::Sent, None)),
            ("code10-ann", (code(10, 2018278), None)),
            ("code10line-ann", (code(10, 0), None)),
            ("code1200x2-bob", (code(1200, 2018024), Some(2))),
            ("code80006-c", (code(80006, 0), None)),
            ("code100_2018008x1-c", (code(100, 2018008), Some(1))),
            ("timeout-d", (Outcome::Timeout, None)),
            ("cutx3-d", (Outcome::Cut, Some(3))),
            ("codex-d", (Outcome::Sent, None)),
            ("code-d", (Outcome::Sent, None)),
            ("max-d", (Outcome::Sent, None)),
        ] {
            assert_eq!(of(dest), expected, "{dest}");
        }
    }

    #[test]
    fn the_help_names_every_outcome() {
        for name in [
            "code10",
            "igcode10",
            "code10line",
            "code551",
            "code100",
            "code190",
            "code613",
            "code4",
            "code1200",
            "code1",
            "code2",
            "http500",
            "taken500",
            "timeout",
            "cut",
            "takencut",
            "html",
            "empty",
            "truncated",
            "noid",
            "slow",
        ] {
            assert!(OUTCOMES_HELP.contains(&format!("{name}-…")), "{name}");
            assert_ne!(of(&format!("{name}-x")).0, Outcome::Sent, "{name}");
        }
    }
}
