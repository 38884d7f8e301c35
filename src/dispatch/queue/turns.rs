//! Whose turn it is: lanes, and the flows of a lane.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::{FlowKey, Window};
use crate::message::{Lane, Medium};

/// After this many sends from `high` in a row, `bulk` has one, if it has something to send.
const HIGH_STREAK: u8 = 9;

/// Whose turn was last.
#[derive(Default)]
pub struct Turns {
    /// Sends from `high` since the last from `bulk`, text and media.
    streak: [u8; 2],
    last: HashMap<(Lane, Medium), Arc<str>>,
}

impl Turns {
    /// The flow of this medium whose turn it is, if any has a row to send.
    pub fn next(&mut self, medium: Medium, flows: &BTreeMap<FlowKey, Window>) -> Option<FlowKey> {
        let streak = &mut self.streak[medium as usize];
        let order = if *streak >= HIGH_STREAK { [Lane::Bulk, Lane::High] } else { [Lane::High, Lane::Bulk] };
        let key =
            order.into_iter().find_map(|lane| flow(self.last.get(&(lane, medium)), lane, medium, flows))?;
        *streak = if key.0 == Lane::High { streak.saturating_add(1) } else { 0 };
        self.last.insert((key.0, medium), key.2.clone());
        Some(key)
    }
}

/// The next flow of this lane and medium behind the last one.
fn flow(
    last: Option<&Arc<str>>,
    lane: Lane,
    medium: Medium,
    flows: &BTreeMap<FlowKey, Window>,
) -> Option<FlowKey> {
    let first_of = |flows: &mut dyn Iterator<Item = (&FlowKey, &Window)>| {
        flows
            .take_while(|(key, _)| key.0 == lane && key.1 == medium)
            .find(|(_, window)| !window.sendable.is_empty())
            .map(|(key, _)| key.clone())
    };
    let behind = last.map(|last| (lane, medium, last.clone()));
    behind
        .and_then(|behind| first_of(&mut flows.range((Excluded(behind), Unbounded))))
        .or_else(|| first_of(&mut flows.range((lane, medium, Arc::from(""))..)))
}
