//! The rules for webhooks, as `PUT /simulator/webhooks` gives them.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The most `entry` items of a POST, and the most events of an entry, as Meta documents.
const LARGEST_BATCH: usize = 1_000;
const MOST_COPIES: u32 = 100;

/// Where events go, and how they come.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookRules {
    pub url: String,
    /// Signs the events of pages whose app has no secret of its own.
    #[serde(skip_serializing)]
    pub app_secret: Option<SecretString>,
    #[serde(skip_serializing)]
    pub verify_token: Option<SecretString>,
    pub events: Vec<EventKind>,
    /// From the message to its events.
    pub delay_ms: u64,
    /// From the delivery to the read.
    pub read_delay_ms: u64,
    /// How often each POST is sent.
    pub copies: u32,
    pub shuffle: bool,
    /// Whether each event has a POST of its own.
    pub split: bool,
    pub batch: usize,
    /// Whether the signature is wrong.
    pub forge: bool,
    /// Whether events wait for other rules.
    pub hold: bool,
    /// Whether events stand in `standby`, as for an app that does not own the conversation.
    pub standby: bool,
    /// Whether deliveries name message ids.
    pub mids: bool,
    pub timeout_ms: u64,
    pub retry: RetryRules,
}

/// The kinds of event that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    Delivery,
    Read,
    Echo,
    Inbound,
    Enforcement,
}

/// The repetitions of a POST that was not answered with 200.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRules {
    /// Repetitions without a pause.
    pub at_once: u32,
    /// The first pause; later ones double.
    pub base_ms: u64,
    pub cap_ms: u64,
    /// Tries in all.
    pub tries: u32,
}

impl Default for RetryRules {
    fn default() -> RetryRules {
        RetryRules { at_once: 3, base_ms: 1_000, cap_ms: 60_000, tries: 40 }
    }
}

impl RetryRules {
    /// Return the pause before a try, from the second on; `None` after the last one.
    pub(super) fn pause(&self, next_try: u32) -> Option<Duration> {
        if next_try > self.tries {
            return None;
        }
        let Some(doublings) = next_try.checked_sub(self.at_once + 2) else { return Some(Duration::ZERO) };
        let factor = 1_u64.checked_shl(doublings.min(62)).unwrap_or(u64::MAX);
        Some(Duration::from_millis(self.base_ms.saturating_mul(factor).min(self.cap_ms)))
    }
}

impl Default for WebhookRules {
    fn default() -> WebhookRules {
        WebhookRules {
            url: String::new(),
            app_secret: None,
            verify_token: None,
            events: vec![
                EventKind::Delivery,
                EventKind::Read,
                EventKind::Echo,
                EventKind::Inbound,
                EventKind::Enforcement,
            ],
            delay_ms: 0,
            read_delay_ms: 0,
            copies: 1,
            shuffle: false,
            split: false,
            batch: LARGEST_BATCH,
            forge: false,
            hold: false,
            standby: false,
            mids: true,
            timeout_ms: 5_000,
            retry: RetryRules::default(),
        }
    }
}

impl WebhookRules {
    /// Return what is wrong with the rules.
    pub(in crate::simulator) fn check(&self) -> Result<(), String> {
        let url = url::Url::parse(&self.url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err("url: must be an http(s) URL".to_owned());
        }
        if !(1..=MOST_COPIES).contains(&self.copies) {
            return Err(format!("copies: must be 1 to {MOST_COPIES}"));
        }
        if !(1..=LARGEST_BATCH).contains(&self.batch) {
            return Err(format!("batch: must be 1 to {LARGEST_BATCH}"));
        }
        if self.timeout_ms == 0 {
            return Err("timeout_ms: must be above 0".to_owned());
        }
        if self.retry.tries == 0 {
            return Err("retry.tries: must be above 0".to_owned());
        }
        Ok(())
    }

    pub(super) fn wants(&self, kind: EventKind) -> bool {
        self.events.contains(&kind)
    }

    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    pub(super) fn read_delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.saturating_add(self.read_delay_ms))
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_at_once_and_then_with_doubling_pauses() {
        let rules = RetryRules { at_once: 2, base_ms: 100, cap_ms: 300, tries: 7 };
        let pauses: Vec<Option<u64>> = (2..=8)
            .map(|next| rules.pause(next).map(|pause| u64::try_from(pause.as_millis()).expect("short")))
            .collect();
        assert_eq!(pauses, [Some(0), Some(0), Some(100), Some(200), Some(300), Some(300), None]);
    }

    #[test]
    fn wrong_rules_are_named() {
        let good = WebhookRules { url: "http://127.0.0.1:1/hook".to_owned(), ..WebhookRules::default() };
        assert_eq!(good.check(), Ok(()));
        for (rules, key) in [
            (WebhookRules::default(), "url"),
            (WebhookRules { copies: 0, ..good.clone() }, "copies"),
            (WebhookRules { batch: 1_001, ..good.clone() }, "batch"),
        ] {
            assert!(rules.check().is_err_and(|wrong| wrong.starts_with(key)), "{key}");
        }
    }

    #[test]
    fn listed_rules_hold_no_secret() {
        let rules = WebhookRules {
            app_secret: Some("planted".into()),
            verify_token: Some("planted".into()),
            ..WebhookRules::default()
        };
        let listed = serde_json::to_string(&rules).expect("they serialise");
        assert!(!listed.contains("planted"), "{listed}");
    }
}
