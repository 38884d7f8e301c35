//! The metrics of Meta's webhooks: requests, events, and the bodies that wait.

use metrics::{Counter, Gauge, Histogram};

use super::names;
use super::series::of;

/// Meta's words for the kinds of objects that have events, and the word for any other.
const OBJECTS: [&str; 3] = ["page", "instagram", OTHER_OBJECT];
const OTHER_OBJECT: &str = "other";

/// The end of a request of the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookResult {
    /// The body is durable.
    Kept,
    /// No good signature.
    Unsigned,
    TooLarge,
    /// The body did not arrive in time, or broke off.
    BrokenOff,
    /// The body could not be kept; Meta repeats it.
    Unavailable,
}

impl WebhookResult {
    const ALL: [WebhookResult; 5] = [
        WebhookResult::Kept,
        WebhookResult::Unsigned,
        WebhookResult::TooLarge,
        WebhookResult::BrokenOff,
        WebhookResult::Unavailable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            WebhookResult::Kept => "kept",
            WebhookResult::Unsigned => "unsigned",
            WebhookResult::TooLarge => "too_large",
            WebhookResult::BrokenOff => "broken_off",
            WebhookResult::Unavailable => "unavailable",
        }
    }
}

/// The kinds of events that are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppliedKind {
    Delivery,
    Read,
    Echo,
    Inbound,
    Enforcement,
    /// A kind that this version does not know, or that has no effect.
    Unknown,
}

impl AppliedKind {
    const ALL: [AppliedKind; 6] = [
        AppliedKind::Delivery,
        AppliedKind::Read,
        AppliedKind::Echo,
        AppliedKind::Inbound,
        AppliedKind::Enforcement,
        AppliedKind::Unknown,
    ];

    fn as_str(self) -> &'static str {
        match self {
            AppliedKind::Delivery => "delivery",
            AppliedKind::Read => "read",
            AppliedKind::Echo => "echo",
            AppliedKind::Inbound => "inbound",
            AppliedKind::Enforcement => "enforcement",
            AppliedKind::Unknown => "unknown",
        }
    }
}

/// The metrics of webhooks.
pub struct WebhookMetrics {
    received: [(&'static str, [(WebhookResult, Counter); WebhookResult::ALL.len()]); OBJECTS.len()],
    pub verified: Counter,
    pub not_verified: Counter,
    applied: [(AppliedKind, Counter); AppliedKind::ALL.len()],
    pub unreadable: Counter,
    pub delay_seconds: Histogram,
    pub oldest_seconds: Gauge,
    /// Events for other programs that were not published.
    pub inbound_dropped: Counter,
    waiting: Gauge,
    aside: Gauge,
}

impl WebhookMetrics {
    pub(super) fn new() -> WebhookMetrics {
        let received = |object: &'static str| {
            WebhookResult::ALL.map(|result| {
                let labels = [("object", object), ("result", result.as_str())];
                (result, metrics::counter!(names::WEBHOOKS_RECEIVED, &labels))
            })
        };
        WebhookMetrics {
            received: OBJECTS.map(|object| (object, received(object))),
            verified: metrics::counter!(names::WEBHOOK_VERIFICATIONS, "result" => "verified"),
            not_verified: metrics::counter!(names::WEBHOOK_VERIFICATIONS, "result" => "refused"),
            applied: AppliedKind::ALL
                .map(|kind| (kind, metrics::counter!(names::WEBHOOK_EVENTS, "kind" => kind.as_str()))),
            unreadable: metrics::counter!(names::WEBHOOKS_UNREADABLE),
            delay_seconds: metrics::histogram!(names::WEBHOOK_SECONDS),
            oldest_seconds: metrics::gauge!(names::WEBHOOKS_OLDEST),
            inbound_dropped: metrics::counter!(names::INBOUND_DROPPED),
            waiting: metrics::gauge!(names::WEBHOOKS_WAITING),
            aside: metrics::gauge!(names::WEBHOOKS_ASIDE),
        }
    }

    /// Count a request. The object is Meta's word, or any other where the body was not read.
    pub fn received(&self, object: &str, result: WebhookResult) {
        let known = OBJECTS.iter().find(|known| **known == object).unwrap_or(&OTHER_OBJECT);
        let results = self.received.iter().find(|(name, _)| name == known);
        if let Some(counter) = results.and_then(|(_, results)| of(results, result)) {
            counter.increment(1);
        }
    }

    /// Count events as applied.
    pub fn applied(&self, kind: AppliedKind, events: u64) {
        if let Some(counter) = of(&self.applied, kind) {
            counter.increment(events);
        }
    }

    /// Note how many bodies wait, and how many are set aside.
    pub fn waits(&self, waiting: f64, aside: f64) {
        self.waiting.set(waiting);
        self.aside.set(aside);
        if waiting == 0.0 {
            self.oldest_seconds.set(0.0);
        }
    }
}
