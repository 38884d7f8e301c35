//! The turns of lanes, and of the flows of a lane.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::flow::FlowKey;
use super::window::Window;
use crate::channel::Medium;
use crate::domain::Lane;

/// After this many sends from `high` in a row, `bulk` has one, if it has a row to send.
const HIGH_STREAK: u8 = 9;

/// The last turns.
#[derive(Default)]
pub struct FlowRotation {
    /// Sends from `high` since the last from `bulk`, for text and for media.
    streak: [u8; 2],
    last: HashMap<(Lane, Medium), Arc<str>>,
}

impl FlowRotation {
    /// Return the flow of this medium whose turn it is, if any has a row to send.
    pub fn next(&mut self, medium: Medium, flows: &BTreeMap<FlowKey, Window>) -> Option<FlowKey> {
        let streak = &mut self.streak[medium as usize];
        let order = if *streak >= HIGH_STREAK { [Lane::Bulk, Lane::High] } else { [Lane::High, Lane::Bulk] };
        let key =
            order.into_iter().find_map(|lane| flow(self.last.get(&(lane, medium)), lane, medium, flows))?;
        *streak = if key.0 == Lane::High { streak.saturating_add(1) } else { 0 };
        self.last.insert((key.0, medium), key.2.clone());
        Some(key)
    }

    /// Return the flow of the `high` lane whose turn it is, if any has a row to send.
    pub fn next_high(&mut self, medium: Medium, flows: &BTreeMap<FlowKey, Window>) -> Option<FlowKey> {
        let key = flow(self.last.get(&(Lane::High, medium)), Lane::High, medium, flows)?;
        self.streak[medium as usize] = self.streak[medium as usize].saturating_add(1);
        self.last.insert((Lane::High, medium), key.2.clone());
        Some(key)
    }
}

/// Return the next flow of this lane and medium behind the last one.
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
