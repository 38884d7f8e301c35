//! The metrics of Graph's codes that nothing names, and of rows that Meta's own reports settle.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;
use parking_lot::Mutex;

use super::names;
use super::series::of;

/// Series of codes; further codes are counted together. Codes come from outside, and a series stays for ever.
const MOST: usize = 100;

/// The report by which a row was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledBy {
    Echo,
    Conversation,
}

const SOURCES: [(SettledBy, &str); 2] =
    [(SettledBy::Echo, "echo"), (SettledBy::Conversation, "conversation")];

/// Codes that neither the table nor the settings name, and rows settled by Meta's reports.
pub struct CodeMetrics {
    recorder: Arc<PrometheusRecorder>,
    unlisted: Mutex<HashMap<(i32, Option<i32>), Counter>>,
    other: Counter,
    settled: [(SettledBy, Counter); SOURCES.len()],
}

impl CodeMetrics {
    /// Make the metrics of this recorder, within whose scope the caller is.
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> CodeMetrics {
        CodeMetrics {
            recorder,
            unlisted: Mutex::default(),
            other: metrics::counter!(names::UNLISTED_CODES, "code" => "other", "subcode" => ""),
            settled: SOURCES.map(|(by, word)| (by, metrics::counter!(names::SETTLED, "by" => word))),
        }
    }

    /// Count a refusal under a code that nothing names.
    pub fn unlisted(&self, code: i32, subcode: Option<i32>) {
        let mut known = self.unlisted.lock();
        if let Some(counter) = known.get(&(code, subcode)) {
            counter.increment(1);
        } else if known.len() < MOST {
            let shown = subcode.map(|subcode| subcode.to_string()).unwrap_or_default();
            let counter = metrics::with_local_recorder(
                &*self.recorder,
                || metrics::counter!(names::UNLISTED_CODES, "code" => code.to_string(), "subcode" => shown),
            );
            counter.increment(1);
            known.insert((code, subcode), counter);
        } else {
            self.other.increment(1);
        }
    }

    /// Count rows that were settled by a report of Meta.
    pub fn settled(&self, by: SettledBy, rows: usize) {
        if let Some(counter) = of(&self.settled, by) {
            counter.increment(rows as u64);
        }
    }
}
