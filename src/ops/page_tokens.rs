//! The page tokens that end soon: counted for metrics, and named in the log 14 and 3 days before, and when they have
//! ended.
//!
//! Never here: a token, and refreshing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::domain::LineId;
use crate::metrics::METRICS;
use crate::policy::token_life::{TokenAlarm, WARN_BELOW, alarm};
use crate::store::{EndingToken, SharedStore};

/// How often the ends are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Tokens that are read; further ones end later.
const MOST: u32 = 10_000;
/// Lines that one look names in the log; the next look names others.
const NAMED_AT_ONCE: usize = 20;

/// The alarms that this process has told, by line.
#[derive(Default)]
struct Told(HashMap<LineId, TokenAlarm>);

/// Look for ever. `warns`: whether this process names lines in the log.
pub async fn watch_page_tokens(store: SharedStore, warns: bool) {
    let mut told = Told::default();
    loop {
        match store.ending_tokens(WARN_BELOW, MOST).await {
            Ok(tokens) => {
                show(&tokens);
                if warns {
                    told.tell(&tokens);
                }
            }
            Err(error) => tracing::debug!(%error, "page tokens that end cannot be counted"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(tokens: &[EndingToken]) {
    let count = |wanted: &[TokenAlarm]| {
        let of = |token: &&EndingToken| alarm(token.left).is_some_and(|alarm| wanted.contains(&alarm));
        tokens.iter().filter(of).count() as f64
    };
    let metrics = &METRICS.page_tokens;
    metrics.ending_soon.set(count(&[TokenAlarm::Soon, TokenAlarm::Near]));
    metrics.ending_near.set(count(&[TokenAlarm::Near]));
    metrics.ended.set(count(&[TokenAlarm::Ended]));
    let first = tokens.iter().find(|token| !token.left.is_zero());
    metrics.first_end.set(first.map_or(0.0, |token| token.expires_at.unix_timestamp() as f64));
}

impl Told {
    fn tell(&mut self, tokens: &[EndingToken]) {
        for token in self.news(tokens) {
            let (line, days_left) = (token.line, token.left.as_secs() / 86_400);
            let error = token.error.as_deref();
            match alarm(token.left) {
                Some(TokenAlarm::Ended) => {
                    tracing::error!(%line, error, "page token has ended: line cannot send; connect it again, and use `line set-pat`");
                }
                Some(TokenAlarm::Near) => {
                    tracing::error!(%line, days_left, error, "page token ends within 3 days: line stops then; connect it again, and use `line set-pat`");
                }
                _ => {
                    tracing::warn!(%line, days_left, error, "page token ends within 14 days: line stops then; `line check` tells how to replace the token");
                }
            }
        }
    }

    /// Return the tokens whose alarm is graver than the one told.
    fn news<'a>(&mut self, tokens: &'a [EndingToken]) -> Vec<&'a EndingToken> {
        let ending: HashSet<LineId> = tokens.iter().map(|token| token.line).collect();
        self.0.retain(|line, _| ending.contains(line));
        let mut news = Vec::new();
        for token in tokens {
            let Some(alarm) = alarm(token.left) else { continue };
            let is_new = self.0.get(&token.line).is_none_or(|told| *told < alarm);
            if is_new && news.len() < NAMED_AT_ONCE {
                self.0.insert(token.line, alarm);
                news.push(token);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn token(line: i64, days: u64) -> EndingToken {
        let left = Duration::from_secs(days * 86_400);
        EndingToken { line: LineId(line), expires_at: OffsetDateTime::UNIX_EPOCH + left, left, error: None }
    }

    #[test]
    fn each_alarm_is_told_once() {
        let mut told = Told::default();
        let mut news =
            |tokens: &[EndingToken]| told.news(tokens).iter().map(|token| token.line.0).collect::<Vec<_>>();
        assert_eq!(news(&[token(1, 2), token(2, 13)]), [1, 2]);
        assert_eq!(news(&[token(1, 2), token(2, 12)]), [0_i64; 0]);
        assert_eq!(news(&[token(1, 0), token(2, 3)]), [1, 2]);
        assert_eq!(news(&[token(1, 0)]), [0_i64; 0]);
        // Its token was replaced, and ends again.
        assert_eq!(news(&[token(2, 14)]), [2]);
    }
}
