//! Least squares over the told percents: how late they are, what a call costs, and how long the window is.

use super::history::History;

/// A told percent, and the time it is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub at: f64,
    pub percent: f64,
}

/// Delays that are tried, as shares of the time since the first call.
const DELAYS: u32 = 30;
const LONGEST_DELAY: f64 = 0.75;
/// A delay is believed if it explains the percents this much better than a shorter one.
const BETTER_DELAY: f64 = 1.3;
/// The variance of a percent that is rounded down.
const ROUNDING: f64 = 0.1;

/// A step of a fit changes the cost by no more than these factors.
const COST_STEP: (f64, f64) = (0.7, 1.4);
/// Another window is believed if it leaves no more than this share of the error.
const BETTER_WINDOW: f64 = 0.85;
/// A squared error that nobody can tell from none.
const NO_ERROR: f64 = 0.05;
/// The variance in percent, caused by own calls, from which a fit tells something about them.
const TELLING: f64 = 9.0;

/// A line through points.
struct Regression {
    slope: f64,
    mean_x: f64,
    mean_y: f64,
    /// The mean square of x around its mean.
    variance: f64,
}

fn regression(points: &[(f64, f64)]) -> Option<Regression> {
    if points.is_empty() {
        return None;
    }
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let variance = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>() / count;
    let covariance = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / count;
    (variance > 0.0).then(|| Regression { slope: covariance / variance, mean_x, mean_y, variance })
}

/// Return how late the percents are and the cost of a call, from samples of a time in which no call left the window.
pub fn delay(history: &History, samples: &[Sample], elapsed: f64) -> Option<(f64, f64)> {
    let mut best: Option<(f64, f64, f64)> = None;
    for step in 0..DELAYS {
        let delay = elapsed * LONGEST_DELAY * f64::from(step) / f64::from(DELAYS);
        let points: Vec<(f64, f64)> =
            samples.iter().map(|sample| (history.begun_by(sample.at - delay), sample.percent)).collect();
        let Some(line) = regression(&points) else { continue };
        let offset = line.mean_y - line.slope * line.mean_x;
        if line.slope <= 0.0 || offset < -2.0 {
            continue;
        }
        let error: f64 =
            points.iter().map(|(calls, percent)| (percent - offset - line.slope * calls).powi(2)).sum();
        match best {
            None => best = Some((error + ROUNDING * samples.len() as f64, delay, line.slope)),
            Some((least, ..)) if error * BETTER_DELAY < least => best = Some((error, delay, line.slope)),
            Some(_) => {}
        }
    }
    best.map(|(_, delay, cost)| (delay, cost))
}

/// The result of a fit of the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowFit {
    pub window: f64,
    pub cost: f64,
    /// The percent that others use.
    pub strangers: f64,
    /// Whether the own calls varied enough to tell cost and strangers.
    pub is_telling: bool,
}

struct Tried {
    error: f64,
    cost: f64,
    strangers: f64,
    /// The variance in percent that own calls caused.
    caused: f64,
}

/// Return the window that explains the samples best: `current` unless one of the others is clearly better.
pub fn window(
    history: &History,
    samples: &[Sample],
    current: f64,
    cost: f64,
    others: impl Iterator<Item = f64>,
) -> Option<WindowFit> {
    let mut found = (tried(history, samples, current, cost)?, current);
    for window in others {
        let Some(other) = tried(history, samples, window, cost) else { continue };
        let least = if found.1 == current { BETTER_WINDOW } else { 1.0 };
        if other.error + NO_ERROR < found.0.error * least {
            found = (other, window);
        }
    }
    let (Tried { cost, strangers, caused, .. }, window) = found;
    Some(WindowFit { window, cost, strangers, is_telling: caused > TELLING })
}

fn tried(history: &History, samples: &[Sample], window: f64, cost: f64) -> Option<Tried> {
    if samples.is_empty() {
        return None;
    }
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|sample| (history.begun_by(sample.at) - history.begun_by(sample.at - window), sample.percent))
        .collect();
    let count = points.len() as f64;
    let (least, most) = (cost * COST_STEP.0, cost * COST_STEP.1);
    let line = regression(&points);
    let mean_calls = points.iter().map(|(calls, _)| calls).sum::<f64>() / count;
    let mean_percent = points.iter().map(|(_, percent)| percent).sum::<f64>() / count;
    let variance = line.as_ref().map_or(0.0, |line| line.variance);
    let mut fitted = line.map_or(cost, |line| line.slope).clamp(least, most);
    let strangers = (mean_percent - fitted * mean_calls).max(0.0);
    if strangers == 0.0 && mean_calls > 0.0 {
        fitted = (mean_percent / mean_calls).clamp(least, most);
    }
    let error =
        points.iter().map(|(calls, percent)| (percent - strangers - fitted * calls).powi(2)).sum::<f64>()
            / count;
    Some(Tried { error, cost: fitted, strangers, caused: variance * fitted * fitted })
}

#[cfg(test)]
mod tests {
    use super::super::history::ROOM;
    use super::*;

    /// Calls at a rate that changes: high for a quarter of each period.
    fn calls(seconds: u32, period: u32) -> History {
        let mut history = History::default();
        for second in 0..seconds {
            let calls = if second % period < period / 4 { 20.0 } else { 2.0 };
            history.add(f64::from(second), calls, 0.1, ROOM);
        }
        history
    }

    fn told(seconds: std::ops::Range<u32>, percent: impl Fn(f64) -> f64) -> Vec<Sample> {
        seconds.map(f64::from).map(|at| Sample { at, percent: percent(at).floor() + 0.5 }).collect()
    }

    #[test]
    fn finds_the_delay_of_the_percents() {
        let history = calls(60, 20);
        for late in [0.0, 4.0, 10.0] {
            let samples = told(0..60, |at| 0.2 * history.begun_by(at - late));
            let (delay, cost) = delay(&history, &samples, 60.0).expect("calls were made");
            assert!((delay - late).abs() <= 3.1, "{delay} for {late}");
            assert!((cost - 0.2).abs() < 0.02, "{cost}");
        }
    }

    #[test]
    fn finds_the_window_the_cost_and_the_strangers() {
        // No two windows that are tried differ by the period: their calls would differ by a constant.
        let history = calls(400, 71);
        let used = |at: f64| 0.2 * (history.begun_by(at) - history.begun_by(at - 50.0));
        let samples = told(150..240, |at| used(at) + 20.0);
        let grid = (0..40).map(|step| 30.0 * 1.03_f64.powi(step));
        let fit = window(&history, &samples, 30.0, 0.22, grid).expect("samples are there");
        assert!((fit.window - 50.0).abs() < 1.6, "{fit:?}");
        assert!((fit.cost - 0.2).abs() < 0.02 && (fit.strangers - 20.0).abs() < 3.0, "{fit:?}");
        assert!(fit.is_telling, "{fit:?}");
    }

    #[test]
    fn steady_calls_tell_no_window() {
        let mut history = History::default();
        (0..400).for_each(|second| history.add(f64::from(second), 5.0, 0.1, ROOM));
        let samples = told(200..280, |_| 60.0);
        let fit =
            window(&history, &samples, 50.0, 0.24, [40.0, 60.0].into_iter()).expect("samples are there");
        assert_eq!((fit.window, fit.is_telling), (50.0, false));
    }

    #[test]
    fn nothing_told_is_no_fit() {
        assert_eq!(delay(&History::default(), &[], 1.0), None);
        assert_eq!(window(&History::default(), &[], 1.0, 1.0, std::iter::empty()), None);
    }
}
