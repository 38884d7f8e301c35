//! The product's processes: two ingests and three workers, started, killed, frozen, and started again when they die.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::plan::Failpoints;
use crate::servers::signal;

pub const INGESTS: usize = 2;
pub const WORKERS: usize = 3;
const STOPS_WITHIN: Duration = Duration::from_secs(40);
const SIGABRT: i32 = 6;
/// The product's exit code when a second signal cut its orderly stop short.
const TOLD_TWICE: i32 = 130;

/// How the product is set up, beside what is the same in every run.
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
    child: Option<Child>,
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

/// What the processes did by themselves.
#[derive(Default, Clone)]
pub struct Record {
    /// Deaths at failpoints, by name.
    pub died_at: BTreeMap<String, usize>,
    /// Processes that ended although nobody asked them to.
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

    /// Where the ingests listen.
    pub fn ingests(&self) -> Vec<String> {
        lock(&self.0.slots).iter().filter(|slot| slot.is_ingest).map(|slot| slot.listen.clone()).collect()
    }

    pub fn record(&self) -> Record {
        lock(&self.0.record).clone()
    }

    /// Runs a command of the product to its end; its standard output.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.product(arguments).output().await?;
        anyhow::ensure!(
            output.status.success(),
            "meta-dispatch {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts every process that is down, and waits until all answer health checks.
    pub async fn start_all(&self) -> anyhow::Result<()> {
        for slot in 0..INGESTS + WORKERS {
            if lock(&self.0.slots)[slot].child.is_none() {
                self.start(slot, false)?;
            }
        }
        for slot in 0..INGESTS + WORKERS {
            let end = Instant::now() + Duration::from_secs(60);
            let admin = lock(&self.0.slots)[slot].admin.clone();
            while tokio::net::TcpStream::connect(&admin).await.is_err() {
                anyhow::ensure!(Instant::now() < end, "{} does not start", name(slot));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Starts the process of a slot, perhaps with a failpoint.
    pub fn start(&self, slot: usize, may_fail: bool) -> anyhow::Result<()> {
        let mut slots = lock(&self.0.slots);
        let place = &mut slots[slot];
        let failpoint = lock(&self.0.failpoints).next(place.is_ingest).filter(|_| may_fail);
        let mut command = self.product(&[if place.is_ingest { "ingest" } else { "worker" }]);
        command
            .env("META_DISPATCH__HTTP__LISTEN", &place.listen)
            .env("META_DISPATCH__ADMIN__LISTEN", &place.admin)
            .env("META_DISPATCH_FAILPOINT", failpoint.as_deref().unwrap_or("none:1"))
            .env("META_DISPATCH_DEFECT", self.0.setup.defect.unwrap_or_default());
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.0.setup.logs.join(format!("{}.log", name(slot))))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", name(slot)))?;
        place.child = Some(child);
        place.failpoint = failpoint;
        Ok(())
    }

    fn product(&self, arguments: &[&str]) -> Command {
        let setup = &self.0.setup;
        let mut command = Command::new(&setup.program);
        command
            .args(arguments)
            .env("META_DISPATCH__DATABASE__URL", &setup.database_url)
            .env("META_DISPATCH__DATABASE__MAX_CONNECTIONS", "6")
            .env("META_DISPATCH__BROKER__URL", &setup.amqp_url)
            .env("META_DISPATCH__GRAPH__BASE_URL", &setup.graph_url)
            .env("META_DISPATCH__GRAPH__CONNECT_TIMEOUT", "500ms")
            .env("META_DISPATCH__GRAPH__TIMEOUT", "2s")
            .env("META_DISPATCH__DISPATCH__LEASE", "1s")
            .env("META_DISPATCH__DISPATCH__CONCURRENCY", "128")
            .env("META_DISPATCH__DISPATCH__ON_AMBIGUOUS", &setup.on_ambiguous)
            .env("META_DISPATCH__RETRY__BASE", "100ms")
            .env("META_DISPATCH__RETRY__CAP", "1s")
            .env("META_DISPATCH__SHUTDOWN__GRACE", "5s")
            .env("META_DISPATCH__LOG__FILTER", "info");
        command
    }

    /// The slot asked for, or the next of its role that is up; `None` if none is.
    fn up(&self, is_ingest: bool, nth: usize) -> Option<usize> {
        let (first, count) = if is_ingest { (0, INGESTS) } else { (INGESTS, WORKERS) };
        let slots = lock(&self.0.slots);
        (0..count).map(|n| first + (nth + n) % count).find(|&slot| slots[slot].child.is_some())
    }

    /// kill -9; the slot, to be started again. `None` if no process of this role was up.
    pub async fn kill(&self, is_ingest: bool, nth: usize) -> anyhow::Result<Option<usize>> {
        let Some(slot) = self.up(is_ingest, nth) else { return Ok(None) };
        let child = lock(&self.0.slots)[slot].child.take();
        if let Some(mut child) = child {
            child.kill().await?;
        }
        Ok(Some(slot))
    }

    /// SIGTERM, perhaps another a while later, and waits for the end; the slot, to be started again.
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
            signal("TERM", child.id().unwrap_or_default()).await?;
            if let Some(again) = again {
                good = &[0, TOLD_TWICE];
                // It may have ended meanwhile.
                if tokio::time::timeout(again, child.wait()).await.is_err() {
                    signal("TERM", child.id().unwrap_or_default()).await?;
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

    /// SIGSTOP; the process's id, for [`signal`] to continue it.
    pub async fn freeze(&self, nth: usize) -> anyhow::Result<Option<u32>> {
        let Some(slot) = self.up(false, nth) else { return Ok(None) };
        let pid = lock(&self.0.slots)[slot].child.as_ref().and_then(Child::id);
        if let Some(pid) = pid {
            signal("STOP", pid).await?;
        }
        Ok(pid)
    }

    /// Notes processes that died, and starts them again, until dropped.
    pub async fn watch(self, may_fail: bool) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for slot in 0..INGESTS + WORKERS {
                let ended = {
                    let mut slots = lock(&self.0.slots);
                    let place = &mut slots[slot];
                    let status = place.child.as_mut().map(Child::try_wait).transpose()?.flatten();
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

    /// `good`: the exit codes of a process that was asked to end.
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

    /// Kills all that is left.
    pub async fn end(&self) {
        let children: Vec<Child> =
            lock(&self.0.slots).iter_mut().filter_map(|slot| slot.child.take()).collect();
        for mut child in children {
            // One that has ended is what is wanted.
            let _ = child.kill().await;
        }
    }
}

fn name(slot: usize) -> String {
    if slot < INGESTS { format!("ingest-{slot}") } else { format!("worker-{}", slot - INGESTS) }
}

/// An address at which nobody listens. Not of the kernel's choice: a process is killed and started again, and meanwhile a
/// connection of anybody could be given its port.
fn free_address() -> anyhow::Result<String> {
    let mut tries = (0..100).map(|_| format!("127.0.0.1:{}", rand::rng().random_range(10_000..20_000)));
    tries.find(|address| std::net::TcpListener::bind(address).is_ok()).context("no port is free")
}
