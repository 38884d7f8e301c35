//! Meta's budgets of the lines of this process and of their apps: what each line may claim, what answers tell, and what
//! workers tell each other.
//!
//! Nothing is limited, written or read again before an answer tells the use of a budget. Never here: the law
//! (`policy::usage`), and I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::budget_rows::{learned, row, scope_of, together};
use super::event_loop::Dispatcher;
use crate::dispatch::line::Allowance;
use crate::dispatch::send::CallInFlight;
use crate::dispatch::tasks::budgets::BudgetOrder;
use crate::domain::{Lane, LineId};
use crate::metrics::{BudgetOwner, METRICS};
use crate::policy::classify::{Judgement, PauseTarget};
use crate::policy::usage::{Admission, Budget, Reading, Usage};
use crate::store::{BudgetRow, BudgetScope};

/// A line that has not asked for this long has given up its turn.
const TURN_LASTS: f64 = 1.0;
/// The least time until a line that waits for its turn asks again.
const TURN_AGAIN: f64 = 0.005;
/// Codes by which Meta refuses calls over the budget of a line, other than those from 80000 on.
const OVER_LINE: [i32; 2] = [17, 32];
const USE_CASES: std::ops::Range<i32> = 80_000..80_100;
const OVER_APP: i32 = 4;

/// The id of an app; `None`: that of lines that name none.
pub(super) type AppId = Option<Arc<str>>;

/// The number of a call in each of its budgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tickets {
    line: f64,
    app: f64,
}

struct LineBudget {
    budget: Budget,
    app: AppId,
    is_told: bool,
}

#[derive(Default)]
struct AppBudget {
    budget: Budget,
    /// Lines that wait for the app's budget, and when each asked last: the first to come is served first.
    turns: VecDeque<(LineId, f64)>,
    is_told: bool,
    /// Whether other workers' rows were read before.
    is_read: bool,
}

/// All budgets.
pub struct Budgets {
    /// Times of budgets are seconds since then.
    origin: Instant,
    lines: HashMap<LineId, LineBudget>,
    apps: HashMap<AppId, AppBudget>,
    /// Budgets whose rows are to be read.
    unread: HashSet<BudgetScope>,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            origin: Instant::now(),
            lines: HashMap::new(),
            apps: HashMap::new(),
            unread: HashSet::new(),
        }
    }
}

impl Budgets {
    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.origin).as_secs_f64()
    }

    /// Keep the budgets of a line that belongs to this app.
    pub fn know(&mut self, line: LineId, app: Option<&str>) {
        if self.lines.get(&line).is_some_and(|known| known.app.as_deref() == app) {
            return;
        }
        let app: AppId = app.map(Arc::from);
        if !self.apps.contains_key(&app) {
            self.apps.insert(app.clone(), AppBudget::default());
            self.unread.insert(scope_of(&app));
        }
        if let Some(known) = self.lines.get_mut(&line) {
            known.app = app;
        } else {
            self.lines.insert(line, LineBudget { budget: Budget::default(), app, is_told: false });
            self.unread.insert(BudgetScope::Line(line));
        }
    }

    /// Return the calls that a line may claim now.
    pub fn allowance(&mut self, line: LineId, now: Instant) -> Allowance {
        let at = self.seconds(now);
        let Some(of_line) = self.lines.get(&line) else { return Allowance::default() };
        let Some(of_app) = self.apps.get_mut(&of_line.app) else { return Allowance::default() };
        if !of_line.budget.is_known() && !of_app.budget.is_known() {
            return Allowance::default();
        }
        let high = both(of_line.budget.admits(at, true), of_app.budget.admits(at, true));
        let bulk = both(of_line.budget.admits(at, false), of_app.in_turn(line, at));
        let wait = if high.calls == 0 { bulk.wait.min(high.wait) } else { bulk.wait };
        Allowance {
            high: high.calls,
            bulk: bulk.calls,
            is_short: high.is_short || bulk.is_short,
            look_at: Some(now + Duration::from_secs_f64(wait.clamp(0.001, 60.0))),
        }
    }

    /// Note that a line has rows that wait for a budget: a turn in its app's, unless its own keeps them back.
    pub fn waits(&mut self, line: LineId, now: Instant) {
        let at = self.seconds(now);
        let is_held = |known: &LineBudget| known.budget.admits(at, false).calls == 0;
        if self.lines.get(&line).is_none_or(is_held) {
            return;
        }
        if let Some(app) = self.app_of(line) {
            match app.turns.iter_mut().find(|(waiting, _)| *waiting == line) {
                Some((_, asked)) => *asked = at,
                None => app.turns.push_back((line, at)),
            }
        }
    }

    /// Count a claim: its call begins within moments.
    pub fn spend(&mut self, line: LineId, lane: Lane, now: Instant) {
        let (at, is_high) = (self.seconds(now), lane == Lane::High);
        if let Some(of_line) = self.lines.get_mut(&line) {
            of_line.budget.spend(at, is_high);
        }
        if let Some(app) = self.app_of(line) {
            app.budget.spend(at, is_high);
            app.turns.retain(|(waiting, _)| *waiting != line);
        }
    }

    fn app_of(&mut self, line: LineId) -> Option<&mut AppBudget> {
        self.apps.get_mut(&self.lines.get(&line)?.app)
    }

    /// Return the numbers of a call that begins now.
    pub fn tickets(&mut self, line: LineId) -> Tickets {
        let of_line = self.lines.get(&line).map_or(0.0, |known| known.budget.ticket());
        Tickets { line: of_line, app: self.app_of(line).map_or(0.0, |app| app.budget.ticket()) }
    }

    /// Learn from an answer of Graph. `refused`: the budget over which the call was refused.
    pub fn learn(&mut self, call: &CallInFlight, usage: Usage, refused: Option<PauseTarget>, now: Instant) {
        let (at, begun) = (self.seconds(now), self.seconds(call.begun));
        let Some(of_line) = self.lines.get_mut(&call.line()) else { return };
        // The pause that a refusal demands keeps the time that Meta names, and an operator can end it.
        let told = |reading: Option<Reading>| match refused {
            Some(_) => reading.map(|reading| Reading { regain: Duration::ZERO, ..reading }),
            None => reading,
        };
        let of_app = self.apps.get_mut(&of_line.app);
        let is_over = refused == Some(PauseTarget::Line);
        of_line.is_told |= usage.line.is_some() || is_over;
        answered(&mut of_line.budget, told(usage.line), is_over, call.tickets.line, (begun, at));
        if let Some(of_app) = of_app {
            let is_over = refused == Some(PauseTarget::App);
            of_app.is_told |= usage.app.is_some() || is_over;
            answered(&mut of_app.budget, told(usage.app), is_over, call.tickets.app, (begun, at));
        }
    }

    /// Return the rows to write, and the budgets to read: those whose use is known, and new ones.
    pub fn order(&mut self, is_due: bool, now: Instant) -> Option<BudgetOrder> {
        let mut order = BudgetOrder { read: self.unread.drain().collect(), ..BudgetOrder::default() };
        if is_due {
            let at = self.seconds(now);
            for (line, known) in &mut self.lines {
                if std::mem::take(&mut known.is_told)
                    && let Some(learned) = known.budget.learned(at)
                {
                    order.write.push(row(BudgetScope::Line(*line), learned));
                }
            }
            for (app, known) in &mut self.apps {
                if known.budget.is_known() {
                    order.read.push(scope_of(app));
                }
                if std::mem::take(&mut known.is_told)
                    && let Some(learned) = known.budget.learned(at)
                {
                    order.write.push(row(scope_of(app), learned));
                }
            }
        }
        (!order.read.is_empty() || !order.write.is_empty()).then_some(order)
    }

    /// Apply the rows of other workers about the budgets that were read.
    pub fn apply(&mut self, me: &str, read: Vec<BudgetScope>, rows: Vec<BudgetRow>, now: Instant) {
        let at = self.seconds(now);
        let mut of_apps: HashMap<AppId, Vec<BudgetRow>> = HashMap::new();
        for row in rows.into_iter().filter(|row| row.worker != me) {
            match &row.scope {
                // One worker has a line at a time: another's row is of the owner before.
                BudgetScope::Line(line) => {
                    if let Some(known) = self.lines.get_mut(line) {
                        known.budget.begin_with(&learned(&row), row.updated_ago.as_secs_f64(), 1.0, at);
                    }
                }
                BudgetScope::App(app) => {
                    of_apps.entry(app.as_deref().map(Arc::from)).or_default().push(row);
                }
            }
        }
        for scope in read {
            let BudgetScope::App(app) = scope else { continue };
            let app: AppId = app.as_deref().map(Arc::from);
            if let Some(known) = self.apps.get_mut(&app) {
                known.apply(of_apps.remove(&app).unwrap_or_default(), at);
            }
        }
    }

    /// Forget the budgets of lines that this process no longer has, once they are idle.
    pub fn forget(&mut self, is_kept: impl Fn(LineId) -> bool, now: Instant) {
        let at = self.seconds(now);
        self.lines.retain(|line, known| is_kept(*line) || !known.budget.is_idle(at));
        let lines = &self.lines;
        self.apps
            .retain(|app, known| !known.budget.is_idle(at) || lines.values().any(|line| line.app == *app));
    }

    /// Forget the budget of a line that another worker has from now on.
    pub fn lose(&mut self, line: LineId) {
        self.lines.remove(&line);
    }

    /// Show the uses and limits in the metrics.
    pub fn show(&self, now: Instant) {
        let at = self.seconds(now);
        let of = |budget: &Budget| budget.percent(at).map(|percent| (percent, budget.limited_to(at)));
        let lines = self.lines.iter().filter_map(|(line, known)| {
            of(&known.budget).map(|use_now| (BudgetOwner::Line(line.0), use_now))
        });
        let apps = self.apps.iter().filter_map(|(app, known)| {
            of(&known.budget).map(|use_now| (BudgetOwner::App(app.clone()), use_now))
        });
        METRICS.budgets.show(lines.chain(apps));
    }

    /// Return the lines whose budgets are kept.
    pub fn lines(&self) -> Vec<LineId> {
        self.lines.keys().copied().collect()
    }
}

impl AppBudget {
    /// Return the bulk calls that the app's budget leaves to a line: lines that wait longer go first.
    fn in_turn(&mut self, line: LineId, at: f64) -> Admission {
        let admission = self.budget.admits(at, false);
        if !admission.is_short {
            return admission;
        }
        self.turns.retain(|(_, asked)| at - asked < TURN_LASTS);
        let position = self.turns.iter().position(|(waiting, _)| *waiting == line);
        let ahead = position.unwrap_or(self.turns.len()) as u32;
        if admission.calls == 0 {
            admission
        } else if ahead >= admission.calls {
            Admission { calls: 0, wait: TURN_AGAIN, ..admission }
        } else if self.turns.len() > 1 {
            Admission { calls: 1, ..admission }
        } else {
            admission
        }
    }

    fn apply(&mut self, rows: Vec<BudgetRow>, at: f64) {
        let living = rows.iter().filter(|row| row.is_alive && row.calls > 0).count();
        self.budget.share(1 + living);
        let newest = rows.iter().filter(|row| row.is_alive).min_by_key(|row| row.heard_ago);
        if !std::mem::replace(&mut self.is_read, true) {
            if let Some((gone, ago)) = together(rows.iter().filter(|row| !row.is_alive)) {
                self.budget.begin_with(&gone, ago, 1.0 / (1 + living) as f64, at);
            } else if let Some(row) = newest {
                // The living worker's calls leave the window by themselves.
                self.budget.begin_with(&learned(row), row.updated_ago.as_secs_f64(), 0.0, at);
            }
        }
        if let Some(row) = newest {
            self.budget.hear_elsewhere(row.percent, at - row.heard_ago.as_secs_f64());
        }
    }
}

/// Note an answer in one budget.
fn answered(
    budget: &mut Budget,
    told: Option<Reading>,
    is_over: bool,
    ticket: f64,
    (begun, now): (f64, f64),
) {
    if is_over {
        budget.refused(now, 0.0);
    } else {
        budget.taken(now, told.is_some());
    }
    if let Some(reading) = told {
        budget.hear(reading, ticket, begun, now);
    }
}

/// Return the calls that two budgets admit together.
fn both(one: Admission, other: Admission) -> Admission {
    let calls = one.calls.min(other.calls);
    let wait = if calls == 0 { one.wait.max(other.wait) } else { 0.0 };
    Admission { calls, wait, is_short: one.is_short || other.is_short }
}

impl Dispatcher {
    /// Apply the evidence of an ended call about budgets.
    pub(super) fn learn_budgets(
        &mut self,
        in_flight: &CallInFlight,
        judgement: Option<&Judgement>,
        usage: Usage,
        now: Instant,
    ) {
        if let Some(judgement) = judgement.filter(|judgement| judgement.by_graph) {
            self.budgets.learn(in_flight, usage, over(judgement), now);
        }
    }

    /// Have budgets written and read, and show them. `is_due`: a round of upkeep.
    pub(super) fn share_budgets(&mut self, is_due: bool, now: Instant) {
        if is_due {
            let lines = &self.lines;
            self.budgets.forget(|line| lines.contains_key(&line), now);
            self.budgets.show(now);
        }
        if let Some(order) = self.budgets.order(is_due, now) {
            // The receiver is gone only when the process ends.
            let _ = self.channels.budgets.send(order);
        }
    }

    /// Have the persons who wrote to the lines counted.
    pub(super) fn count_engaged(&mut self) {
        let order = BudgetOrder { count: self.budgets.lines(), ..BudgetOrder::default() };
        if !order.count.is_empty() {
            let _ = self.channels.budgets.send(order);
        }
    }
}

/// Return the budget over which the call was refused.
fn over(judgement: &Judgement) -> Option<PauseTarget> {
    let code = judgement.error.code?;
    if code == OVER_APP {
        return judgement
            .pause
            .as_ref()
            .filter(|pause| pause.target == PauseTarget::App)
            .map(|pause| pause.target);
    }
    (USE_CASES.contains(&code) || OVER_LINE.contains(&code)).then_some(PauseTarget::Line)
}

#[cfg(test)]
mod tests;
