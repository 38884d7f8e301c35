//! The counters of this process: every name, and the handle that counts it. `ops` serves the text.
//!
//! A handle is made once and counting with it is an atomic addition, so any layer may count where it works.
//! No label has a value for each line, account or campaign: there are thousands. Never here: decisions, and
//! reads of the log.

mod names;

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::channel::Class;
use crate::domain::Status;

/// The codes of a refusal (contract: Parameters).
const REFUSALS: [i32; 20] = [
    100,
    102,
    110,
    210,
    220,
    225,
    226,
    227,
    229,
    230,
    233,
    234,
    238,
    244,
    246,
    247,
    400,
    413,
    503,
    OTHER_REFUSAL,
];
/// The code of a refusal that has none of these codes.
const OTHER_REFUSAL: i32 = 0;

/// The states of rows that are not final.
const OPEN: [Status; 4] = [Status::Pending, Status::Sending, Status::Retry, Status::Unknown];

/// The end of a call, for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// Graph took the message.
    Ok,
    /// ERROR: refused, or its tries are used up.
    Error,
    Retry,
    /// UNKNOWN.
    Unknown,
    /// PENDING: waits with its line.
    Line,
}

const CALL_OUTCOMES: [(CallOutcome, &str); 5] = [
    (CallOutcome::Ok, "ok"),
    (CallOutcome::Error, "error"),
    (CallOutcome::Retry, "retry"),
    (CallOutcome::Unknown, "unknown"),
    (CallOutcome::Line, "line"),
];

/// The metrics of this process, and their exporter.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    pub ingest: IngestMetrics,
    pub broker: BrokerMetrics,
    pub dispatch: DispatchMetrics,
    pub rows: RowMetrics,
    pub log: LogMetrics,
    exporter: PrometheusHandle,
}

/// The metrics of ingest.
pub struct IngestMetrics {
    accepted: [(Class, Counter); Class::ALL.len()],
    refused: [(i32, Counter); REFUSALS.len()],
    /// Rows whose commit failed; their requests were answered 503.
    pub not_logged: Counter,
    pub commit_rows: Histogram,
    pub commit_seconds: Histogram,
    /// Waiting rows, counted up to the bound.
    pub backlog: Gauge,
    pub backlog_bound: Gauge,
    /// 1 while the bound is reached, else 0.
    pub backlog_full: Gauge,
}

/// Jobs, and answers to producers.
pub struct BrokerMetrics {
    /// Announcements of new rows, one per commit and partition.
    pub announced: Counter,
    /// Announcements that were merged into a waiting job.
    pub merged: Counter,
    /// Jobs handed to the broker.
    pub published: Counter,
    /// Jobs that came back: unroutable, or unconfirmed when a connection ended.
    pub returned: Counter,
    /// Answers that this process dropped.
    pub answers_dropped: Counter,
    up: Gauge,
    blocked: Gauge,
    arriving: Gauge,
}

/// Calls, claims and the recorder.
pub struct DispatchMetrics {
    pub begun: Counter,
    ended: [(CallOutcome, Counter); CALL_OUTCOMES.len()],
    seconds: [(Class, Histogram); Class::ALL.len()],
    pub in_flight: Gauge,
    /// Calls recorded as possibly taken by Graph without a confirming answer.
    pub ambiguous: Counter,
    /// Successes recorded for rows that had been settled otherwise, or waited for another call.
    pub late: Counter,
    pub batch_entries: Histogram,
    pub batch_seconds: Histogram,
    /// Entries that wait because the log cannot be written.
    pub results_waiting: Gauge,
    /// Results that the database refuses; their rows are settled as UNKNOWN after their deadline.
    pub results_refused: Counter,
    pub claims_made: Counter,
    pub claims_refused: Counter,
    /// Partitions that this process holds.
    pub leases: Gauge,
    pub unserved: Gauge,
    pub scans_failed: Counter,
    pub snapshot_age: Gauge,
}

/// Rows of the log by this process's last count: the same in every process.
pub struct RowMetrics {
    open: [(Status, Gauge); OPEN.len()],
    pub unknown: Gauge,
    pub oldest_unknown_seconds: Gauge,
    /// 1 if the last count succeeded, else 0.
    pub database_up: Gauge,
    pub database_writable: Gauge,
}

/// The process log.
pub struct LogMetrics {
    /// Lines that were not written, because standard error was not read.
    pub dropped: Counter,
}

impl Metrics {
    fn new() -> Metrics {
        let builder = names::buckets(PrometheusBuilder::new()).expect("no list of buckets is empty");
        let recorder = builder.build_recorder();
        let exporter = recorder.handle();
        // Handles are made with this recorder, so that none has to be installed for the whole process.
        metrics::with_local_recorder(&recorder, || {
            names::describe();
            metrics::gauge!(names::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
            Metrics {
                ingest: IngestMetrics::new(),
                broker: BrokerMetrics::new(),
                dispatch: DispatchMetrics::new(),
                rows: RowMetrics::new(),
                log: LogMetrics { dropped: metrics::counter!(names::LOG_DROPPED) },
                exporter,
            }
        })
    }

    /// Return all metrics, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.exporter.render()
    }

    /// Fold the values of histograms into their buckets. Called regularly, as a long time may pass until a
    /// scraper asks for the text.
    pub fn fold(&self) {
        self.exporter.run_upkeep();
    }
}

impl IngestMetrics {
    fn new() -> IngestMetrics {
        IngestMetrics {
            accepted: by_class(|class| metrics::counter!(names::ACCEPTED, "class" => class.as_str())),
            refused: REFUSALS.map(|code| {
                let label = if code == OTHER_REFUSAL { "other".to_owned() } else { code.to_string() };
                (code, metrics::counter!(names::REFUSED, "code" => label))
            }),
            not_logged: metrics::counter!(names::NOT_LOGGED),
            commit_rows: metrics::histogram!(names::COMMIT_ROWS),
            commit_seconds: metrics::histogram!(names::COMMIT_SECONDS),
            backlog: metrics::gauge!(names::BACKLOG),
            backlog_bound: metrics::gauge!(names::BACKLOG_BOUND),
            backlog_full: metrics::gauge!(names::BACKLOG_FULL),
        }
    }

    /// Count a message of this class as committed.
    pub fn accepted(&self, class: Class) {
        if let Some(counter) = of(&self.accepted, class) {
            counter.increment(1);
        }
    }

    /// Count a submission as refused with this code.
    pub fn refused(&self, code: i32) {
        if let Some(counter) = of(&self.refused, code).or_else(|| of(&self.refused, OTHER_REFUSAL)) {
            counter.increment(1);
        }
    }
}

impl BrokerMetrics {
    fn new() -> BrokerMetrics {
        BrokerMetrics {
            announced: metrics::counter!(names::JOBS_ANNOUNCED),
            merged: metrics::counter!(names::JOBS_MERGED),
            published: metrics::counter!(names::JOBS_PUBLISHED),
            returned: metrics::counter!(names::JOBS_RETURNED),
            answers_dropped: metrics::counter!(names::ANSWERS_DROPPED),
            up: metrics::gauge!(names::BROKER_UP),
            blocked: metrics::gauge!(names::BROKER_BLOCKED),
            arriving: metrics::gauge!(names::SUBMISSIONS_ARRIVING),
        }
    }

    /// Note whether producers' submissions reach this process.
    pub fn submissions(&self, arrive: bool) {
        self.arriving.set(f64::from(u8::from(arrive)));
    }

    /// Note whether the broker is connected, and whether it then takes no messages.
    pub fn state(&self, up: bool, blocked: bool) {
        self.up.set(f64::from(u8::from(up)));
        self.blocked.set(f64::from(u8::from(blocked)));
    }
}

impl DispatchMetrics {
    fn new() -> DispatchMetrics {
        DispatchMetrics {
            begun: metrics::counter!(names::CALLS_BEGUN),
            ended: CALL_OUTCOMES
                .map(|(outcome, word)| (outcome, metrics::counter!(names::CALLS_ENDED, "outcome" => word))),
            seconds: by_class(|class| metrics::histogram!(names::CALL_SECONDS, "class" => class.as_str())),
            in_flight: metrics::gauge!(names::CALLS_IN_FLIGHT),
            ambiguous: metrics::counter!(names::AMBIGUOUS),
            late: metrics::counter!(names::LATE),
            batch_entries: metrics::histogram!(names::BATCH_ENTRIES),
            batch_seconds: metrics::histogram!(names::BATCH_SECONDS),
            results_waiting: metrics::gauge!(names::RESULTS_WAITING),
            results_refused: metrics::counter!(names::RESULTS_REFUSED),
            claims_made: metrics::counter!(names::CLAIMS_MADE),
            claims_refused: metrics::counter!(names::CLAIMS_REFUSED),
            leases: metrics::gauge!(names::LEASES),
            unserved: metrics::gauge!(names::UNSERVED),
            scans_failed: metrics::counter!(names::SCANS_FAILED),
            snapshot_age: metrics::gauge!(names::SNAPSHOT_AGE),
        }
    }

    pub fn ended(&self, outcome: CallOutcome) {
        if let Some(counter) = of(&self.ended, outcome) {
            counter.increment(1);
        }
    }

    /// Note the length of a call to Graph, whatever its result.
    pub fn call_took(&self, class: Class, length: Duration) {
        if let Some(histogram) = of(&self.seconds, class) {
            histogram.record(length);
        }
    }
}

impl RowMetrics {
    fn new() -> RowMetrics {
        RowMetrics {
            open: OPEN.map(|status| (status, metrics::gauge!(names::ROWS, "status" => status.as_str()))),
            unknown: metrics::gauge!(names::UNKNOWN_ROWS),
            oldest_unknown_seconds: metrics::gauge!(names::OLDEST_UNKNOWN),
            database_up: metrics::gauge!(names::DATABASE_UP),
            database_writable: metrics::gauge!(names::DATABASE_WRITABLE),
        }
    }

    /// Note how many rows are in a state that is not final.
    pub fn open(&self, status: Status, rows: i64) {
        if let Some(gauge) = of(&self.open, status) {
            gauge.set(rows as f64);
        }
    }
}

fn by_class<T>(make: impl Fn(Class) -> T) -> [(Class, T); Class::ALL.len()] {
    std::array::from_fn(|n| (Class::ALL[n], make(Class::ALL[n])))
}

/// Return the handle of a key. The entries are few: walking over them is cheaper than hashing.
fn of<K: PartialEq + Copy, V>(handles: &[(K, V)], key: K) -> Option<&V> {
    handles.iter().find(|(name, _)| *name == key).map(|(_, handle)| handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_every_series_before_any_count() {
        let text = Metrics::new().render();
        for name in names::ALL {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}: {text}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        }
    }

    #[test]
    fn shows_counted_values() {
        let metrics = Metrics::new();
        metrics.ingest.accepted(Class::INSTAGRAM);
        metrics.ingest.refused(238);
        metrics.ingest.refused(238);
        metrics.ingest.refused(9_999);
        metrics.dispatch.ended(CallOutcome::Unknown);
        metrics.dispatch.call_took(Class::MESSENGER, Duration::from_millis(80));
        metrics.rows.open(Status::Unknown, 3);
        metrics.fold();
        let text = metrics.render();
        for line in [
            "meta_dispatch_messages_accepted_total{class=\"instagram\"} 1",
            "meta_dispatch_messages_accepted_total{class=\"messenger\"} 0",
            "meta_dispatch_requests_refused_total{code=\"238\"} 2",
            "meta_dispatch_requests_refused_total{code=\"other\"} 1",
            "meta_dispatch_calls_ended_total{outcome=\"unknown\"} 1",
            "meta_dispatch_call_duration_seconds_bucket{class=\"messenger\",le=\"0.1\"} 1",
            "meta_dispatch_call_duration_seconds_bucket{class=\"messenger\",le=\"0.05\"} 0",
            "meta_dispatch_rows{status=\"UNKNOWN\"} 3",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    }
}
