//! The task that applies kept bodies: in each process that sends, from the broker's queue or from the inbox of the database.
//!
//! A body ends in one of three ways: it was applied; nothing of it can be read, which is counted and no reason to keep it; or
//! the database refuses its data, or it makes a step panic, alone and again, so that it is set aside. A database that is away
//! is no fault of a body: the bodies in hand wait, and go back where that takes long. Never here: the reading of events, and
//! their effect.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::apply::apply;
use super::echoes::EchoReader;
use super::event::{self, Event, EventKind};
use super::inbound::Inbound;
use super::notice::Notice;
use crate::broker::{KeptWebhook, SharedBroker, WebhookBatch};
use crate::feedback::Feedback;
use crate::metrics::{AppliedKind, METRICS};
use crate::policy::Backoff;
use crate::settings::Settings;
use crate::store::{InboxClaim, InboxWebhook, SharedStore, StoreError};

/// Events that are applied at once.
const AT_ONCE: usize = 2_000;
/// Pauses while the database is away.
const PAUSES: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(15) };
/// How long bodies of the broker are held while the database is away. The broker ends a connection that holds a body for
/// half an hour.
const HOLD: Duration = Duration::from_secs(20 * 60);
/// The claim of bodies in the inbox. Applying them takes much less.
const CLAIM: InboxClaim = InboxClaim { rows: 256, bytes: 8 << 20, length: Duration::from_secs(15) };
/// How often the inbox is looked at, if no commit of this process is heard of.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A body that was claimed so often is applied alone: it may have ended the processes that tried.
const TRIES_TOGETHER: i32 = 2;
/// A body that was claimed more often is set aside.
const MOST_TRIES: i32 = 10;
/// How often the inbox is counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How long bodies that were set aside stay in the inbox.
const ASIDE_FOR: Duration = Duration::from_secs(7 * 86_400);

/// The options of the task.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    echoes: EchoReader,
    /// Whether events are published for other programs.
    publishes: bool,
}

impl IntakeOptions {
    pub fn of(settings: &Settings) -> IntakeOptions {
        IntakeOptions { echoes: EchoReader::of(settings), publishes: settings.events.inbound }
    }
}

/// Applies kept bodies.
pub struct Intake {
    store: SharedStore,
    broker: SharedBroker,
    feedback: Feedback,
    echoes: EchoReader,
    inbound: Option<Inbound>,
    unreadable: Notice,
    away: Notice,
}

/// A body as it came, and the app whose secret has signed it; `None`: that of the settings.
#[derive(Clone, Copy)]
struct SignedBody<'a> {
    bytes: &'a [u8],
    app: Option<&'a str>,
}

/// The end of a try to apply bodies.
#[derive(Debug)]
enum Tried {
    /// All are applied but these, by their places, each with the reason.
    Applied { aside: Vec<(usize, String)> },
    /// None of them may count as applied, for a reason that is not theirs.
    Later,
}

/// The reason why events were not applied.
enum Failure {
    /// The database is away, or refuses for now.
    Later(StoreError),
    /// The reason lies in the events.
    Theirs(String),
}

impl Intake {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        feedback: Feedback,
        options: IntakeOptions,
    ) -> Intake {
        let inbound = options.publishes.then(|| Inbound::new(store.clone(), broker.clone()));
        Intake {
            store,
            broker,
            feedback,
            echoes: options.echoes,
            inbound,
            unreadable: Notice::default(),
            away: Notice::default(),
        }
    }

    /// Apply bodies until `stop`; a batch in hand is finished or given back. `arrived` tells of bodies in the inbox.
    pub async fn run(self, arrived: Arc<Notify>, stop: CancellationToken) {
        match self.broker.take_webhooks() {
            Some(batches) => self.take_from_broker(batches, &stop).await,
            None => self.take_from_inbox(&arrived, &stop).await,
        }
    }

    async fn take_from_broker(&self, mut batches: mpsc::Receiver<WebhookBatch>, stop: &CancellationToken) {
        while let Some(Some(batch)) = stop.run_until_cancelled(batches.recv()).await {
            let bodies: Vec<SignedBody<'_>> = batch
                .webhooks
                .iter()
                .map(|webhook| SignedBody { bytes: &webhook.body, app: webhook.app.as_deref() })
                .collect();
            let held_until = Instant::now() + HOLD;
            let mut failures = 0;
            let aside = loop {
                if let Some(age) = batch.webhooks.first().and_then(age_in_queue) {
                    METRICS.webhooks.oldest_seconds.set(age.as_secs_f64());
                }
                match self.try_to_apply(&bodies).await {
                    Tried::Applied { aside } => break Some(aside),
                    Tried::Later if Instant::now() >= held_until => break None,
                    Tried::Later => {}
                }
                let pause = PAUSES.delay(failures);
                failures += 1;
                if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                    break None;
                }
            };
            // A batch that is dropped goes back to the queue.
            if let Some(aside) = aside {
                told_aside(&aside);
                batch.webhooks.iter().filter_map(age_in_queue).for_each(note_age);
                batch.settle(aside.into_iter().map(|(place, _)| place).collect());
            }
        }
    }

    async fn take_from_inbox(&self, arrived: &Notify, stop: &CancellationToken) {
        let mut failures = 0;
        let mut counted_at: Option<Instant> = None;
        while !stop.is_cancelled() {
            if counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                counted_at = Some(Instant::now());
                self.count_inbox().await;
            }
            let pause = match self.claim_and_apply().await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    LOOK_EVERY
                }
                Err(error) => {
                    self.tell_away(&error);
                    failures += 1;
                    PAUSES.delay(failures)
                }
            };
            let rest = async {
                if failures == 0 {
                    // The time is over, or there is a new body.
                    let _ = timeout(pause, arrived.notified()).await;
                } else {
                    sleep(pause).await;
                }
            };
            stop.run_until_cancelled(rest).await;
        }
    }

    /// Claim bodies of the inbox and apply them. Return whether there were any.
    async fn claim_and_apply(&self) -> Result<bool, StoreError> {
        let claimed = self.store.claim_webhooks(CLAIM).await?;
        if claimed.is_empty() {
            return Ok(false);
        }
        let (often, others): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|webhook| webhook.tries > TRIES_TOGETHER);
        let mut later = self.apply_claimed(&others).await?;
        for webhook in &often {
            if webhook.tries > MOST_TRIES {
                let reason = format!("not applied in {MOST_TRIES} tries");
                self.store.set_webhook_aside(webhook.id, &reason).await?;
                told_aside(&[(0, reason)]);
            } else {
                later |= self.apply_claimed(std::slice::from_ref(webhook)).await?;
            }
        }
        match later {
            true => Err(StoreError::Unavailable("events cannot be applied".to_owned())),
            false => Ok(true),
        }
    }

    /// Apply claimed bodies together. Return whether they wait for the database.
    async fn apply_claimed(&self, claimed: &[InboxWebhook]) -> Result<bool, StoreError> {
        if claimed.is_empty() {
            return Ok(false);
        }
        let bodies: Vec<SignedBody<'_>> = claimed
            .iter()
            .map(|webhook| SignedBody { bytes: &webhook.body, app: webhook.app.as_deref() })
            .collect();
        match self.try_to_apply(&bodies).await {
            Tried::Later => {
                let ids: Vec<i64> = claimed.iter().map(|webhook| webhook.id).collect();
                self.store.release_webhooks(&ids).await?;
                Ok(true)
            }
            Tried::Applied { aside } => {
                told_aside(&aside);
                for (place, reason) in &aside {
                    self.store.set_webhook_aside(claimed[*place].id, reason).await?;
                }
                let is_applied = |place: &usize| !aside.iter().any(|(other, _)| other == place);
                let applied = (0..claimed.len()).filter(is_applied).map(|place| claimed[place].id);
                self.store.delete_webhooks(&applied.collect::<Vec<_>>()).await?;
                let now = time::OffsetDateTime::now_utc();
                let ages = claimed.iter().map(|webhook| now - webhook.received_at);
                ages.filter_map(|age| age.try_into().ok()).for_each(note_age);
                Ok(false)
            }
        }
    }

    async fn count_inbox(&self) {
        match self.store.inbox_state().await {
            Ok(state) => {
                METRICS.webhooks.waits(state.waiting as f64, state.aside as f64);
                METRICS.webhooks.oldest_seconds.set(state.oldest.unwrap_or_default().as_secs_f64());
                if state.aside > 0
                    && let Err(error) = self.store.drop_aside_webhooks(ASIDE_FOR).await
                {
                    tracing::debug!(%error, "webhooks that were set aside cannot be deleted: tried again");
                }
            }
            Err(error) => tracing::debug!(%error, "the inbox of webhooks cannot be counted"),
        }
    }

    /// Apply bodies: together, and where that fails for a reason of theirs, one by one.
    async fn try_to_apply(&self, bodies: &[SignedBody<'_>]) -> Tried {
        let events: Vec<Vec<Event>> = bodies.iter().map(|body| self.read(*body)).collect();
        let tried = match self.apply_all(events.concat()).await {
            Ok(()) => Tried::Applied { aside: Vec::new() },
            Err(Failure::Later(error)) => return self.wait_for(&error),
            Err(Failure::Theirs(reason)) if bodies.len() == 1 => Tried::Applied { aside: vec![(0, reason)] },
            Err(Failure::Theirs(_)) => {
                let mut aside = Vec::new();
                for (place, events) in events.iter().enumerate() {
                    match self.apply_all(events.clone()).await {
                        Ok(()) => {}
                        Err(Failure::Later(error)) => return self.wait_for(&error),
                        Err(Failure::Theirs(reason)) => aside.push((place, reason)),
                    }
                }
                Tried::Applied { aside }
            }
        };
        if let Some(inbound) = &self.inbound {
            inbound.publish(bodies.iter().map(|body| body.bytes)).await;
        }
        if let Tried::Applied { aside } = &tried {
            count_applied(&events, aside);
        }
        tried
    }

    fn wait_for(&self, error: &StoreError) -> Tried {
        self.tell_away(error);
        Tried::Later
    }

    fn tell_away(&self, error: &StoreError) {
        if self.away.is_due() {
            tracing::warn!(%error, "webhooks cannot be applied: kept, and tried again");
        }
    }

    /// Read the events of a body; none of one that cannot be read.
    fn read(&self, SignedBody { bytes: body, app }: SignedBody<'_>) -> Vec<Event> {
        // A panic is reported by the panic hook.
        let read = std::panic::catch_unwind(|| event::read(body));
        let reason = match read {
            Ok(Ok(mut events)) => {
                events.iter_mut().for_each(|event| event.app = app.map(str::to_owned));
                return events;
            }
            Ok(Err(unreadable)) => unreadable.to_string(),
            Err(_) => "its reader panicked".to_owned(),
        };
        METRICS.webhooks.unreadable.increment(1);
        if self.unreadable.is_due() {
            tracing::warn!(
                bytes = body.len(),
                reason,
                "webhook cannot be read: skipped; choose the objects Page and Instagram alone in Meta's dashboard"
            );
        }
        Vec::new()
    }

    async fn apply_all(&self, mut events: Vec<Event>) -> Result<(), Failure> {
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(AT_ONCE));
            let applying = apply(&self.store, &self.feedback, &self.echoes, events);
            match AssertUnwindSafe(applying).catch_unwind().await {
                Ok(Ok(())) => {}
                // A wrong schema or a missing right stops all bodies alike.
                Ok(Err(error @ (StoreError::Rejected(_) | StoreError::Invalid(_)))) => {
                    return Err(Failure::Theirs(error.to_string()));
                }
                Ok(Err(error)) => return Err(Failure::Later(error)),
                Err(_) => return Err(Failure::Theirs("its application panicked".to_owned())),
            }
            events = rest;
        }
        Ok(())
    }
}

/// Count the events of bodies but for those that were set aside.
fn count_applied(events: &[Vec<Event>], aside: &[(usize, String)]) {
    for (place, events) in events.iter().enumerate() {
        if !aside.iter().any(|(other, _)| *other == place) {
            events.iter().for_each(|event| METRICS.webhooks.applied(applied_kind(&event.kind), 1));
        }
    }
}

fn told_aside(aside: &[(usize, String)]) {
    for (_, reason) in aside {
        tracing::error!(
            reason,
            "webhook cannot be applied: set aside for seven days; report the reason, as it is an error of this program"
        );
    }
}

/// Return the age of a body of the broker, whose clock is that of the process that took the body in.
fn age_in_queue(webhook: &KeptWebhook) -> Option<Duration> {
    let received_at = UNIX_EPOCH + Duration::from_secs(webhook.received_at?);
    SystemTime::now().duration_since(received_at).ok()
}

fn note_age(age: Duration) {
    METRICS.webhooks.delay_seconds.record(age.as_secs_f64());
}

fn applied_kind(kind: &EventKind) -> AppliedKind {
    match kind {
        EventKind::Delivery { .. } => AppliedKind::Delivery,
        EventKind::Read { .. } => AppliedKind::Read,
        EventKind::Echo { .. } => AppliedKind::Echo,
        EventKind::Inbound { .. } => AppliedKind::Inbound,
        EventKind::Enforcement { .. } => AppliedKind::Enforcement,
        EventKind::Unknown(_) => AppliedKind::Unknown,
    }
}
