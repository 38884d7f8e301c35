//! All metrics of this process, and their exporter.

use std::sync::{Arc, LazyLock};

use metrics::Counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::attachments::AttachmentMetrics;
use super::broker::BrokerMetrics;
use super::budgets::BudgetMetrics;
use super::codes::CodeMetrics;
use super::dispatch::DispatchMetrics;
use super::ingest::IngestMetrics;
use super::listeners::{HttpMetrics, TlsMetrics};
use super::meta_events::MetaEventMetrics;
use super::names;
use super::page_tokens::PageTokenMetrics;
use super::rows::RowMetrics;
use super::webhooks::WebhookMetrics;

/// The metrics of this process, and their exporter.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

pub struct Metrics {
    pub http: HttpMetrics,
    pub ingest: IngestMetrics,
    pub broker: BrokerMetrics,
    pub dispatch: DispatchMetrics,
    pub attachments: AttachmentMetrics,
    pub budgets: BudgetMetrics,
    pub codes: CodeMetrics,
    pub page_tokens: PageTokenMetrics,
    pub rows: RowMetrics,
    pub tls: TlsMetrics,
    pub webhooks: WebhookMetrics,
    pub meta_events: MetaEventMetrics,
    pub log: LogMetrics,
    exporter: PrometheusHandle,
}

/// The process log.
pub struct LogMetrics {
    /// Lines that were not written, because standard error was not read.
    pub dropped: Counter,
}

impl Metrics {
    fn new() -> Metrics {
        let builder = names::buckets(PrometheusBuilder::new()).expect("no list of buckets is empty");
        let recorder = Arc::new(builder.build_recorder());
        let exporter = recorder.handle();
        // Handles are made with this recorder, so that none has to be installed for the whole process.
        metrics::with_local_recorder(&*recorder, || {
            names::describe();
            metrics::gauge!(names::BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
            Metrics {
                http: HttpMetrics::new(),
                ingest: IngestMetrics::new(),
                broker: BrokerMetrics::new(),
                dispatch: DispatchMetrics::new(),
                attachments: AttachmentMetrics::new(),
                budgets: BudgetMetrics::new(recorder.clone()),
                codes: CodeMetrics::new(recorder.clone()),
                page_tokens: PageTokenMetrics::new(),
                rows: RowMetrics::new(),
                tls: TlsMetrics::new(),
                webhooks: WebhookMetrics::new(),
                meta_events: MetaEventMetrics::new(),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::Class;
    use crate::domain::Status;
    use crate::metrics::{CallOutcome, SettledBy};

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
        for subcode in 0..120 {
            metrics.codes.unlisted(4_242, Some(subcode));
        }
        metrics.codes.unlisted(4_242, Some(7));
        metrics.codes.settled(SettledBy::Echo, 2);
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
            "meta_dispatch_unlisted_codes_total{code=\"4242\",subcode=\"7\"} 2",
            "meta_dispatch_unlisted_codes_total{code=\"other\",subcode=\"\"} 20",
            "meta_dispatch_settled_total{by=\"echo\"} 2",
            "meta_dispatch_settled_total{by=\"conversation\"} 0",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    }
}
