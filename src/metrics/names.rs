//! The names of the metrics, what they mean, and the buckets of the histograms. `docs/operations.md` explains them.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Gives each metric its constant, and one place that describes it.
macro_rules! metrics {
    ($($describe:ident $constant:ident = $name:literal, $meaning:literal;)+) => {
        $(pub const $constant: &str = concat!("meta_dispatch_", $name);)+

        /// Every name.
        #[cfg(test)]
        pub const ALL: &[&str] = &[$($constant),+];

        /// Tells the recorder in scope what each metric means.
        pub fn describe() {
            $(metrics::$describe!($constant, $meaning);)+
        }
    };
}

metrics! {
    describe_gauge BUILD = "build_info", "Always 1; the version is its label";
    describe_counter ACCEPTED = "messages_accepted_total", "Messages committed to the log, by class";
    describe_counter REFUSED = "requests_refused_total", "Submissions refused before anything was logged, by status_code";
    describe_counter NOT_LOGGED = "messages_not_logged_total", "Messages whose commit failed or is not known; answered 503";
    describe_histogram COMMIT_ROWS = "ingest_commit_rows", "Messages in one commit of the way in";
    describe_histogram COMMIT_SECONDS = "ingest_commit_seconds", "Duration of a commit of the way in";
    describe_gauge BACKLOG = "backlog_rows", "Waiting rows (PENDING, RETRY), counted up to the backlog bound";
    describe_gauge BACKLOG_BOUND = "backlog_bound_rows", "The backlog bound, ingest.max_backlog";
    describe_gauge BACKLOG_FULL = "backlog_full", "1 while the backlog bound is reached and messages are answered 503";
    describe_counter JOBS_ANNOUNCED = "jobs_announced_total", "Announcements of new rows, one per commit and partition";
    describe_counter JOBS_MERGED = "jobs_merged_total", "Announcements merged into a job that was waiting";
    describe_counter JOBS_PUBLISHED = "jobs_published_total", "Jobs handed to the broker";
    describe_counter JOBS_RETURNED = "jobs_returned_total", "Jobs that came back, unroutable or unconfirmed; they are published again";
    describe_counter ANSWERS_DROPPED = "answers_dropped_total", "Answers to producers that were dropped; outcomes stand in the log";
    describe_gauge BROKER_UP = "broker_up", "1 while the broker is connected";
    describe_gauge BROKER_BLOCKED = "broker_blocked", "1 while the broker is connected and takes no messages (memory or disk alarm)";
    describe_counter CALLS_BEGUN = "calls_begun_total", "Calls to Graph begun";
    describe_counter CALLS_ENDED = "calls_ended_total", "Calls to Graph ended, by what the message becomes";
    describe_histogram CALL_SECONDS = "call_duration_seconds", "Duration of a call to Graph, by class";
    describe_gauge CALLS_IN_FLIGHT = "calls_in_flight", "Calls to Graph in flight";
    describe_counter AMBIGUOUS = "ambiguous_attempts_total", "Recorded calls that Graph may have taken without saying so";
    describe_counter LATE = "late_successes_total", "Successes recorded for rows that were UNKNOWN or waited for another call already";
    describe_histogram BATCH_ENTRIES = "recorder_batch_entries", "Results and claims in one commit of the recorder";
    describe_histogram BATCH_SECONDS = "recorder_commit_seconds", "Duration of a commit of the recorder";
    describe_gauge RESULTS_WAITING = "results_waiting", "Results that wait because the log cannot be written";
    describe_counter RESULTS_REFUSED = "results_refused_total", "Results the database refuses; their rows become UNKNOWN";
    describe_counter CLAIMS_MADE = "claims_made_total", "Rows claimed for a call";
    describe_counter CLAIMS_REFUSED = "claims_refused_total", "Claims not made: the row had changed, or the lease was gone";
    describe_gauge LEASES = "leases_held", "Partitions this process holds, of 64";
    describe_gauge UNSERVED = "leases_unserved", "Partitions this process holds whose work it cannot look for";
    describe_counter SCANS_FAILED = "scans_failed_total", "Looks at the queue that failed; each is tried again";
    describe_gauge SNAPSHOT_AGE = "oldest_snapshot_seconds", "Age of the oldest transaction that keeps the database from forgetting old versions of rows; 0 where unknown";
    describe_gauge ROWS = "rows", "Rows of the log that are not final, by status";
    describe_gauge UNKNOWN_ROWS = "unknown_rows", "UNKNOWN rows: held until an operator or a webhook settles them";
    describe_gauge OLDEST_UNKNOWN = "unknown_oldest_seconds", "Since the last call of the UNKNOWN row that has waited longest; 0 without one";
    describe_gauge DATABASE_UP = "database_up", "1 if the rows could be counted when that was last tried";
    describe_gauge DATABASE_WRITABLE = "database_writable", "1 if messages can be logged, as far as the database says";
}

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const ROWS_OF_A_BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Sets the buckets; without them the exporter would show quantiles, which cannot be added up over processes.
pub fn buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_ROWS.into()), ROWS_OF_A_BATCH)?
        .set_buckets_for_metric(Matcher::Full(BATCH_ENTRIES.into()), ROWS_OF_A_BATCH)
}
