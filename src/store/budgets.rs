//! The budgets that Meta keeps for lines and apps: what each worker has learnt of them, for other workers and for lists.
//!
//! Every worker writes rows of its own, so that none waits for another. Never here: what follows from a budget's use.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::domain::LineId;

/// Messages that a line may send in 24 hours for each person who wrote to it in that time (Meta, Messenger, "Rate
/// Limits").
pub const MESSAGES_AN_ENGAGED_USER: i64 = 200;

/// Rows of a worker that are older than this limit nothing any more: the worker writes every few seconds while it is
/// limited.
const LIMIT_LASTS: Duration = Duration::from_secs(30);
/// A use is shown for one window; without a known window for so long.
const USE_LASTS: Duration = Duration::from_secs(3_600);
/// A count of persons is shown for so long.
pub(super) const COUNT_LASTS: Duration = Duration::from_secs(3_600);
/// Rows are kept for so long: a little more than Meta's longest window.
pub(super) const ROWS_LAST: Duration = Duration::from_secs(26 * 3_600);

/// The owner of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BudgetScope {
    Line(LineId),
    /// Meta's app; `None`: that of lines that name none.
    App(Option<String>),
}

impl BudgetScope {
    /// Return the scope as stored.
    pub fn text(&self) -> String {
        match self {
            BudgetScope::Line(line) => format!("line:{line}"),
            BudgetScope::App(app) => format!("app:{}", app.as_deref().unwrap_or_default()),
        }
    }

    pub(super) fn parse(text: &str) -> Option<BudgetScope> {
        match text.split_once(':')? {
            ("line", id) => id.parse().ok().map(|id| BudgetScope::Line(LineId(id))),
            ("app", app) => Some(BudgetScope::App(Some(app.to_owned()).filter(|app| !app.is_empty()))),
            _ => None,
        }
    }
}

/// The facts of a budget that another worker needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetDetails {
    /// The share by which the window's end is uncertain.
    pub slack: f64,
    /// How late told percents are, in seconds.
    pub delay: f64,
    /// The percent that others use.
    pub strangers: f64,
    /// The share of answers that tell the use.
    pub told_share: f64,
    /// The worker's calls by parts of the window, the newest first.
    pub recent: Vec<u32>,
}

/// A budget as one worker has learnt it.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetRow {
    pub scope: BudgetScope,
    pub worker: String,
    /// The use in percent, and how long ago it was told.
    pub percent: f64,
    pub heard_ago: Duration,
    /// Calls a second that the worker may make; `None`: not limited.
    pub limited_to: Option<f64>,
    /// The worker's calls in the window.
    pub calls: i64,
    /// The percent that a call costs.
    pub cost: f64,
    pub window: Option<Duration>,
    /// The time until Meta takes calls again.
    pub held_for: Duration,
    pub details: BudgetDetails,
    /// How long ago the row was written; of no meaning in a row to be written, as the next one.
    pub updated_ago: Duration,
    /// Whether the worker is alive.
    pub is_alive: bool,
}

impl BudgetRow {
    pub(super) fn learned(&self) -> String {
        serde_json::to_string(&self.details).unwrap_or_default()
    }
}

/// The use of the budgets that bind a line, as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct LineUse {
    pub line: LineId,
    /// The highest use in percent, of its own budget and its app's; `None`: Meta has told none lately.
    pub percent: Option<f64>,
    /// Calls a second to which the line, or all lines of its app together, are limited now; `None`: they are not.
    pub limited_to: Option<f64>,
    /// Messages that the line may send in 24 hours; `None`: the number of persons who wrote is not known.
    pub day_budget: Option<i64>,
}

impl LineUse {
    /// Return a line of which nothing is known.
    pub fn unknown(line: LineId) -> LineUse {
        LineUse { line, percent: None, limited_to: None, day_budget: None }
    }
}

/// A row of a budget that binds a line, as listed.
#[derive(Debug, Clone)]
pub(super) struct BindingRow {
    pub line: LineId,
    pub of_app: bool,
    pub percent: f64,
    pub limited_to: Option<f64>,
    pub window: Option<Duration>,
    pub updated_ago: Duration,
}

/// Return the uses of lines, in the order asked for.
pub(super) fn line_uses(lines: &[LineId], rows: &[BindingRow], engaged: &[(LineId, i64)]) -> Vec<LineUse> {
    let of_line = |line: LineId| {
        let of_scope = |of_app: bool| {
            let rows: Vec<&BindingRow> =
                rows.iter().filter(|row| row.line == line && row.of_app == of_app).collect();
            (percent(&rows), limit(&rows))
        };
        let ((own, own_limit), (apps, apps_limit)) = (of_scope(false), of_scope(true));
        let day = engaged.iter().find(|(counted, _)| *counted == line).map(|(_, engaged)| *engaged);
        LineUse {
            line,
            percent: [own, apps].into_iter().flatten().reduce(f64::max),
            limited_to: [own_limit, apps_limit].into_iter().flatten().reduce(f64::min),
            day_budget: day.map(|engaged| engaged.saturating_mul(MESSAGES_AN_ENGAGED_USER)),
        }
    };
    lines.iter().map(|line| of_line(*line)).collect()
}

/// The use that was told last.
fn percent(rows: &[&BindingRow]) -> Option<f64> {
    let lasts = |row: &&&BindingRow| row.updated_ago <= row.window.unwrap_or(USE_LASTS).max(LIMIT_LASTS);
    rows.iter().filter(lasts).min_by_key(|row| row.updated_ago).map(|row| row.percent)
}

/// The rates of all workers together; none while one of them is not limited.
fn limit(rows: &[&BindingRow]) -> Option<f64> {
    let living = || rows.iter().filter(|row| row.updated_ago <= LIMIT_LASTS);
    let limits: Option<Vec<f64>> = living().map(|row| row.limited_to).collect();
    limits.filter(|limits| !limits.is_empty()).map(|limits| limits.iter().sum())
}

/// The statements about budgets.
#[async_trait]
pub trait BudgetStore: Send + Sync {
    /// Write what this worker has learnt, in one statement.
    async fn write_budgets(&self, worker: &str, rows: &[BudgetRow]) -> Result<(), StoreError>;

    /// Return what every worker has learnt of these budgets.
    async fn budgets(&self, scopes: &[BudgetScope]) -> Result<Vec<BudgetRow>, StoreError>;

    /// Return the uses of the budgets that bind these lines, a value for each, in the same order.
    async fn line_uses(&self, lines: &[LineId]) -> Result<Vec<LineUse>, StoreError>;

    /// Count the persons who wrote to these lines within 24 hours, keep the counts, and return those above zero.
    async fn count_engaged(&self, lines: &[LineId]) -> Result<Vec<(LineId, i64)>, StoreError>;

    /// Delete rows that are older than Meta's longest window; return how many.
    async fn drop_old_budgets(&self) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LINE: LineId = LineId(7);

    fn row(of_app: bool, percent: f64, limited_to: Option<f64>, seconds: u64) -> BindingRow {
        let (window, updated_ago) = (Some(Duration::from_secs(600)), Duration::from_secs(seconds));
        BindingRow { line: LINE, of_app, percent, limited_to, window, updated_ago }
    }

    #[rstest]
    #[case::line("line:7", Some(BudgetScope::Line(LINE)))]
    #[case::app("app:12", Some(BudgetScope::App(Some("12".into()))))]
    #[case::common_app("app:", Some(BudgetScope::App(None)))]
    #[case::no_scope("12", None)]
    #[case::no_line("line:x", None)]
    fn scope_is_read_as_it_is_stored(#[case] text: &str, #[case] scope: Option<BudgetScope>) {
        assert_eq!(BudgetScope::parse(text), scope);
        if let Some(scope) = scope {
            assert_eq!(scope.text(), text);
        }
    }

    #[rstest]
    #[case::nothing_told(vec![], None, None)]
    #[case::its_own(vec![row(false, 40.0, None, 1)], Some(40.0), None)]
    #[case::the_higher_use(vec![row(false, 40.0, None, 1), row(true, 97.0, Some(3.0), 1)], Some(97.0), Some(3.0))]
    #[case::the_lower_limit(vec![row(false, 96.0, Some(2.0), 1), row(true, 97.0, Some(3.0), 1)], Some(97.0), Some(2.0))]
    #[case::workers_of_an_app_together(vec![row(true, 90.0, Some(2.0), 9), row(true, 95.0, Some(3.0), 1)], Some(95.0), Some(5.0))]
    #[case::of_a_worker_that_is_gone(vec![row(true, 90.0, Some(2.0), 100)], Some(90.0), None)]
    #[case::told_before_this_window(vec![row(true, 90.0, Some(2.0), 700)], None, None)]
    fn use_is_what_binds(
        #[case] rows: Vec<BindingRow>,
        #[case] percent: Option<f64>,
        #[case] limited_to: Option<f64>,
    ) {
        let uses = line_uses(&[LINE, LineId(8)], &rows, &[(LINE, 3)]);
        assert_eq!(uses[0], LineUse { line: LINE, percent, limited_to, day_budget: Some(600) });
        assert_eq!(uses[1], LineUse::unknown(LineId(8)));
    }
}
