//! The names of the metrics, their meaning, and the buckets of the histograms. `docs/operations.md` explains
//! them.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Give each metric its constant, and one place that describes it.
macro_rules! metrics {
    ($($describe:ident $constant:ident = $name:literal, $meaning:literal;)+) => {
        $(pub const $constant: &str = concat!("meta_dispatch_", $name);)+

        /// Every name.
        #[cfg(test)]
        pub const ALL: &[&str] = &[$($constant),+];

        /// Describe each metric to the recorder in scope.
        pub fn describe() {
            $(metrics::$describe!($constant, $meaning);)+
        }
    };
}

metrics! {
    describe_gauge BUILD = "build_info", "Constant 1, labelled with the version";
    describe_counter ACCEPTED = "messages_accepted_total", "Messages committed to the log, by class";
    describe_counter REFUSED = "requests_refused_total", "Submissions refused before anything was logged, by status_code";
    describe_counter OVER_QUOTA = "over_quota_total", "Submissions refused because their account is over a quota, by quota";
    describe_counter CONNECTIONS_CLOSED = "connections_closed_total", "Connections of clients that were closed for a limit, by limit";
    describe_gauge BANNED = "banned_addresses", "Banned addresses; the same in every process that takes requests";
    describe_counter NOT_LOGGED = "messages_not_logged_total", "Messages whose commit failed or is unknown; the caller receives 503";
    describe_histogram COMMIT_ROWS = "ingest_commit_rows", "Messages in one commit of ingest";
    describe_histogram COMMIT_SECONDS = "ingest_commit_seconds", "Duration of one commit of ingest";
    describe_gauge BACKLOG = "backlog_rows", "Waiting rows (PENDING, RETRY), counted up to the backlog bound";
    describe_gauge BACKLOG_BOUND = "backlog_bound_rows", "The backlog bound, ingest.max_backlog";
    describe_gauge BACKLOG_FULL = "backlog_full", "1 while the backlog bound is reached and callers receive 503, else 0";
    describe_counter JOBS_ANNOUNCED = "jobs_announced_total", "Announcements of new rows, one per commit and partition";
    describe_counter JOBS_MERGED = "jobs_merged_total", "Announcements merged into a waiting job";
    describe_counter JOBS_PUBLISHED = "jobs_published_total", "Jobs handed to the broker";
    describe_counter JOBS_RETURNED = "jobs_returned_total", "Jobs returned as unroutable or unconfirmed; each is published again";
    describe_counter ANSWERS_DROPPED = "answers_dropped_total", "Dropped answers to producers; the log has the outcomes";
    describe_counter ANSWERS_WITHHELD = "answers_withheld_total", "Direct replies withheld from accounts whose addresses ended the answering connection";
    describe_gauge BROKER_UP = "broker_up", "1 while the broker is connected, else 0";
    describe_gauge BROKER_BLOCKED = "broker_blocked", "1 while the connected broker takes no messages (memory or disk alarm), else 0";
    describe_gauge SUBMISSIONS_ARRIVING = "submissions_arriving", "0 while producers' submissions cannot arrive at this process, else 1";
    describe_counter CALLS_BEGUN = "calls_begun_total", "Calls to Graph begun";
    describe_counter CALLS_ENDED = "calls_ended_total", "Calls to Graph ended, by outcome of the message";
    describe_counter UNLISTED_CODES = "unlisted_codes_total", "Refusals of Graph under a code or subcode that neither this version nor graph.codes names";
    describe_counter SETTLED = "settled_total", "Messages of unknown outcome that became OK by a report of Meta, by report (echo, conversation)";
    describe_histogram CALL_SECONDS = "call_duration_seconds", "Duration of one call to Graph, by class";
    describe_gauge CALLS_IN_FLIGHT = "calls_in_flight", "Calls to Graph in flight";
    describe_counter AMBIGUOUS = "ambiguous_attempts_total", "Recorded calls that Graph may have taken without confirming";
    describe_counter LATE = "late_successes_total", "Successes recorded for rows that were already UNKNOWN or waiting for another call";
    describe_histogram BATCH_ENTRIES = "recorder_batch_entries", "Results and claims in one commit of the recorder";
    describe_histogram BATCH_SECONDS = "recorder_commit_seconds", "Duration of one commit of the recorder";
    describe_gauge RESULTS_WAITING = "results_waiting", "Results that wait in memory because the log cannot be written";
    describe_counter RESULTS_REFUSED = "results_refused_total", "Results refused by the database; their rows become UNKNOWN";
    describe_counter CLAIMS_MADE = "claims_made_total", "Rows claimed for a call";
    describe_counter CLAIMS_REFUSED = "claims_refused_total", "Claims not made because the row, its campaign or the lease had changed";
    describe_gauge RESTING = "lines_resting", "Lines of this process that rest because their calls keep failing";
    describe_counter UPLOAD_CALLS = "upload_calls_total", "Upload calls to Graph begun";
    describe_counter UPLOADS_ENDED = "uploads_ended_total", "Uploads of assets ended, by result";
    describe_counter ATTACHMENTS_REUSED = "attachments_reused_total", "Calls to Graph that name an uploaded asset by its id";
    describe_counter ATTACHMENT_IDS_REFUSED = "attachment_ids_refused_total", "Ids of uploaded assets that Graph refused; each asset is uploaded again";
    describe_gauge ATTACHMENT_ROWS_WAITING = "attachment_rows_waiting", "Messages in hand that wait for the upload of an asset";
    describe_gauge LEASES = "leases_held", "Partitions leased by this process, of 64";
    describe_gauge UNSERVED = "leases_unserved", "Partitions leased by this process whose scans fail";
    describe_counter SCANS_FAILED = "scans_failed_total", "Failed scans of the queue; each is repeated";
    describe_gauge SNAPSHOT_AGE = "oldest_snapshot_seconds", "Age of the oldest transaction that keeps the database from removing old row versions; 0 if unknown";
    describe_gauge ROWS = "rows", "Rows of the log that are not final, by status";
    describe_gauge UNKNOWN_ROWS = "unknown_rows", "UNKNOWN rows, held until an operator settles them";
    describe_gauge OLDEST_UNKNOWN = "unknown_oldest_seconds", "Time since the last call of the oldest UNKNOWN row; 0 without such a row";
    describe_gauge LINES_STOPPED = "lines_stopped", "Lines that are switched on and do not send, paused or without a token, by who ends that (itself, somebody)";
    describe_gauge TOKENS_ENDING = "page_tokens_ending", "Page tokens of lines that are switched on which end, within 14 days (those within 3 days included), within 3 days, or have ended";
    describe_gauge TOKEN_FIRST_END = "page_token_first_end_timestamp_seconds", "Unix time at which the first page token ends; 0 if none is known to end within 14 days";
    describe_counter TOKEN_REFRESHES = "page_token_refreshes_total", "Tries to refresh a page token, by outcome (refreshed, failed, refused, ended)";
    describe_gauge DATABASE_UP = "database_up", "1 if the last count of the rows succeeded, else 0";
    describe_gauge DATABASE_WRITABLE = "database_writable", "1 if the database reports that messages can be logged, else 0";
    describe_counter CERTIFICATE_LOADS = "certificate_loads_total", "Looks that found the certificate files of a listener changed, by listener and outcome (loaded, refused)";
    describe_gauge CERTIFICATE_ENDS = "certificate_end_timestamp_seconds", "Unix time at which the certificate of a listener ends, by listener; 0 without TLS";
    describe_counter WEBHOOKS_RECEIVED = "webhooks_received_total", "Requests of Meta's webhook, by object (page, instagram, other) and result (kept, unsigned, too_large, broken_off, unavailable)";
    describe_counter WEBHOOK_VERIFICATIONS = "webhook_verifications_total", "Verifications of the webhook, by result (verified, refused)";
    describe_counter WEBHOOK_EVENTS = "webhook_events_total", "Events of Meta's webhooks that were applied, by kind";
    describe_counter WEBHOOKS_UNREADABLE = "webhooks_unreadable_total", "Signed bodies of webhooks that could not be read; nothing of them was applied";
    describe_gauge WEBHOOKS_WAITING = "webhooks_waiting", "Bodies of webhooks that are kept and not applied; the same in every process that applies them";
    describe_gauge WEBHOOKS_OLDEST = "webhooks_oldest_seconds", "Age of the oldest body of a webhook that waits, as last seen";
    describe_gauge WEBHOOKS_ASIDE = "webhooks_set_aside", "Bodies of webhooks that could not be applied and are set aside for an operator";
    describe_histogram WEBHOOK_SECONDS = "webhook_delay_seconds", "Time from the receipt of a body of a webhook until it was applied";
    describe_counter RECEIPTS = "receipts_total", "Messages that Meta has told more of, by kind (delivered, read)";
    describe_counter ENFORCEMENTS = "policy_enforcements_total", "Events of Meta's policy enforcement, by action (warning, block, unblock)";
    describe_counter EVENTS_WITHOUT_LINE = "events_without_line_total", "Events of Pages and Instagram accounts that no line has";
    describe_counter UNKNOWN_EVENTS = "unknown_events_total", "Events of Meta's webhooks without an effect, by name";
    describe_counter INBOUND_DROPPED = "inbound_events_dropped_total", "Events of webhooks that were not published on cdls.inbound";
    describe_gauge BUDGET_USE = "budget_use_percent", "Use of a budget of Meta in percent, as this process knows it, by owner (line, app, other) and id";
    describe_gauge BUDGET_LIMIT = "budget_limit_calls", "Calls a second to which this process is limited by a budget of Meta; -1: it is not limited";
    describe_gauge DAY_BUDGET = "line_day_budget_messages", "Messages that a line may send in 24 hours: 200 for each person who wrote to it in that time, by line";
    describe_counter LOG_DROPPED = "log_lines_dropped_total", "Lines of the process log that were not written because standard error was not read";
}

const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const ROWS_OF_A_BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Set the buckets; without them the exporter would show quantiles, which cannot be added up over processes.
pub fn buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_ROWS.into()), ROWS_OF_A_BATCH)?
        .set_buckets_for_metric(Matcher::Full(BATCH_ENTRIES.into()), ROWS_OF_A_BATCH)
}
