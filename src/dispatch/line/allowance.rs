//! The calls that Meta's budgets leave to a line until it is looked at again. Never here: the budgets.

use tokio::time::Instant;

use super::actions::LineActions;
use super::actor::Line;
use super::pump::sooner;
use crate::channel::Medium;

/// Calls of a line that may be claimed in one look.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub high: u32,
    pub bulk: u32,
    /// Whether `high` goes first, as long as it has a row to send.
    pub is_short: bool,
    /// When the line is looked at again, if rows wait for the budget.
    pub look_at: Option<Instant>,
}

impl Default for Allowance {
    /// Return an allowance without a limit.
    fn default() -> Allowance {
        Allowance { high: u32::MAX, bulk: u32::MAX, is_short: false, look_at: None }
    }
}

/// The rows among which the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Any,
    High,
}

impl Line {
    /// Let the line claim so many rows when it is pumped next.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// Return the rows among which the next one is, as the budgets allow.
    pub(super) fn choice(&self, medium: Medium, actions: &mut LineActions) -> Option<Choice> {
        let Allowance { high, bulk, is_short, look_at } = self.allowance;
        if bulk > 0 && !is_short {
            return Some(Choice::Any);
        }
        if high > 0 && self.queue.has_next_high(medium) {
            return Some(Choice::High);
        }
        if bulk > 0 {
            return Some(Choice::Any);
        }
        actions.wants_budget = true;
        if let Some(at) = look_at {
            sooner(&mut actions.wake, at);
        }
        None
    }

    /// Count a claim.
    pub(super) fn take_allowance(&mut self) {
        let Allowance { high, bulk, .. } = &mut self.allowance;
        // Without a limit nothing is counted down.
        if *high != u32::MAX {
            *high = high.saturating_sub(1);
        }
        if *bulk != u32::MAX {
            *bulk = bulk.saturating_sub(1);
        }
    }
}
