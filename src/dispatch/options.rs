//! The settings of dispatch.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::send::call_deadline;
use super::tasks::lease::margin;
use super::tasks::reader::RecipientChecks;
use crate::domain::MetadataKey;
use crate::policy::classify::CodeOverrides;
use crate::policy::reconcile::CallLength;
use crate::policy::retry::RetryPolicy;
use crate::reconcile::call_length;
use crate::seal::KeyRing;
use crate::settings::{LimitSettings, On5xx, OnAmbiguous, OnUnfetchable, Settings};

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
    /// `graph.codes`.
    pub codes: CodeOverrides,
    /// `None`: webhooks are off.
    pub metadata_key: Option<MetadataKey>,
    /// The length of calls, for `dispatch.reconcile`; `None`: off.
    pub reconcile: Option<CallLength>,
    pub limits: LimitSettings,
    /// Which facts of recipients end messages.
    pub recipients: RecipientChecks,
    /// `attachments.on_unfetchable`; `None` without `attachments.reuse`.
    pub attachments: Option<OnUnfetchable>,
    /// The keys that open page tokens.
    pub keys: Arc<KeyRing>,
    /// The keys that open the secrets of apps.
    pub app_keys: Arc<KeyRing>,
    pub grace: Duration,
}

impl DispatchOptions {
    pub fn of(settings: &Settings) -> DispatchOptions {
        // Checked when the settings were loaded.
        let keys = settings.security.keys().unwrap_or_default();
        let app_keys = settings.security.app_keys().unwrap_or_default();
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
            codes: settings.graph.code_overrides().unwrap_or_default(),
            metadata_key: MetadataKey::derive(
                settings.webhooks.verify_token.expose_secret(),
                settings.graph.app_secret.expose_secret(),
            ),
            reconcile: settings.dispatch.reconcile.then(|| call_length(&settings.graph)),
            limits: settings.limits.clone(),
            recipients: RecipientChecks {
                window: settings.dispatch.window_check,
                unreachable: settings.dispatch.suppress_unreachable,
            },
            attachments: settings.attachments.reuse.then_some(settings.attachments.on_unfetchable),
            keys: Arc::new(KeyRing::new(keys.iter().map(|key| &**key))),
            app_keys: Arc::new(KeyRing::new(app_keys.iter().map(|key| &**key))),
            grace: settings.shutdown.grace,
        }
    }
}
