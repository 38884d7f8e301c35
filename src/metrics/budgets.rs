//! The metrics of Meta's budgets: a series for each of the first budgets whose use was told, and one for all others.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Gauge;
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;

use super::names;

/// Budgets, and lines, with series of their own. There are thousands of lines, and a series stays for ever.
const MOST: usize = 100;

/// The value of a limit that is not in force.
const NO_LIMIT: f64 = -1.0;

/// The owner of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BudgetOwner {
    Line(i64),
    /// `None`: the app of lines that name none.
    App(Option<Arc<str>>),
}

struct Series {
    percent: Gauge,
    limit: Gauge,
}

/// The budgets that this process hears of.
pub struct BudgetMetrics {
    recorder: Arc<PrometheusRecorder>,
    known: Mutex<HashMap<BudgetOwner, Series>>,
    days: Mutex<HashMap<i64, Gauge>>,
    /// The highest use, and the lowest limit, of budgets without series.
    others: Series,
}

impl BudgetMetrics {
    /// Make the metrics of this recorder, within whose scope the caller is.
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> BudgetMetrics {
        let others = series("other", "");
        others.limit.set(NO_LIMIT);
        metrics::gauge!(names::DAY_BUDGET, "line" => "other").set(0.0);
        BudgetMetrics { recorder, known: Mutex::default(), days: Mutex::default(), others }
    }

    /// Show the use in percent, and the calls a second to which each budget is limited now.
    pub fn show(&self, uses: impl Iterator<Item = (BudgetOwner, (f64, Option<f64>))>) {
        let mut known = self.known.lock();
        let (mut highest, mut lowest): (f64, Option<f64>) = (0.0, None);
        for (owner, (percent, limit)) in uses {
            if !known.contains_key(&owner) && known.len() < MOST {
                let made = metrics::with_local_recorder(&*self.recorder, || match &owner {
                    BudgetOwner::Line(line) => series("line", &line.to_string()),
                    BudgetOwner::App(app) => series("app", app.as_deref().unwrap_or_default()),
                });
                known.insert(owner.clone(), made);
            }
            match known.get(&owner) {
                Some(series) => {
                    series.percent.set(percent);
                    series.limit.set(limit.unwrap_or(NO_LIMIT));
                }
                None => {
                    highest = highest.max(percent);
                    lowest = [lowest, limit].into_iter().flatten().reduce(f64::min);
                }
            }
        }
        self.others.percent.set(highest);
        self.others.limit.set(lowest.unwrap_or(NO_LIMIT));
    }

    /// Show the messages that a line may send in 24 hours.
    pub fn day(&self, line: i64, messages: i64) {
        let mut days = self.days.lock();
        if !days.contains_key(&line) && days.len() < MOST {
            let gauge = metrics::with_local_recorder(
                &*self.recorder,
                || metrics::gauge!(names::DAY_BUDGET, "line" => line.to_string()),
            );
            days.insert(line, gauge);
        }
        if let Some(gauge) = days.get(&line) {
            gauge.set(messages as f64);
        }
    }
}

/// Make the series of a budget with the recorder in scope.
fn series(owner: &'static str, id: &str) -> Series {
    Series {
        percent: metrics::gauge!(names::BUDGET_USE, "owner" => owner, "id" => id.to_owned()),
        limit: metrics::gauge!(names::BUDGET_LIMIT, "owner" => owner, "id" => id.to_owned()),
    }
}
