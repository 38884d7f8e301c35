//! The run's own PostgreSQL and RabbitMQ: killed with SIGKILL and started again on the data they left.
//!
//! `tests/chaos/run` sets them up in a folder and leaves a script there that starts each of them again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use testkit::process::signal;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// One of the two servers.
pub struct Server {
    name: &'static str,
    folder: PathBuf,
    /// Host and port.
    pub address: String,
    started: Option<Child>,
}

impl Server {
    pub fn postgres(folder: &Path, address: String) -> Server {
        Server { name: "postgres", folder: folder.to_owned(), address, started: None }
    }

    pub fn rabbitmq(folder: &Path, address: String) -> Server {
        Server { name: "rabbitmq", folder: folder.to_owned(), address, started: None }
    }

    /// Send kill -9 to the postmaster, or to the broker's node.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        for pid in self.pids()? {
            signal("KILL", pid).await?;
        }
        if let Some(mut child) = self.started.take() {
            // The script that started a broker ends with its node.
            let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
        }
        Ok(())
    }

    /// Start the server on its data and wait until it listens.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + STARTS_WITHIN;
        let mut child = self.spawn()?;
        while tokio::net::TcpStream::connect(&self.address).await.is_err() {
            if Instant::now() > end {
                bail!("{} does not start on {}", self.name, self.address);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Too early: processes of the killed server are still there.
            if child.try_wait()?.is_some() {
                tokio::time::sleep(Duration::from_millis(200)).await;
                child = self.spawn()?;
            }
        }
        self.started = Some(child);
        Ok(())
    }

    /// Run a command of `rabbitmqctl` on the broker's node.
    pub async fn control(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(self.folder.join("rabbitmqctl"))
            .arg("--quiet")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("rabbitmqctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{}-restarts.log", self.name)))?;
        Command::new(self.folder.join(format!("start-{}", self.name)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.name))
    }

    fn pids(&self) -> anyhow::Result<Vec<i32>> {
        if self.name == "postgres" {
            let file = self.folder.join("postgres/data/postmaster.pid");
            let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
            return Ok(text.lines().next().and_then(|pid| pid.trim().parse().ok()).into_iter().collect());
        }
        let ours = self.folder.join("rabbitmq").display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end during the look.
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            if command.split('\0').next().is_some_and(|program| program.ends_with("beam.smp"))
                && command.contains(&ours)
                && !command.contains("rabbitmqctl")
            {
                found.push(pid);
            }
        }
        Ok(found)
    }
}
