//! Meta's webhooks in a process: the door in one that takes requests, and the tasks that apply events in one that sends.
//!
//! Where both are on, `serve` has both. A process of the role `ingest` keeps bodies and applies none: it may not pause a
//! line.

use std::sync::Arc;

use anyhow::Result;

use super::Parts;
use crate::webhooks::http::Door;
use crate::webhooks::{self, Apps, Intake, IntakeOptions, Keeper};

impl Parts<'_> {
    /// Open the door for webhooks, with the tasks behind it; without a verify token it stays shut.
    pub(super) fn webhook_door(&mut self) -> Result<Door> {
        if !self.settings.webhooks.is_on() {
            return Ok(Door::shut());
        }
        let apps = Arc::new(Apps::new(self.store.clone(), self.settings)?);
        let followed = apps.clone();
        self.repeat("apps", move |_| {
            let apps = followed.clone();
            async move { apps.follow().await }
        });
        let arrived = self.webhooks_arrived.clone();
        let (keeper, writer) = Keeper::new(self.broker.clone(), self.store.clone(), arrived);
        if let Some(writer) = writer {
            self.tasks.spawn("webhook inbox", writer.run());
        }
        Ok(Door::open(apps, keeper))
    }

    /// Apply the events of webhooks, and receipts that came before the outcome of their message.
    pub(super) fn apply_webhooks(&mut self) {
        if !self.settings.webhooks.is_on() {
            return;
        }
        let options = IntakeOptions::of(self.settings);
        let (store, feedback) = (self.store.clone(), self.feedback.clone());
        let intake = Intake::new(store.clone(), self.broker.clone(), feedback.clone(), options);
        let arrived = self.webhooks_arrived.clone();
        self.tasks.spawn("webhooks", intake.run(arrived, self.stopping.clone()));
        self.tasks.spawn("early receipts", webhooks::apply_early(store, feedback, self.ended.clone()));
    }
}
