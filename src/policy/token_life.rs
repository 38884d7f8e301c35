//! The life of a token that ends: when it is refreshed, when people are warned, and what an answer to a refresh means.
//!
//! A token of Instagram Login lasts 60 days, and may be refreshed from its second day to its end (Meta, Instagram
//! Platform, "Refresh Access Token"). The program refreshes it in the second half of its life: a failure then leaves
//! weeks for another try, or for a person.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;

use super::classify::{CallResult, Refusal, asked, number};
use crate::domain::LineId;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A token with less time left is refreshed. Lines begin up to a day earlier, each at its own time.
const REFRESH_BELOW: Duration = Duration::from_secs(30 * 86_400);
/// Meta refuses to refresh a younger token.
const YOUNGEST: Duration = DAY;
/// The time between two tries, and the share by which it differs from line to line and from try to try.
const AFTER_REFUSAL: Duration = DAY;
const AFTER_FAILURE: Duration = HOUR;
const SPREAD: f64 = 0.1;

/// Ends that are nearer are a warning, and an alarm.
pub const WARN_BELOW: Duration = Duration::from_secs(14 * 86_400);
pub const ALARM_BELOW: Duration = Duration::from_secs(3 * 86_400);

/// The known times of a token, by the database's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenLife {
    /// The time until its end; zero: it has ended. `None`: not known.
    pub left: Option<Duration>,
    /// The time since it was set or refreshed. `None`: not known.
    pub held: Option<Duration>,
}

/// The next step with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStep {
    Refresh,
    /// Nothing now; the token is looked at again after this time.
    Wait(Duration),
    /// The token has ended: only a person can replace it.
    Ended,
}

/// Return the next step with a line's token.
pub fn next_step(life: TokenLife, line: LineId) -> TokenStep {
    if life.left.is_some_and(|left| left.is_zero()) {
        return TokenStep::Ended;
    }
    // A token whose end is not known is refreshed once: the answer names the end of its successor.
    let until_due = life.left.map_or(Duration::ZERO, |left| left.saturating_sub(refresh_below(line)));
    let until_old = life.held.map_or(Duration::ZERO, |held| YOUNGEST.saturating_sub(held));
    let wait = until_due.max(until_old);
    if wait.is_zero() { TokenStep::Refresh } else { TokenStep::Wait(wait.min(DAY)) }
}

/// Return the time before its end from which a line's token is refreshed.
fn refresh_below(line: LineId) -> Duration {
    // Lines that were connected together get apart; the factor spreads neighbouring ids over the day.
    let minutes = line.0.unsigned_abs().wrapping_mul(0x9E37_79B9) % (24 * 60);
    REFRESH_BELOW + Duration::from_secs(minutes * 60)
}

/// The nearness of a token's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenAlarm {
    /// Within 14 days.
    Soon,
    /// Within 3 days.
    Near,
    Ended,
}

/// Return the alarm of a token with this time left.
pub fn alarm(left: Duration) -> Option<TokenAlarm> {
    if left.is_zero() {
        return Some(TokenAlarm::Ended);
    }
    let near = (left <= ALARM_BELOW).then_some(TokenAlarm::Near);
    near.or_else(|| (left <= WARN_BELOW).then_some(TokenAlarm::Soon))
}

/// The meaning of an answer to a refresh. `Debug` does not print the token.
#[derive(Debug, Clone)]
pub enum Refreshed {
    New {
        token: SecretString,
        valid_for: Option<Duration>,
    },
    /// Graph refuses the token: `is_ended` for one that has ended or was revoked.
    Refused {
        reason: String,
        is_ended: bool,
    },
    /// The way to Graph failed, or Graph itself.
    Failed {
        reason: String,
    },
}

/// Judge the answer to a refresh.
pub fn judge_refresh(result: &CallResult) -> Refreshed {
    let object = match asked(result) {
        Ok(object) => object,
        Err(refusal) => return refused(&refusal),
    };
    let token = object.get("access_token").and_then(Value::as_str).filter(|token| is_token(token));
    let Some(token) = token else {
        return Refreshed::Failed { reason: "the answer holds no token".to_owned() };
    };
    let seconds = object.get("expires_in").and_then(number).and_then(|seconds| u64::try_from(seconds).ok());
    let valid_for = seconds.filter(|seconds| (1..=MOST_SECONDS).contains(seconds)).map(Duration::from_secs);
    Refreshed::New { token: token.into(), valid_for }
}

/// Ten years: a longer life is no life of a token.
const MOST_SECONDS: u64 = 3_650 * 86_400;
/// Far above the length of any of Meta's tokens.
const MOST_CHARACTERS: usize = 16 * 1024;

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn refused(refusal: &Refusal) -> Refreshed {
    let reason = told(refusal);
    match refusal.is_passing() {
        true => Refreshed::Failed { reason },
        false => Refreshed::Refused { reason, is_ended: refusal.is_about_the_token() },
    }
}

/// Return a refusal as a text, with its codes.
pub fn told(refusal: &Refusal) -> String {
    match (refusal.code, refusal.subcode) {
        (Some(code), Some(subcode)) => format!("Graph code {code}/{subcode}: {}", refusal.text),
        (Some(code), None) => format!("Graph code {code}: {}", refusal.text),
        (None, _) => refusal.text.clone(),
    }
}

/// Return the time until the next try after this answer. `jitter` is uniform in 0.0..1.0.
pub fn next_try(refreshed: &Refreshed, jitter: f64) -> Duration {
    let usual = match refreshed {
        Refreshed::New { .. } | Refreshed::Refused { .. } => AFTER_REFUSAL,
        Refreshed::Failed { .. } => AFTER_FAILURE,
    };
    usual.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use secrecy::ExposeSecret;

    use super::super::classify::GraphAnswer;
    use super::*;

    fn days(days: u64) -> Option<Duration> {
        Some(DAY * u32::try_from(days).expect("a small number"))
    }

    #[rstest]
    #[case::fresh(days(60), Some(HOUR), TokenStep::Wait(DAY))]
    #[case::first_half(days(45), days(15), TokenStep::Wait(DAY))]
    #[case::second_half(days(29), days(31), TokenStep::Refresh)]
    #[case::last_minute(Some(Duration::from_secs(60)), days(59), TokenStep::Refresh)]
    #[case::ended(Some(Duration::ZERO), days(60), TokenStep::Ended)]
    #[case::end_and_age_not_known(None, None, TokenStep::Refresh)]
    #[case::end_not_known_and_young(None, Some(HOUR * 20), TokenStep::Wait(HOUR * 4))]
    #[case::end_not_known_and_old(None, days(2), TokenStep::Refresh)]
    #[case::short_and_young(days(2), Some(HOUR), TokenStep::Wait(HOUR * 23))]
    fn token_is_refreshed_in_the_second_half_of_its_life(
        #[case] left: Option<Duration>,
        #[case] held: Option<Duration>,
        #[case] expected: TokenStep,
    ) {
        assert_eq!(next_step(TokenLife { left, held }, LineId(0)), expected);
    }

    #[test]
    fn lines_are_refreshed_at_different_times() {
        let mut begins: Vec<Duration> = (1..=100).map(|id| refresh_below(LineId(id))).collect();
        assert!(begins.iter().all(|below| (REFRESH_BELOW..REFRESH_BELOW + DAY).contains(below)));
        begins.sort_unstable();
        begins.dedup();
        assert!(begins.len() > 80, "{}", begins.len());
    }

    #[rstest]
    #[case::a_month(days(30), None)]
    #[case::two_weeks(days(14), Some(TokenAlarm::Soon))]
    #[case::three_days(days(3), Some(TokenAlarm::Near))]
    #[case::ended(Some(Duration::ZERO), Some(TokenAlarm::Ended))]
    fn alarms_come_14_and_3_days_before(
        #[case] left: Option<Duration>,
        #[case] expected: Option<TokenAlarm>,
    ) {
        assert_eq!(alarm(left.unwrap_or_default()), expected);
        assert!(TokenAlarm::Soon < TokenAlarm::Near && TokenAlarm::Near < TokenAlarm::Ended);
    }

    fn answer(http_status: u16, body: &str) -> CallResult {
        CallResult::Answer(GraphAnswer { http_status, body: body.into(), ..GraphAnswer::default() })
    }

    #[test]
    fn answer_names_the_successor_and_its_life() {
        let body = r#"{"access_token":"IGAAnew","token_type":"bearer","expires_in":5184000}"#;
        let Refreshed::New { token, valid_for } = judge_refresh(&answer(200, body)) else {
            panic!("a token")
        };
        assert_eq!((token.expose_secret(), valid_for), ("IGAAnew", days(60)));
        assert!(!format!("{:?}", judge_refresh(&answer(200, body))).contains("IGAAnew"));
    }

    #[rstest]
    #[case::ended(
        400,
        r#"{"error":{"code":190,"error_subcode":463,"type":"OAuthException","message":"ended"}}"#,
        Some(true)
    )]
    #[case::too_young(
        400,
        r#"{"error":{"code":100,"type":"IGApiException","message":"too young"}}"#,
        Some(false)
    )]
    #[case::busy(403, r#"{"error":{"code":4,"type":"OAuthException","message":"busy"}}"#, None)]
    #[case::a_gateway(502, "<html>", None)]
    #[case::no_token(200, r#"{"expires_in":5}"#, None)]
    #[case::a_token_of_spaces(200, r#"{"access_token":"a b"}"#, None)]
    fn refusals_are_told_from_failures(#[case] status: u16, #[case] body: &str, #[case] ended: Option<bool>) {
        let refreshed = judge_refresh(&answer(status, body));
        match (&refreshed, ended) {
            (Refreshed::Refused { is_ended, .. }, Some(ended)) => assert_eq!(*is_ended, ended),
            (Refreshed::Failed { .. }, None) => {}
            other => panic!("{other:?}"),
        }
        let wait = next_try(&refreshed, 0.5);
        assert_eq!(wait, if ended.is_some() { DAY } else { HOUR });
        assert!(next_try(&refreshed, 0.0) < wait && wait < next_try(&refreshed, 1.0));
    }
}
