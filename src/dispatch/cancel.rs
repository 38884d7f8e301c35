//! Ends the waiting rows of cancelled campaigns as CANCELLED, and tells those who wait for them.
//!
//! None of them is sent meanwhile: a claim asks for a campaign that runs. Every process that sends looks, whoever owns
//! the lines; rows that another one has locked are left to it. Worst delay from the cancellation: a second, and as long
//! as the rows take (a million of them some tens of seconds). A row that came to wait later (a call that was in flight
//! and is to be retried, a submission that overtook the cancellation) ends within a second too; after
//! [`RECENT`], within [`ALL_EVERY`].

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::feedback::Feedback;
use crate::message::{AccountId, CampaignState, MessageId, Outcome, Status};
use crate::store::{SharedStore, StoreError};

/// Rows one transaction ends.
const BATCH: u32 = 1_000;
const EVERY: Duration = Duration::from_secs(1);
/// Campaigns cancelled this recently are looked at every time; a call in flight then has ended long since.
const RECENT: Duration = Duration::from_secs(15 * 60);
const ALL_EVERY: Duration = Duration::from_secs(5 * 60);

/// Looks until `stop`.
pub async fn run(store: SharedStore, feedback: Feedback, stop: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut all_at = Instant::now();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let all = Instant::now() >= all_at;
        let looking = async {
            for (account, cp_id) in
                store.campaigns(CampaignState::Cancelled, (!all).then_some(RECENT)).await?
            {
                end(&store, &feedback, account, &cp_id).await?;
            }
            Ok::<(), StoreError>(())
        };
        let looked = tokio::select! {
            looked = looking => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Ok(()) if all => all_at = Instant::now() + ALL_EVERY,
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "rows of cancelled campaigns cannot be ended; trying again"),
        }
    }
}

async fn end(
    store: &SharedStore,
    feedback: &Feedback,
    account: AccountId,
    cp_id: &str,
) -> Result<(), StoreError> {
    // Rows that ended are not walked over again.
    let mut after = MessageId(0);
    loop {
        let ended = store.cancel_waiting(account, cp_id, after, BATCH).await?;
        let Some((last, _)) = ended.last() else { return Ok(()) };
        after = *last;
        for (id, waiter) in ended {
            let (status, message_id) = (Status::Cancelled, String::new());
            feedback.ended(Outcome { cdls_id: id, status, status_code: 0, message_id }, waiter.as_deref());
        }
    }
}
