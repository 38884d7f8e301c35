//! The settings of dispatch.

use std::sync::Arc;
use std::time::Duration;

use super::send::call_deadline;
use super::tasks::lease::margin;
use crate::policy::retry::RetryPolicy;
use crate::seal::KeyRing;
use crate::settings::{LimitSettings, On5xx, OnAmbiguous, Settings};

/// The settings of a worker, in the form that dispatch uses.
#[derive(Debug, Clone)]
pub struct DispatchOptions {
    pub concurrency: usize,
    /// Bytes of rows in hand.
    pub memory: u64,
    pub lease: Duration,
    /// The time before the end of a lease after which no call begins.
    pub lease_margin: Duration,
    /// The longest time for which a row is claimed.
    pub call_deadline: Duration,
    pub retry: RetryPolicy,
    /// `dispatch.unknown_refusals`; 0: no limit.
    pub unknown_refusals: u32,
    pub limits: LimitSettings,
    /// The keys that open page tokens.
    pub keys: Arc<KeyRing>,
    pub grace: Duration,
}

impl DispatchOptions {
    pub fn of(settings: &Settings) -> DispatchOptions {
        // Checked when the settings were loaded.
        let keys = settings.security.keys().unwrap_or_default();
        DispatchOptions {
            concurrency: settings.dispatch.concurrency,
            memory: settings.dispatch.memory.as_u64(),
            lease: settings.dispatch.lease,
            lease_margin: margin(settings.dispatch.lease, settings.graph.connect_timeout),
            call_deadline: call_deadline(settings.graph.timeout.max(settings.graph.media_timeout)),
            retry: RetryPolicy {
                base: settings.retry.base,
                cap: settings.retry.cap,
                max_attempts: settings.dispatch.max_attempts,
                line_trials: settings.dispatch.line_trials,
                retry_ambiguous: settings.dispatch.on_ambiguous == OnAmbiguous::Retry,
                retry_5xx: settings.dispatch.on_5xx == On5xx::Retry,
            },
            unknown_refusals: settings.dispatch.unknown_refusals,
            limits: settings.limits.clone(),
            keys: Arc::new(KeyRing::new(keys.iter().map(|key| &**key))),
            grace: settings.shutdown.grace,
        }
    }
}
