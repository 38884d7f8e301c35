//! A process as its broker sees it, and jobs for it.

use std::collections::BTreeMap;
use std::time::Duration;

use meta_dispatch::broker::embedded::EmbeddedBroker;
use meta_dispatch::broker::rabbitmq::RabbitBroker;
use meta_dispatch::broker::{Arrivals, BrokerState, JobDelivery, SharedBroker};
use meta_dispatch::channel::Medium;
use meta_dispatch::domain::{Job, JobWork, Lane, LineId, Outcome, Partition, Reply, RowId, Status, WorkId};
use tokio::time::timeout;

use super::amqp_forwarder::Forwarder;
use super::rabbitmq::{Vhost, settings};

pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Embedded,
    RabbitMq,
}

/// A process with its broker, and the virtual host it has for itself.
pub struct Process {
    pub broker: SharedBroker,
    pub arrivals: Arrivals,
    _vhost: Option<Vhost>,
}

impl Process {
    pub async fn start(backend: Backend) -> Process {
        match backend {
            Backend::Embedded => {
                let (broker, arrivals) = EmbeddedBroker::open();
                Process { broker, arrivals, _vhost: None }
            }
            Backend::RabbitMq => {
                let vhost = Vhost::lease().await;
                let (broker, arrivals) = RabbitBroker::open(&settings(&vhost.url())).expect("a good URL");
                Process { broker, arrivals, _vhost: Some(vhost) }
            }
        }
    }

    /// Start one of several on a virtual host that the test holds.
    pub fn on(vhost: &Vhost) -> Process {
        let (broker, arrivals) = RabbitBroker::open(&settings(&vhost.url())).expect("a good URL");
        Process { broker, arrivals, _vhost: None }
    }

    pub fn behind(forwarder: &Forwarder, vhost: &Vhost) -> Process {
        let settings = settings(&vhost.url_at(forwarder.address()));
        let (broker, arrivals) = RabbitBroker::open(&settings).expect("a good URL");
        Process { broker, arrivals, _vhost: None }
    }

    pub fn publish(&self, line: i64, id: i64) {
        self.broker.publish(LineId(line).partition(), job(line, id));
    }

    pub fn consume(&self, partitions: impl IntoIterator<Item = i16>) {
        self.broker.consume(&partitions.into_iter().map(Partition).collect::<Vec<_>>());
    }

    pub async fn delivery(&mut self) -> JobDelivery {
        timeout(DEADLINE, self.arrivals.jobs.recv()).await.expect("a job in time").expect("an open channel")
    }

    /// Take and acknowledge jobs until so many rows are there; return the work of each line, in order of
    /// number.
    pub async fn rows(&mut self, rows: u32) -> BTreeMap<i64, Vec<i64>> {
        let mut lines: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let mut counted = 0;
        while counted < rows {
            let delivery = self.delivery().await;
            for work in &delivery.job.work {
                assert_eq!(work.line.partition(), delivery.partition);
                lines.entry(work.line.0).or_default().push(work.work.0);
            }
            counted += delivery.job.rows();
            delivery.ack();
        }
        lines.values_mut().for_each(|work| work.sort_unstable());
        lines
    }

    /// Take and acknowledge jobs until one names this work of the line.
    pub async fn row(&mut self, line: i64, id: i64) {
        loop {
            let delivery = self.delivery().await;
            let named = delivery.job.work.iter().any(|work| (work.line.0, work.work.0) == (line, id));
            delivery.ack();
            if named {
                return;
            }
        }
    }

    pub async fn reply(&mut self) -> Reply {
        timeout(DEADLINE, self.arrivals.replies.recv()).await.expect("a reply in time").expect("open")
    }

    pub async fn is(&self, state: BrokerState) {
        eventually(&format!("{state:?}"), async || self.broker.state() == state).await;
    }
}

pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let look = || async { if holds().await { Ok(()) } else { Err(String::new()) } };
    testkit::wait::until(DEADLINE, look).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Return a job that announces one row: work and row have the same number.
pub fn job(line: i64, id: i64) -> Job {
    let work = JobWork {
        work: WorkId(id),
        line: LineId(line),
        lane: Lane::High,
        medium: Medium::Text,
        campaign: String::new(),
        first: RowId(id),
        rows: 1,
        messages: Vec::new(),
    };
    Job { work: vec![work], ..Job::empty() }
}

/// Return the work that a job names.
pub fn named(job: &Job) -> Vec<i64> {
    job.work.iter().map(|work| work.work.0).collect()
}

pub fn outcome(ticket: &str) -> Reply {
    let (status, message_id) = (Status::Ok, "m_1".to_owned());
    let outcome = Outcome { status, status_code: 200, message_id, ..Outcome::queued(RowId(7)) };
    Reply { ticket: ticket.to_owned(), outcome }
}
