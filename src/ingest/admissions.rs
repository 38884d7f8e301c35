//! Messages on their way to a commit, as they wait for a place in one.
//!
//! A message is quick (of a request: refused at once where too many wait) or patient (of a batch: it waits
//! for a place, and does not crowd out the quick ones). In either lane accounts take turns, and one account
//! has half of the places at most. Never here: the commit.

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::account_queue::AccountQueue;
use crate::edge::{Refusal, Turn, Turns};
use crate::store::{Inserted, NewMessage};

/// Quick messages that may wait; more are refused at once.
const MAX_QUICK: usize = 10_000;
const MAX_QUICK_OF_ACCOUNT: usize = MAX_QUICK / 2;
/// Places of patient messages.
const MAX_PATIENT: usize = 2_000;

/// The result of a message that was handed in.
pub type Admission = Result<Inserted, Refusal>;

pub type AdmissionSender = oneshot::Sender<Admission>;

/// A message, and where its result is awaited.
type Handed = (NewMessage, AdmissionSender);

pub struct Admissions {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    places: Turns,
}

#[derive(Default)]
struct Lanes {
    quick: AccountQueue<Handed>,
    patient: AccountQueue<(Handed, Turn)>,
    /// Whether commits have ended.
    is_closed: bool,
}

impl Default for Admissions {
    fn default() -> Admissions {
        Admissions { lanes: Mutex::default(), arrived: Notify::new(), places: Turns::new(MAX_PATIENT) }
    }
}

impl Admissions {
    /// Hand a message in, or refuse it where too many wait.
    pub fn hand_in(&self, message: NewMessage) -> Result<oneshot::Receiver<Admission>, Refusal> {
        let account = message.submission.account;
        let (answer, answered) = oneshot::channel();
        let mut lanes = self.lanes.lock();
        let is_full = lanes.quick.len() >= MAX_QUICK || lanes.quick.len_of(account) >= MAX_QUICK_OF_ACCOUNT;
        if lanes.is_closed || is_full {
            return Err(Refusal::Unavailable);
        }
        lanes.quick.push(account, (message, answer));
        drop(lanes);
        self.arrived.notify_one();
        Ok(answered)
    }

    /// Hand a message in when it has a place.
    pub async fn hand_in_patiently(
        &self,
        message: NewMessage,
    ) -> Result<oneshot::Receiver<Admission>, Refusal> {
        let account = message.submission.account;
        let place = self.places.take(account).await;
        let (answer, answered) = oneshot::channel();
        let mut lanes = self.lanes.lock();
        if lanes.is_closed {
            return Err(Refusal::Unavailable);
        }
        lanes.patient.push(account, ((message, answer), place));
        drop(lanes);
        self.arrived.notify_one();
        Ok(answered)
    }

    /// Wait until a message is there. For one committer at a time.
    pub async fn arrival(&self) {
        loop {
            {
                let lanes = self.lanes.lock();
                if !lanes.quick.is_empty() || !lanes.patient.is_empty() {
                    return;
                }
            }
            // A message that arrives now leaves a permit.
            self.arrived.notified().await;
        }
    }

    /// Move quick messages into the batch until it has `places` messages.
    pub fn take_quick(&self, batch: &mut Vec<Handed>, places: usize) {
        let mut lanes = self.lanes.lock();
        while batch.len() < places
            && let Some(handed) = lanes.quick.pop()
        {
            batch.push(handed);
        }
    }

    /// Move patient messages into the batch until it has `places` messages.
    pub fn take_patient(&self, batch: &mut Vec<Handed>, places: usize) {
        let mut lanes = self.lanes.lock();
        while batch.len() < places
            && let Some((handed, _place)) = lanes.patient.pop()
        {
            batch.push(handed);
        }
    }

    pub fn has_patient(&self) -> bool {
        !self.lanes.lock().patient.is_empty()
    }

    /// Return a guard that closes the queue when it is dropped.
    pub fn open(&self) -> Open<'_> {
        Open(self)
    }
}

/// A guard: messages are committed until it is dropped. Then none is taken, and those that wait are refused.
pub struct Open<'a>(&'a Admissions);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        *self.0.lanes.lock() = Lanes { is_closed: true, ..Lanes::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;
    use crate::channel::{Class, MessageKind};
    use crate::domain::{AccountId, Lane, LineId, Submission};

    const NOISY: AccountId = AccountId(1);
    const QUIET: AccountId = AccountId(2);

    fn message(account: AccountId) -> NewMessage {
        NewMessage::from(Submission {
            account,
            line: LineId(account.0),
            class: Class::MESSENGER,
            dest: "ann".into(),
            kind: MessageKind::Text,
            mdata: "hello".into(),
            mcaption: None,
            msg_id: None,
            cp_id: None,
            lane: Lane::High,
            send_at: None,
            valid_for: Duration::from_secs(60),
            waiter: None,
        })
    }

    fn accounts(batch: &[Handed]) -> Vec<AccountId> {
        batch.iter().map(|(message, _)| message.submission.account).collect()
    }

    #[test]
    fn flood_of_one_account_leaves_room_for_others() {
        let admissions = Admissions::default();
        let accepted = (0..MAX_QUICK).filter(|_| admissions.hand_in(message(NOISY)).is_ok()).count();
        assert_eq!(accepted, MAX_QUICK_OF_ACCOUNT);
        let _answer = admissions.hand_in(message(QUIET)).expect("its own half of the places");
        let mut batch = Vec::new();
        admissions.take_quick(&mut batch, 3);
        assert_eq!(accounts(&batch), [NOISY, QUIET, NOISY], "it is in the next commit");
    }

    #[test]
    fn patient_flood_leaves_places_to_others() {
        let admissions = Admissions::default();
        let hand_in = |account| admissions.hand_in_patiently(message(account)).now_or_never();
        let placed = (0..MAX_PATIENT).filter(|_| hand_in(NOISY).is_some()).count();
        assert_eq!(placed, MAX_PATIENT / 2);
        assert!(hand_in(QUIET).is_some());
        let mut batch = Vec::new();
        admissions.take_patient(&mut batch, 2);
        assert_eq!(accounts(&batch), [NOISY, QUIET]);
        assert!(hand_in(NOISY).is_some(), "a place is free again");
    }

    #[test]
    fn closed_queue_refuses() {
        let admissions = Admissions::default();
        let open = admissions.open();
        let waiting = admissions.hand_in(message(NOISY)).expect("a place");
        drop(open);
        assert!(waiting.now_or_never().is_some_and(|answer| answer.is_err()));
        assert!(admissions.hand_in(message(QUIET)).is_err_and(|refusal| refusal == Refusal::Unavailable));
        assert!(admissions.arrival().now_or_never().is_none());
    }

    #[test]
    fn arrival_is_seen_before_and_after() {
        let admissions = Admissions::default();
        assert!(admissions.arrival().now_or_never().is_none());
        let _answer = admissions.hand_in(message(NOISY)).expect("a place");
        assert!(admissions.arrival().now_or_never().is_some());
        let mut batch = Vec::new();
        admissions.take_quick(&mut batch, 1);
        assert!(admissions.arrival().now_or_never().is_none(), "a permit of the past is no arrival");
    }
}
