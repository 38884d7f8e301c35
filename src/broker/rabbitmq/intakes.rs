//! The intakes of a process: one for the shared queue, and one for each user with a queue of its own.
//!
//! The set of users may change at any time. Never here: the list of users with a queue, which is in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::intake::IntakeBatch;
use super::super::public;
use super::intake::{Intake, IntakeHealth};
use super::submit_queue::SubmitQueue;

/// The intakes of users, and what a further one needs.
pub(super) struct Intakes {
    batches: mpsc::Sender<IntakeBatch>,
    longest_body: usize,
    /// The end of all intakes.
    stop: CancellationToken,
    /// The end of each user's intake.
    users: BTreeMap<String, CancellationToken>,
}

impl Intakes {
    pub(super) fn new(
        batches: mpsc::Sender<IntakeBatch>,
        longest_body: usize,
        stop: CancellationToken,
    ) -> Intakes {
        Intakes { batches, longest_body, stop, users: BTreeMap::new() }
    }

    /// Return the intake of the shared queue.
    pub(super) fn shared(&self, health: Arc<IntakeHealth>) -> Intake {
        Intake::new(SubmitQueue::Shared, self.batches.clone(), self.longest_body, health)
    }

    /// End the intakes of other users than these. Return the intakes that are missing, each with its end.
    pub(super) fn of_users(&mut self, users: &[String]) -> Vec<(Intake, CancellationToken)> {
        self.users.retain(|user, end| {
            let stays = users.contains(user);
            if !stays {
                tracing::info!(user, "user without a queue: its submissions are no longer taken in");
                end.cancel();
            }
            stays
        });
        let mut missing = Vec::new();
        // A longer name, which only SQL can have put there, is no part of a queue's name.
        let new = |user: &&String| !self.users.contains_key(*user) && user.len() <= public::LONGEST_USER;
        for user in users.iter().filter(new).cloned().collect::<Vec<_>>() {
            let end = self.stop.child_token();
            let queue = SubmitQueue::Of(user.clone());
            let intake = Intake::new(queue, self.batches.clone(), self.longest_body, Arc::default());
            self.users.insert(user, end.clone());
            missing.push((intake, end));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Session;
    use super::*;

    #[test]
    fn each_user_has_one_intake_while_it_has_a_queue() {
        let (batches, _taken) = mpsc::channel(1);
        let mut intakes = Intakes::new(batches, 10, CancellationToken::new());
        let mut begin = |users: &[&str]| {
            let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
            intakes.of_users(&users)
        };
        let begun = begin(&["shop", "clinic"]);
        let purposes: Vec<_> = begun.iter().map(|(intake, _)| intake.purpose().into_owned()).collect();
        assert_eq!(purposes, ["submissions of shop", "submissions of clinic"]);
        assert!(begin(&["clinic", "shop"]).is_empty());
        assert!(begin(&["clinic"]).is_empty());
        let ended: Vec<bool> = begun.iter().map(|(_, end)| end.is_cancelled()).collect();
        assert_eq!(ended, [true, false]);
        assert_eq!(begin(&["clinic", "shop"]).len(), 1, "it has a queue again");
    }
}
