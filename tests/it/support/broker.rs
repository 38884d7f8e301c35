//! A process as its broker sees it, and jobs for it.

use std::collections::BTreeMap;
use std::time::Duration;

use meta_dispatch::broker::embedded::EmbeddedBroker;
use meta_dispatch::broker::rabbitmq::RabbitBroker;
use meta_dispatch::broker::{Arrivals, BrokerState, JobDelivery, SharedBroker};
use meta_dispatch::message::{
    JOB_VERSION, Job, JobLine, Lane, LineId, MessageId, Outcome, Partition, Reply, Status,
};
use tokio::time::timeout;

use super::amqp_forwarder::Forwarder;
use super::rabbitmq::Vhost;

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
                let (broker, arrivals) = RabbitBroker::open(&vhost.url()).expect("a good URL");
                Process { broker, arrivals, _vhost: Some(vhost) }
            }
        }
    }

    /// One of several on a virtual host that the test holds.
    pub fn on(vhost: &Vhost) -> Process {
        let (broker, arrivals) = RabbitBroker::open(&vhost.url()).expect("a good URL");
        Process { broker, arrivals, _vhost: None }
    }

    pub fn behind(forwarder: &Forwarder, vhost: &Vhost) -> Process {
        let (broker, arrivals) = RabbitBroker::open(&vhost.url_at(forwarder.address())).expect("a good URL");
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

    /// Takes and acknowledges jobs until their rows are all there; merged by line.
    pub async fn rows(&mut self, rows: u32) -> BTreeMap<i64, JobLine> {
        let mut lines: BTreeMap<i64, JobLine> = BTreeMap::new();
        while lines.values().map(|line| line.4).sum::<u32>() < rows {
            let delivery = self.delivery().await;
            for line in &delivery.job.lines {
                assert_eq!(line.0.partition(), delivery.partition);
                lines.entry(line.0.0).and_modify(|known| known.join(*line)).or_insert(*line);
            }
            delivery.ack();
        }
        lines
    }

    /// Takes and acknowledges jobs until one names this row of the line.
    pub async fn row(&mut self, line: i64, id: i64) {
        loop {
            let delivery = self.delivery().await;
            let named = delivery
                .job
                .lines
                .iter()
                .any(|known| known.0 == LineId(line) && (known.2.0..=known.3.0).contains(&id));
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
    timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub fn job(line: i64, id: i64) -> Job {
    Job { v: JOB_VERSION, lines: vec![line_of(line, id, id, 1)] }
}

pub fn line_of(line: i64, first: i64, last: i64, n: u32) -> JobLine {
    JobLine(LineId(line), Lane::High, MessageId(first), MessageId(last), n)
}

pub fn outcome(ticket: &str) -> Reply {
    let outcome =
        Outcome { cdls_id: MessageId(7), status: Status::Ok, status_code: 200, message_id: "m_1".to_owned() };
    Reply { ticket: ticket.to_owned(), outcome }
}
