//! Items that are handed in, and the wait for their answers.

use tokio::sync::oneshot;

use super::super::accept::Admission;
use crate::edge::{Refusal, Refused};
use crate::store::Inserted;

/// Items handed in together.
pub struct ItemChunk(pub Vec<Item>);

pub struct Item {
    pub line: i64,
    pub answer: ItemAnswer,
    /// A note to the sender if the item is logged.
    pub note: Option<String>,
}

pub enum ItemAnswer {
    Known(Result<Inserted, Refused>),
    Awaited(oneshot::Receiver<Admission>),
}

/// Wait until every answer of a chunk is known. Answers that have arrived stay known if the wait is
/// cancelled.
pub async fn settle(chunk: Option<&mut ItemChunk>) {
    let Some(chunk) = chunk else { return };
    for Item { answer, .. } in &mut chunk.0 {
        if let ItemAnswer::Awaited(admission) = answer {
            let admission = admission.await.unwrap_or(Err(Refusal::Unavailable));
            *answer = ItemAnswer::Known(admission.map_err(Refused::from));
        }
    }
}
