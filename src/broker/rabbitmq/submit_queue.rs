//! The queues that submissions come from: the shared one, and those of users who have their own.
//!
//! Never here: consuming.

use std::borrow::Cow;
use std::time::Duration;

use lapin::Channel;
use tokio::time::timeout;

use super::super::public;
use super::connection::SessionError;
use super::topology;

const SETUP_TIMEOUT: Duration = Duration::from_secs(15);

/// A queue of submissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SubmitQueue {
    Shared,
    /// Of this user of the broker.
    Of(String),
}

impl SubmitQueue {
    pub(super) fn name(&self) -> String {
        match self {
            SubmitQueue::Shared => public::SUBMIT.to_owned(),
            SubmitQueue::Of(user) => public::submit_of(user),
        }
    }

    /// Return the purpose of a connection that consumes it.
    pub(super) fn purpose(&self) -> Cow<'static, str> {
        match self {
            SubmitQueue::Shared => "intake".into(),
            SubmitQueue::Of(user) => format!("submissions of {user}").into(),
        }
    }

    /// Return how many submissions may be delivered and not acknowledged; also the largest batch. There may be
    /// hundreds of own queues, and each takes its turn with one batch.
    pub(super) fn prefetch(&self) -> u16 {
        match self {
            SubmitQueue::Shared => 500,
            SubmitQueue::Of(_) => 100,
        }
    }

    /// Declare exchanges, queue and bindings where they are missing.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), SessionError> {
        let declared = async {
            match self {
                SubmitQueue::Shared => topology::declare_public(channel).await,
                SubmitQueue::Of(user) => topology::declare_own(channel, user).await,
            }
        };
        timeout(SETUP_TIMEOUT, declared)
            .await
            .map_err(|_| SessionError::Timeout("the declaration of the intake"))??;
        Ok(())
    }
}
