//! The execution of the schedule. Lasting faults, and restarts, continue beside later ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use lapin::options::{QueueDeleteOptions, QueuePurgeOptions};
use sqlx::PgPool;
use testkit::process::signal;
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::plan::{Alarm, Fault, Link, Step};
use crate::proxy::Proxy;
use crate::servers::Server;

/// How long a killed process stays away.
const AWAY: Duration = Duration::from_millis(200);
const WORK_QUEUES: usize = 64;

/// Everything that faults act upon.
pub struct Ground {
    pub fleet: Fleet,
    pub postgres: Arc<tokio::sync::Mutex<Server>>,
    pub rabbitmq: Arc<tokio::sync::Mutex<Server>>,
    pub amqp: Proxy,
    pub database: Proxy,
    pub graph: Proxy,
    /// The direct URL, around the proxies.
    pub amqp_url: String,
    pub pool: PgPool,
    pub database_name: String,
}

/// The inflicted faults, with their times.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<(Fault, Instant)>>>);

impl Journal {
    pub fn snapshot(&self) -> Vec<(Fault, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((fault, Instant::now()));
    }

    /// Return the number of faults by name.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (fault, _) in self.snapshot() {
            *counts.entry(fault.name()).or_default() += 1;
        }
        counts
    }
}

/// Inflict one step after another, and wait until the last restart is done.
pub async fn run(ground: Arc<Ground>, steps: Vec<Step>, journal: Journal) -> anyhow::Result<()> {
    let mut under_way = JoinSet::new();
    for step in steps {
        tokio::time::sleep(step.after).await;
        let (ground, journal) = (Arc::clone(&ground), journal.clone());
        let fault = step.fault;
        let inflict = async move {
            inflict(&ground, fault, &journal).await.with_context(|| format!("inflicting: {}", fault.name()))
        };
        under_way.spawn(inflict);
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}

async fn inflict(ground: &Ground, fault: Fault, journal: &Journal) -> anyhow::Result<()> {
    let fleet = &ground.fleet;
    match fault {
        Fault::KillIngest(n) | Fault::KillWorker(n) => {
            if let Some(slot) = fleet.kill(matches!(fault, Fault::KillIngest(_)), n).await? {
                journal.note(fault);
                tokio::time::sleep(AWAY).await;
                fleet.start(slot, true)?;
            }
        }
        Fault::StopIngest(n) | Fault::StopWorker(n) => {
            journal.note(fault);
            stop(fleet, matches!(fault, Fault::StopIngest(_)), n, None).await?;
        }
        Fault::StopIngestTwice(n, again) | Fault::StopWorkerTwice(n, again) => {
            journal.note(fault);
            stop(fleet, matches!(fault, Fault::StopIngestTwice(..)), n, Some(again)).await?;
        }
        Fault::FreezeWorker(n, length) => {
            if let Some(pid) = fleet.freeze(n).await? {
                journal.note(fault);
                tokio::time::sleep(length).await;
                signal("CONT", pid).await?;
            }
        }
        Fault::KillBroker => restart(&ground.rabbitmq, fault, journal).await?,
        Fault::KillPostgres => restart(&ground.postgres, fault, journal).await?,
        Fault::PurgeQueues | Fault::DeleteQueues => {
            journal.note(fault);
            // The broker may be away: then there is nothing to purge.
            let _ = spoil_queues(&ground.amqp_url, fault).await;
        }
        Fault::Alarm(alarm, length) => raise(ground, alarm, length, || journal.note(fault)).await?,
        Fault::TerminateBackends => {
            journal.note(fault);
            terminate_backends(ground).await;
        }
        Fault::Cut(_) | Fault::Delay(..) | Fault::Blackhole(..) | Fault::DropAcks(_) => {
            journal.note(fault);
            disturb(ground, fault).await;
        }
    }
    Ok(())
}

async fn stop(fleet: &Fleet, is_ingest: bool, n: usize, again: Option<Duration>) -> anyhow::Result<()> {
    if let Some(slot) = fleet.stop(is_ingest, n, again).await? {
        fleet.start(slot, true)?;
    }
    Ok(())
}

/// Make the broker's node alarm for a while; `raised` is called when it does.
async fn raise(ground: &Ground, alarm: Alarm, length: Duration, raised: impl FnOnce()) -> anyhow::Result<()> {
    let (alarming, usual) = match alarm {
        Alarm::Memory => (["set_vm_memory_high_watermark", "0"], ["set_vm_memory_high_watermark", "0.4"]),
        Alarm::Disk => (["set_disk_free_limit", "1000000000000000"], ["set_disk_free_limit", "50000000"]),
    };
    // The node is not killed between: commands wait until it is up again, and it comes back without an alarm.
    ground.rabbitmq.lock().await.control(&alarming).await?;
    raised();
    tokio::time::sleep(length).await;
    ground.rabbitmq.lock().await.control(&usual).await
}

async fn terminate_backends(ground: &Ground) {
    let terminated = sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid() \
         and application_name <> 'chaos'",
    )
    .bind(&ground.database_name)
    .execute(&ground.pool);
    // The database may be away.
    let _ = tokio::time::timeout(Duration::from_secs(2), terminated).await;
}

/// Disturb a link for the length of the fault. A fault of something else does nothing here.
async fn disturb(ground: &Ground, fault: Fault) {
    match fault {
        Fault::Cut(link) => ground.proxy(link).cut(),
        Fault::Delay(link, delay, length) => {
            ground.proxy(link).change(|weather| weather.delay = delay);
            tokio::time::sleep(length).await;
            ground.proxy(link).change(|weather| weather.delay = Duration::ZERO);
        }
        Fault::Blackhole(link, length) => {
            ground.proxy(link).change(|weather| weather.hold = true);
            tokio::time::sleep(length).await;
            ground.proxy(link).cut();
            tokio::time::sleep(Duration::from_millis(20)).await;
            ground.proxy(link).change(|weather| weather.hold = false);
        }
        Fault::DropAcks(length) => {
            ground.amqp.change(|weather| weather.drop_acks = true);
            tokio::time::sleep(length).await;
            ground.amqp.change(|weather| weather.drop_acks = false);
        }
        _ => {}
    }
}

async fn restart(server: &tokio::sync::Mutex<Server>, fault: Fault, journal: &Journal) -> anyhow::Result<()> {
    // A starting server is not killed before it is up.
    let mut server = server.lock().await;
    server.kill().await?;
    journal.note(fault);
    tokio::time::sleep(AWAY).await;
    server.start().await
}

async fn spoil_queues(url: &str, fault: Fault) -> anyhow::Result<()> {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    let connection = tokio::time::timeout(Duration::from_secs(3), connection).await??;
    for partition in 0..WORK_QUEUES {
        // A channel for each, because a queue that does not exist closes it.
        let channel = connection.create_channel().await?;
        let queue = format!("cdls.work.{partition:02}");
        let _ = if fault == Fault::PurgeQueues {
            channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await
        } else {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await
        };
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

impl Ground {
    fn proxy(&self, link: Link) -> &Proxy {
        match link {
            Link::Amqp => &self.amqp,
            Link::Postgres => &self.database,
            Link::Graph => &self.graph,
        }
    }

    /// Return to fair weather on all links, with every process up.
    pub async fn heal(&self) -> anyhow::Result<()> {
        for proxy in [&self.amqp, &self.database, &self.graph] {
            proxy.clear();
        }
        self.fleet.start_all().await
    }
}
