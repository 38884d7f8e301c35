//! The care for the rows of the log: room for new ones, the end of old ones, and the counters of campaigns. Each job
//! returns the pause before its next time.

use std::time::Duration;

use crate::store::SharedStore;

/// The time between two checks of the log's room for further ids, and after a check that could make none: at
/// full speed a range is used up within minutes.
const ROOM_EVERY: Duration = Duration::from_secs(10);
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// How often the log is searched for rows older than `log.keep`.
const DROP_EVERY: Duration = Duration::from_secs(3_600);

/// Counters of campaigns that are older than this are folded into totals, so many at once, and how often.
/// Younger ones give the rate of a campaign.
const FOLD_AGE: Duration = Duration::from_secs(120);
const FOLD_AT_ONCE: u32 = 5_000;
const FOLD_EVERY: Duration = Duration::from_secs(10);

/// Make room for the ids to come.
pub(super) async fn make_room(store: SharedStore) -> Duration {
    match store.ensure_room().await {
        Ok(_) => ROOM_EVERY,
        Err(error) => {
            tracing::warn!(%error, "cannot add a range to the log: retrying; `meta-dispatch migrate` also adds it");
            ROOM_AGAIN
        }
    }
}

/// Drop rows that are older than the log is kept.
pub(super) async fn drop_old(store: SharedStore, keep: Duration) -> Duration {
    if let Err(error) = store.drop_old(keep).await {
        tracing::warn!(%error, "cannot drop rows older than log.keep: retrying in an hour");
    }
    DROP_EVERY
}

/// Fold the counters of campaigns, at once again while there are many.
pub(super) async fn fold_counts(store: SharedStore) -> Duration {
    match store.fold_counts(FOLD_AGE, FOLD_AT_ONCE).await {
        Ok(rows) if rows >= u64::from(FOLD_AT_ONCE) => Duration::ZERO,
        Ok(_) => FOLD_EVERY,
        Err(error) => {
            tracing::debug!(%error, "counters of campaigns cannot be folded: they are summed row by row");
            FOLD_EVERY
        }
    }
}
