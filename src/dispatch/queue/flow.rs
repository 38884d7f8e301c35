//! The flow of a row: its lane, medium and campaign.

use std::sync::Arc;

use crate::channel::Medium;
use crate::domain::Lane;
use crate::store::{Flow, ReadyRow};

pub(super) type FlowKey = (Lane, Medium, Arc<str>);

pub(super) fn flow_key(row: &ReadyRow) -> FlowKey {
    (row.lane, row.kind.medium(), row.cp_id.as_deref().unwrap_or("").into())
}

pub(super) fn key_of(flow: &Flow) -> FlowKey {
    (flow.lane, flow.medium, flow.campaign.as_str().into())
}
