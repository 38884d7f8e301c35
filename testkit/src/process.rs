//! Processes that a harness starts: their output, signals and end, and addresses for them.
//!
//! Never here: what meta-dispatch is told at its start. That is [`Program`](crate::program::Program).

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStderr;

use crate::http;

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(15);
/// How often a process that starts is asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How often a process that ends is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The place where a process writes.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// Standard output and standard error are appended to this file.
    AppendTo(&'a Path),
    /// Lines of standard error are shown on the harness's own under the name of the process, and counted; standard output
    /// is dropped.
    Shown,
    /// Standard error is the harness's own; standard output is dropped.
    Inherited,
    /// Both are dropped.
    Dropped,
}

/// A process that a harness started; killed when dropped.
pub struct Running {
    /// Its name in reports.
    pub name: &'static str,
    child: Child,
    /// The process leads a process group, which gets its signals.
    leads: bool,
    /// Lines of its standard error, with [`Output::Shown`].
    warnings: Warnings,
}

type Warnings = Arc<Mutex<Vec<String>>>;

impl Running {
    /// Starts a command.
    pub fn start(name: &'static str, command: &mut Command, output: Output<'_>) -> anyhow::Result<Running> {
        match output {
            Output::AppendTo(file) => {
                let log = std::fs::File::options().create(true).append(true).open(file);
                let log = log.with_context(|| format!("opening {}", file.display()))?;
                command.stdout(log.try_clone()?).stderr(log);
            }
            Output::Shown => {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
            }
            Output::Inherited => {
                command.stdout(Stdio::null()).stderr(Stdio::inherit());
            }
            Output::Dropped => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("starting {name}"))?;
        let mut running = Running { name, child, leads: false, warnings: Warnings::default() };
        if let Some(stderr) = running.child.stderr.take() {
            let stderr = ChildStderr::from_std(stderr)?;
            tokio::spawn(show(name, stderr, Arc::clone(&running.warnings)));
        }
        Ok(running)
    }

    /// Starts a command in a process group of its own: signals of the harness also reach the processes that it starts, and
    /// Ctrl-C at the terminal does not reach it.
    pub fn start_group(
        name: &'static str,
        command: &mut Command,
        output: Output<'_>,
    ) -> anyhow::Result<Running> {
        let mut running = Running::start(name, command.process_group(0), output)?;
        running.leads = true;
        Ok(running)
    }

    /// The process's id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// How many lines of its standard error have this word.
    pub fn warned_of(&self, word: &str) -> usize {
        let warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.iter().filter(|warning| warning.contains(word)).count()
    }

    /// How the process ended; `None` while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Fails if the process has ended by itself.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }

    /// Waits until `/readyz` of the process's admin listener says that it is ready. Its other listener is open by then.
    pub async fn ready(&mut self, admin: &str) -> anyhow::Result<()> {
        self.starts(|| http::ready(admin)).await
    }

    /// Waits until something listens at the process's address.
    pub async fn listens(&mut self, address: &str) -> anyhow::Result<()> {
        self.starts(|| http::listens(address)).await
    }

    async fn starts<Fut>(&mut self, look: impl Fn() -> Fut) -> anyhow::Result<()>
    where
        Fut: Future<Output = Result<(), String>>,
    {
        let end = Instant::now() + STARTS_WITHIN;
        while let Err(seen) = look().await {
            self.alive()?;
            ensure!(Instant::now() < end, "{} does not start: {seen}", self.name);
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Waits for the end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a signal by its name, such as `TERM`; whether it found the process, or its group.
    pub fn signal(&self, name: &str) -> io::Result<bool> {
        let target = if self.leads { -self.pid() } else { self.pid() };
        Ok(kill(name, target).status()?.success())
    }

    /// Asks the process to end, and waits; by force after 15 seconds.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // A process that has just ended is no error.
        self.signal("TERM")?;
        if tokio::time::timeout(STOPS_WITHIN, self.wait()).await.is_err() {
            self.signal("KILL")?;
            self.wait().await?;
        }
        Ok(())
    }

    /// Ends the process without any warning, and waits.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        // Its files and addresses are free for others afterwards.
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "the harness shows what its processes warn of")]
async fn show(name: &'static str, stderr: ChildStderr, warnings: Warnings) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        eprintln!("{name}: {line}");
        warnings.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Sends a signal by its name to any process; one that has just ended is no error.
pub async fn signal(name: &str, pid: i32) -> anyhow::Result<()> {
    tokio::process::Command::from(kill(name, pid)).status().await.context("kill")?;
    Ok(())
}

fn kill(name: &str, target: i32) -> Command {
    let mut command = Command::new("kill");
    command.args([format!("-{name}").as_str(), "--", &target.to_string()]).stderr(Stdio::null());
    command
}

/// Runs a command to its end; its standard output.
pub async fn output(command: Command, input: Option<&str>) -> anyhow::Result<String> {
    let shown = shown(&command);
    let mut child = tokio::process::Command::from(command)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed: {}: {}", output.status, errors.trim_end());
    Ok(String::from_utf8(output.stdout)?)
}

/// A command as an error names it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A port of 127.0.0.1 that is free now.
pub fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An address with such a port.
pub fn free_address() -> io::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const SIGKILL: i32 = 9;
    const SIGTERM: i32 = 15;

    fn sleeping() -> Running {
        let mut command = Command::new("sleep");
        Running::start("sleep", command.arg("60"), Output::Inherited).unwrap()
    }

    #[tokio::test]
    async fn a_signal_ends_the_process() {
        let mut running = sleeping();
        running.alive().unwrap();
        assert!(running.signal("TERM").unwrap());
        assert_eq!(running.wait().await.unwrap().signal(), Some(SIGTERM));
        assert!(running.alive().is_err());
    }

    #[tokio::test]
    async fn a_kill_waits_for_the_end() {
        let mut running = sleeping();
        assert_eq!(running.kill().await.unwrap().signal(), Some(SIGKILL));
    }

    #[tokio::test]
    async fn a_stop_reaches_the_group() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let running = Running::start_group("sh", &mut command, Output::Inherited).unwrap();
        running.stop().await.unwrap();
    }

    #[tokio::test]
    async fn output_is_appended_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        for word in ["one", "two"] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo {word} >&2")]);
            Running::start("sh", &mut command, Output::AppendTo(&file)).unwrap().wait().await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    }

    #[tokio::test]
    async fn a_command_that_fails_names_itself() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why >&2; exit 3"]);
        let error = output(command, None).await.unwrap_err().to_string();
        assert!(error.starts_with("sh -c ") && error.ends_with("exit status: 3: why"), "{error}");
    }
}
