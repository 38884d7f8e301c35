//! Rows that wait for an uploaded asset: they stay in hand behind their recipients, and are not sendable, so that the
//! texts and the other media of the line go on.
//!
//! Never here: uploads, and the state of an asset.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::flow::{FlowKey, flow_key};
use super::rows::LineQueue;
use crate::domain::RowId;
use crate::store::{AttachmentKey, ReadyRow};

/// The rows that wait for each asset. Some may have ended meanwhile.
#[derive(Default)]
pub(super) struct Aside {
    rows: HashMap<AttachmentKey, HashSet<(FlowKey, RowId)>>,
}

impl LineQueue {
    /// Make a row sendable again that was taken with [`LineQueue::next`], as if it had not been.
    pub fn put_back(&mut self, row: ReadyRow) {
        self.hold(row.lane, &row.dest, row.id);
        self.insert(row);
    }

    /// Let a row that was taken with [`LineQueue::next`] wait for an asset.
    pub fn set_aside(&mut self, row: ReadyRow, asset: AttachmentKey) {
        let (key, id) = (flow_key(&row), row.id);
        self.put_back(row);
        self.blocked(&key, id);
        self.aside.rows.entry(asset).or_default().insert((key, id));
    }

    /// Make the rows sendable that waited for an asset.
    pub fn release_aside(&mut self, asset: &AttachmentKey) {
        for (key, id) in self.aside.rows.remove(asset).unwrap_or_default() {
            let Some(row) = self.flows.get(&key).and_then(|window| window.rows.get(&id)) else { continue };
            let recipient = self.recipients.get(&(row.lane, Arc::from(row.dest.as_str())));
            let is_next = recipient.is_some_and(|recipient| {
                let first = recipient.waiting.first_key_value().map(|(first, _)| *first);
                recipient.active.is_none() && first == Some(id)
            });
            if is_next {
                self.sendable(&key, id);
            }
        }
    }

    /// Whether rows may wait for the asset.
    pub fn has_aside(&self, asset: &AttachmentKey) -> bool {
        self.aside.rows.contains_key(asset)
    }

    /// Return the number of rows that wait for assets. Rows that have ended meanwhile are forgotten.
    pub fn count_aside(&mut self) -> usize {
        let LineQueue { aside, flows, .. } = self;
        let waits = |key: &FlowKey, id: &RowId| flows.get(key).is_some_and(|flow| flow.rows.contains_key(id));
        aside.rows.retain(|_, rows| {
            rows.retain(|(key, id)| waits(key, id));
            !rows.is_empty()
        });
        aside.rows.values().map(HashSet::len).sum()
    }
}
