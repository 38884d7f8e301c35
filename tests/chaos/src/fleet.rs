//! The product's processes: two ingests and three workers, started, killed, frozen, and started again when
//! they die.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rand::Rng;
use testkit::process::{Output, Running, signal};
use testkit::program::Program;
use testkit::{http, wait};

use crate::plan::Failpoints;

pub const INGESTS: usize = 2;
pub const WORKERS: usize = 3;
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(40);
const SIGABRT: i32 = 6;
/// The product's exit code when a second signal cut its orderly stop short.
const TOLD_TWICE: i32 = 130;

/// The set-up of the product, beside the parts that are the same in every run.
pub struct Setup {
    pub program: PathBuf,
    pub logs: PathBuf,
    pub database_url: String,
    pub amqp_url: String,
    pub graph_url: String,
    pub on_ambiguous: String,
    pub defect: Option<&'static str>,
}

struct Slot {
    is_ingest: bool,
    listen: String,
    admin: String,
    child: Option<Running>,
    failpoint: Option<String>,
}

/// The processes; cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    setup: Setup,
    slots: Mutex<Vec<Slot>>,
    failpoints: Mutex<Failpoints>,
    record: Mutex<Record>,
}

/// The events that the processes caused themselves.
#[derive(Default, Clone)]
pub struct Record {
    /// Deaths at failpoints, by name.
    pub died_at: BTreeMap<String, usize>,
    /// Processes that ended without a request.
    pub unexpected: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    pub fn new(setup: Setup, failpoints: Failpoints) -> anyhow::Result<Fleet> {
        let slots = (0..INGESTS + WORKERS)
            .map(|n| {
                Ok(Slot {
                    is_ingest: n < INGESTS,
                    listen: free_address()?,
                    admin: free_address()?,
                    child: None,
                    failpoint: None,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let record = Mutex::default();
        Ok(Fleet(Arc::new(Inner {
            setup,
            slots: Mutex::new(slots),
            failpoints: Mutex::new(failpoints),
            record,
        })))
    }

    /// Return the addresses of the ingests.
    pub fn ingests(&self) -> Vec<String> {
        lock(&self.0.slots).iter().filter(|slot| slot.is_ingest).map(|slot| slot.listen.clone()).collect()
    }

    pub fn record(&self) -> Record {
        lock(&self.0.record).clone()
    }

    /// Run a command of the product to its end; return its standard output.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.product().run(arguments, None).await
    }

    /// Start every process that is down, and wait until all are ready.
    pub async fn start_all(&self) -> anyhow::Result<()> {
        for slot in 0..INGESTS + WORKERS {
            if lock(&self.0.slots)[slot].child.is_none() {
                self.start(slot, false)?;
            }
        }
        for slot in 0..INGESTS + WORKERS {
            let admin = lock(&self.0.slots)[slot].admin.clone();
            let ready = wait::until(STARTS_WITHIN, || http::ready(&admin)).await;
            ready.map_err(|seen| anyhow!("{} does not start: {seen}", name(slot)))?;
        }
        Ok(())
    }

    /// Start the process of a slot, perhaps with a failpoint.
    pub fn start(&self, slot: usize, may_fail: bool) -> anyhow::Result<()> {
        let mut slots = lock(&self.0.slots);
        let place = &mut slots[slot];
        let failpoint = lock(&self.0.failpoints).next(place.is_ingest).filter(|_| may_fail);
        let program = self
            .product()
            .http(&place.listen)
            .admin(&place.admin)
            .variable("META_DISPATCH_FAILPOINT", failpoint.as_deref().unwrap_or("none:1"))
            .variable("META_DISPATCH_DEFECT", self.0.setup.defect.unwrap_or_default());
        let log = self.0.setup.logs.join(format!("{}.log", name(slot)));
        let role = if place.is_ingest { "ingest" } else { "worker" };
        let child = program.start(role, Output::AppendTo(&log));
        place.child = Some(child.with_context(|| format!("starting {}", name(slot)))?);
        place.failpoint = failpoint;
        Ok(())
    }

    fn product(&self) -> Program {
        let setup = &self.0.setup;
        Program::new(&setup.program)
            .in_groups()
            .database(&setup.database_url)
            .with("database.max_connections", "6")
            .broker(&setup.amqp_url)
            .graph(&setup.graph_url)
            .with("graph.connect_timeout", "500ms")
            .with("graph.timeout", "2s")
            .with("dispatch.lease", "1s")
            .with("dispatch.concurrency", "128")
            .with("dispatch.on_ambiguous", &setup.on_ambiguous)
            .with("retry.base", "100ms")
            .with("retry.cap", "1s")
            .with("shutdown.grace", "5s")
            .with("log.filter", "info")
    }

    /// Return the requested slot, or the next of its role that is up; `None` if none is.
    fn up(&self, is_ingest: bool, nth: usize) -> Option<usize> {
        let (first, count) = if is_ingest { (0, INGESTS) } else { (INGESTS, WORKERS) };
        let slots = lock(&self.0.slots);
        (0..count).map(|n| first + (nth + n) % count).find(|&slot| slots[slot].child.is_some())
    }

    /// Send kill -9; return the slot, to be started again. `None` if no process of this role was up.
    pub async fn kill(&self, is_ingest: bool, nth: usize) -> anyhow::Result<Option<usize>> {
        let Some(slot) = self.up(is_ingest, nth) else { return Ok(None) };
        let child = lock(&self.0.slots)[slot].child.take();
        if let Some(mut child) = child {
            child.kill().await?;
        }
        Ok(Some(slot))
    }

    /// Send SIGTERM, perhaps another a while later, and wait for the end; return the slot, to be started
    /// again.
    pub async fn stop(
        &self,
        is_ingest: bool,
        nth: usize,
        again: Option<Duration>,
    ) -> anyhow::Result<Option<usize>> {
        let Some(slot) = self.up(is_ingest, nth) else { return Ok(None) };
        let (child, failpoint) = {
            let mut slots = lock(&self.0.slots);
            (slots[slot].child.take(), slots[slot].failpoint.take())
        };
        if let Some(mut child) = child {
            let mut good: &[i32] = &[0];
            signal("TERM", child.pid()).await?;
            if let Some(again) = again {
                good = &[0, TOLD_TWICE];
                // The process may have ended meanwhile.
                if tokio::time::timeout(again, child.wait()).await.is_err() {
                    signal("TERM", child.pid()).await?;
                }
            }
            match tokio::time::timeout(STOPS_WITHIN, child.wait()).await {
                Ok(status) => self.ended(slot, status?, failpoint, good),
                Err(_) => {
                    lock(&self.0.record).unexpected.push(format!("{} does not stop", name(slot)));
                    child.kill().await?;
                }
            }
        }
        Ok(Some(slot))
    }

    /// Send SIGSTOP; return the process's id, for [`signal`] to continue it.
    pub async fn freeze(&self, nth: usize) -> anyhow::Result<Option<i32>> {
        let Some(slot) = self.up(false, nth) else { return Ok(None) };
        let pid = lock(&self.0.slots)[slot].child.as_ref().map(Running::pid);
        if let Some(pid) = pid {
            signal("STOP", pid).await?;
        }
        Ok(pid)
    }

    /// Note processes that died, and start them again, until dropped.
    pub async fn watch(self, may_fail: bool) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for slot in 0..INGESTS + WORKERS {
                let ended = {
                    let mut slots = lock(&self.0.slots);
                    let place = &mut slots[slot];
                    let status = place.child.as_mut().map(Running::ended).transpose()?.flatten();
                    status.map(|status| {
                        place.child = None;
                        (status, place.failpoint.take())
                    })
                };
                if let Some((status, failpoint)) = ended {
                    self.ended(slot, status, failpoint, &[]);
                    self.start(slot, may_fail)?;
                }
            }
        }
    }

    /// Note the end of a process. `good`: the exit codes of a process that was asked to end.
    fn ended(&self, slot: usize, status: ExitStatus, failpoint: Option<String>, good: &[i32]) {
        let mut record = lock(&self.0.record);
        match failpoint {
            Some(step) if status.signal() == Some(SIGABRT) => {
                let step = step.split(':').next().unwrap_or_default().to_owned();
                *record.died_at.entry(step).or_default() += 1;
            }
            _ if status.code().is_some_and(|code| good.contains(&code)) => {}
            _ => record.unexpected.push(format!("{} ended by itself: {status}", name(slot))),
        }
    }

    /// Kill every remaining process.
    pub async fn end(&self) {
        let children: Vec<Running> =
            lock(&self.0.slots).iter_mut().filter_map(|slot| slot.child.take()).collect();
        for mut child in children {
            // A process that has ended is the wanted result.
            let _ = child.kill().await;
        }
    }
}

fn name(slot: usize) -> String {
    if slot < INGESTS { format!("ingest-{slot}") } else { format!("worker-{}", slot - INGESTS) }
}

/// Return an address without a listener. Not chosen by the kernel: a process is killed and started again, and
/// meanwhile another connection could receive its port.
fn free_address() -> anyhow::Result<String> {
    let mut tries = (0..100).map(|_| format!("127.0.0.1:{}", rand::rng().random_range(10_000..20_000)));
    tries.find(|address| std::net::TcpListener::bind(address).is_ok()).context("no port is free")
}
