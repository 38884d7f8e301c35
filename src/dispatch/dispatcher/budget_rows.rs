//! Budgets as rows that workers exchange.

use std::time::Duration;

use super::budgets::AppId;
use crate::policy::usage::Learned;
use crate::store::{BudgetDetails, BudgetRow, BudgetScope};

/// Return what workers that are gone have learnt, with the calls of all, and how long ago the last of them told it.
pub(super) fn together<'a>(gone: impl Iterator<Item = &'a BudgetRow>) -> Option<(Learned, f64)> {
    let gone: Vec<&BudgetRow> = gone.collect();
    let last = gone.iter().min_by_key(|row| row.updated_ago)?;
    let mut all = learned(last);
    for other in gone.iter().filter(|row| row.worker != last.worker && row.window.is_some()) {
        for (calls, more) in all.recent.iter_mut().zip(&other.details.recent) {
            *calls = calls.saturating_add(*more);
        }
    }
    Some((all, last.updated_ago.as_secs_f64()))
}

/// Return the scope of an app's budget.
pub(super) fn scope_of(app: &AppId) -> BudgetScope {
    BudgetScope::App(app.as_deref().map(str::to_owned))
}

/// Return the row that tells other workers of a budget.
pub(super) fn row(scope: BudgetScope, learned: Learned) -> BudgetRow {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    BudgetRow {
        scope,
        worker: String::new(),
        percent: learned.percent,
        heard_ago: seconds(learned.heard_ago),
        limited_to: learned.limited_to,
        calls: learned.calls.round() as i64,
        cost: learned.cost,
        window: learned.window.map(seconds),
        held_for: seconds(learned.held_for),
        details: BudgetDetails {
            slack: learned.slack,
            delay: learned.delay,
            strangers: learned.strangers,
            told_share: learned.told_share,
            recent: learned.recent,
        },
        updated_ago: Duration::ZERO,
        is_alive: true,
    }
}

/// Return what a row tells.
pub(super) fn learned(row: &BudgetRow) -> Learned {
    let BudgetDetails { slack, delay, strangers, told_share, recent } = row.details.clone();
    Learned {
        percent: row.percent,
        heard_ago: row.heard_ago.as_secs_f64(),
        cost: row.cost,
        window: row.window.map(|window| window.as_secs_f64()),
        slack,
        delay,
        strangers,
        told_share,
        limited_to: row.limited_to,
        held_for: row.held_for.as_secs_f64(),
        calls: row.calls as f64,
        recent,
    }
}
