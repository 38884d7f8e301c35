//! Processes: those the benchmark starts, and the servers it finds by their port; their CPU time and peak memory,
//! as Linux counts them in /proc.

#![allow(clippy::print_stderr)]

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use procfs::process::{FDTarget, Process, Stat};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// A process the benchmark started; killed when dropped.
pub struct Running {
    pub name: &'static str,
    child: Child,
    /// The text of its standard error: warnings.
    warnings: Warnings,
}

type Warnings = Arc<Mutex<Vec<String>>>;

impl Running {
    /// Starts a command of whose output only warnings are shown, on the benchmark's standard error.
    pub fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let warnings = Warnings::default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(show(name, stderr, Arc::clone(&warnings)));
        }
        Ok(Self { name, child, warnings })
    }

    /// How many of its warnings have this word.
    pub fn warned_of(&self, word: &str) -> usize {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().filter(|warning| warning.contains(word)).count()
    }

    pub fn pid(&self) -> i32 {
        self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default()
    }

    /// Fails if the process has ended by itself.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }

    /// Asks the process, and those it started, to end; by force after 15 seconds.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        signal("-TERM", self.pid()).await?;
        if tokio::time::timeout(Duration::from_secs(15), self.child.wait()).await.is_err() {
            signal("-KILL", self.pid()).await?;
            self.child.wait().await?;
        }
        Ok(())
    }
}

async fn show(name: &'static str, stderr: ChildStderr, warnings: Warnings) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name}: {line}");
        warnings.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

async fn signal(signal: &str, group: i32) -> anyhow::Result<()> {
    // A group that has just ended is no error.
    Command::new("kill").args([signal, "--", &format!("-{group}")]).stderr(Stdio::null()).status().await?;
    Ok(())
}

/// Waits until something listens there.
pub async fn listens(address: &str, running: &mut Running) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        running.alive()?;
        if Instant::now() > end {
            bail!("{} does not listen on {address}", running.name);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A port of 127.0.0.1 that is free now.
pub fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The process that listens on this port of 127.0.0.1.
pub fn listener(port: u16) -> anyhow::Result<i32> {
    let sockets: Vec<u64> = procfs::net::tcp()?
        .into_iter()
        .chain(procfs::net::tcp6().unwrap_or_default())
        .filter(|socket| socket.state == procfs::net::TcpState::Listen && socket.local_address.port() == port)
        .map(|socket| socket.inode)
        .collect();
    for process in procfs::process::all_processes()?.flatten() {
        let Ok(descriptors) = process.fd() else { continue };
        let holds = descriptors.flatten().any(
            |descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if sockets.contains(&inode)),
        );
        if holds {
            return Ok(process.pid());
        }
    }
    bail!("cannot see which process listens on port {port}")
}

/// CPU seconds of the process and all that descend from it, also those that have ended.
pub fn cpu_seconds(root: i32) -> anyhow::Result<f64> {
    let ticks: u64 = family(root)?
        .iter()
        .map(|stat| stat.utime + stat.stime + (stat.cutime + stat.cstime).max(0) as u64)
        .sum();
    Ok(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Peak resident memory of the process and those that descend from it now, in MB.
pub fn peak_memory(root: i32) -> anyhow::Result<f64> {
    let kilobytes: u64 = family(root)?
        .iter()
        .filter_map(|stat| Process::new(stat.pid).and_then(|process| process.status()).ok())
        .filter_map(|status| status.vmhwm)
        .sum();
    Ok(kilobytes as f64 / 1024.0)
}

/// Bytes that the process has caused to be written to storage so far.
pub fn bytes_written(pid: i32) -> anyhow::Result<u64> {
    Ok(Process::new(pid)?.io()?.write_bytes)
}

fn family(root: i32) -> anyhow::Result<Vec<Stat>> {
    let stats: Vec<Stat> =
        procfs::process::all_processes()?.flatten().filter_map(|process| process.stat().ok()).collect();
    let parents: HashMap<i32, i32> = stats.iter().map(|stat| (stat.pid, stat.ppid)).collect();
    let descends = |mut pid: i32| {
        while pid != root {
            match parents.get(&pid) {
                Some(&parent) if parent > 0 => pid = parent,
                _ => return false,
            }
        }
        true
    };
    Ok(stats.into_iter().filter(|stat| descends(stat.pid)).collect())
}

/// Runs a command to its end; its standard output.
pub async fn output(program: &Path, command: &mut Command, input: Option<&str>) -> anyhow::Result<String> {
    use tokio::io::AsyncWriteExt;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
