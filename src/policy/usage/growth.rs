//! A budget whose window is not known: calls are counted from the first on, until the use falls although calls were made.
//!
//! The rest of the budget is spent ever more slowly: as much as the time that has passed would take again. Whatever the
//! window is, calls are still made when the first of them leave it, and their answers tell its length.

use super::fit::{self, Sample};
use super::history::History;

/// Below this percent nothing is limited.
pub const FREE: f64 = 25.0;
/// The rise after which the cost of a call is known, roughly and well.
const ROUGHLY: f64 = 10.0;
const WELL: f64 = 25.0;
/// A fall below the expected use by so many percents means that calls have left the window.
const FALLEN: f64 = 2.5;
/// Half of the cost: a fall is one against half of the expected rise, whatever the cost is exactly.
const HALF: f64 = 0.5;

/// A point of the use: time, percent, own calls so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub at: f64,
    pub percent: f64,
    pub calls: f64,
}

/// The knowledge of a budget before its window is known.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    /// The lowest point.
    base: Option<Point>,
    /// The lowest point after the use had fallen: the calls before it have left the window.
    anew: Option<Point>,
    /// The highest use since then.
    highest: f64,
    /// The point at which the cost was known well.
    known: Option<Point>,
    /// The percents a second that others add.
    pub drift: f64,
    /// The point that lies highest above half of the expected use.
    peak: Option<(f64, Point)>,
}

/// The lesson of a told percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lesson {
    None,
    /// The percents are this late: the point, and all samples, are about an earlier time.
    Late(f64),
    /// Calls have left the window, which has about this length.
    Window(f64),
}

impl Growth {
    /// Whether the cost of a call is known well.
    pub fn knows_cost(&self) -> bool {
        self.known.is_some()
    }

    /// Return the use by the calls that may still be in the window.
    pub fn spent(&self, cost: f64, calls: f64) -> f64 {
        cost * (calls - self.anew.map_or(0.0, |anew| anew.calls))
    }

    /// Return the time from which calls count, if earlier ones have left the window.
    pub fn since(&self) -> Option<f64> {
        self.anew.filter(|_| self.known.is_none()).map(|anew| anew.at)
    }

    /// Learn from a told percent. `samples` holds it already; `cost` is improved.
    pub fn learn(
        &mut self,
        point: Point,
        first: f64,
        history: &History,
        samples: &[Sample],
        cost: &mut f64,
    ) -> Lesson {
        let Some(base) = self.base.filter(|base| point.percent >= base.percent + 1.0) else {
            // The first point, or no rise yet.
            if self.known.is_none() && self.highest - point.percent >= FALLEN {
                self.anew = Some(point);
                self.highest = 0.0;
            }
            self.highest = self.highest.max(point.percent);
            self.base = Some(point);
            if self.known.is_none() {
                *cost = rough_cost(point);
            }
            return self.fall(point, history, *cost);
        };
        self.highest = self.highest.max(point.percent);
        if self.known.is_none() {
            let rise = point.percent - base.percent;
            let calls = point.calls - base.calls;
            *cost = if rise >= ROUGHLY && calls > 0.0 { rise / calls } else { rough_cost(point) };
            if rise >= WELL {
                return self.settle(point, first, history, samples, cost);
            }
            return Lesson::None;
        }
        self.fall(point, history, *cost)
    }

    /// The cost is known well: find out how late the percents are.
    fn settle(
        &mut self,
        point: Point,
        first: f64,
        history: &History,
        samples: &[Sample],
        cost: &mut f64,
    ) -> Lesson {
        let fitted = fit::delay(history, samples, point.at - first);
        let delay = fitted.map_or(0.0, |(delay, _)| delay);
        if let Some((_, fitted)) = fitted {
            *cost = fitted;
        }
        let at = point.at - delay;
        let calls = if delay > 0.0 { history.begun_by(at) } else { point.calls };
        self.known = Some(Point { at, calls, ..point });
        if delay > 0.0 { Lesson::Late(delay) } else { Lesson::None }
    }

    /// Note the rise that others cause, and look for the fall that shows the window.
    fn fall(&mut self, point: Point, history: &History, cost: f64) -> Lesson {
        let Some(known) = self.known else { return Lesson::None };
        let first = history.first().unwrap_or(known.at);
        let unexplained = point.percent - known.percent - cost * (point.calls - known.calls);
        let since = (point.at - known.at) + HALF * (known.at - first);
        self.drift = if since > 0.0 { unexplained.max(0.0) / since } else { 0.0 };
        let height = point.percent - HALF * cost * point.calls;
        match self.peak {
            Some((highest, peak)) if height <= highest => {
                if height >= highest - FALLEN {
                    return Lesson::None;
                }
                let left = (peak.percent + cost * (point.calls - peak.calls) - point.percent) / cost;
                let begun = history.time_of(left.max(1.0)).unwrap_or(first);
                Lesson::Window((point.at - begun).max(f64::MIN_POSITIVE))
            }
            _ => {
                self.peak = Some((height, point));
                Lesson::None
            }
        }
    }
}

fn rough_cost(point: Point) -> f64 {
    (point.percent + HALF) / point.calls.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::history::ROOM;
    use super::*;

    /// Make a call a second, and learn the percents of a budget of 200 calls in `window` seconds that are `late`.
    fn learnt(seconds: u32, window: f64, late: f64) -> (Option<f64>, Option<f64>, f64) {
        let (mut growth, mut history, mut cost) = (Growth::default(), History::default(), 1.0);
        let (mut samples, mut found, mut delay) = (Vec::new(), None, None);
        for second in 0..seconds {
            let now = f64::from(second);
            history.add(now, 1.0, 0.1, ROOM);
            let then = now - late;
            let used = history.begun_by(then) - history.begun_by(then - window);
            let at = now - delay.unwrap_or(0.0);
            let percent = (used * 0.5).floor() + 0.5;
            samples.push(Sample { at, percent });
            let point = Point { at, percent, calls: history.begun_by(at) };
            match growth.learn(point, 0.0, &history, &samples, &mut cost) {
                Lesson::Late(by) => delay = Some(by),
                Lesson::Window(length) if found.is_none() => found = Some(length),
                _ => {}
            }
        }
        (found, delay, cost)
    }

    #[test]
    fn window_is_seen_when_the_first_calls_leave() {
        let (window, delay, cost) = learnt(150, 100.0, 0.0);
        let window = window.expect("calls have left");
        assert!((window - 100.0).abs() <= 8.0, "{window}");
        assert!(delay.unwrap_or(0.0) <= 2.0 && (cost - 0.5).abs() < 0.05, "{delay:?} {cost}");
    }

    #[test]
    fn nothing_is_seen_before() {
        let (window, _, cost) = learnt(100, 100.0, 0.0);
        assert_eq!(window, None);
        assert!((cost - 0.5).abs() < 0.05, "{cost}");
    }
}
