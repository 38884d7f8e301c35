//! meta-dispatch as its users start it: the executable, settings in its environment, and none of the harness's own.
//!
//! Never here: which settings a harness has. Each names its own, by their keys.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Output, Running, free_address, output};

/// The beginning of each variable that the program reads.
const VARIABLES: &str = "META_DISPATCH_";

/// The program and what it is told. A setting that is named again replaces the first.
#[derive(Clone)]
pub struct Program {
    executable: PathBuf,
    folder: Option<PathBuf>,
    shell: Option<&'static str>,
    in_groups: bool,
    variables: Vec<(String, String)>,
}

impl Program {
    /// The program at this path, which is absolute, with its default settings.
    pub fn new(executable: impl Into<PathBuf>) -> Program {
        Program {
            executable: executable.into(),
            folder: None,
            shell: None,
            in_groups: false,
            variables: Vec::new(),
        }
    }

    /// With a database.
    pub fn database(self, url: &str) -> Program {
        self.with("database.url", url)
    }

    /// With a broker.
    pub fn broker(self, url: &str) -> Program {
        self.with("broker.url", url)
    }

    /// With a Graph: its base URL, such as `http://127.0.0.1:8090/v25.0`.
    pub fn graph(self, base_url: &str) -> Program {
        self.with("graph.base_url", base_url)
    }

    /// With the address of the send endpoints.
    pub fn http(self, listen: &str) -> Program {
        self.with("http.listen", listen)
    }

    /// With the address of the admin listener.
    pub fn admin(self, listen: &str) -> Program {
        self.with("admin.listen", listen)
    }

    /// With a setting more, by its key, such as `graph.timeout`.
    pub fn with(self, key: &str, value: &str) -> Program {
        let name = format!("{VARIABLES}_{}", key.to_uppercase().replace('.', "__"));
        self.variable(&name, value)
    }

    /// With a variable of the environment, such as `META_DISPATCH_FAILPOINT`.
    pub fn variable(mut self, name: &str, value: &str) -> Program {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// In a working folder.
    pub fn in_folder(mut self, folder: &Path) -> Program {
        self.folder = Some(folder.to_owned());
        self
    }

    /// After commands of a shell, which then becomes the program.
    pub fn after(mut self, commands: &'static str) -> Program {
        self.shell = Some(commands);
        self
    }

    /// Each process in a process group of its own: see [`Running::start_group`].
    pub fn in_groups(mut self) -> Program {
        self.in_groups = true;
        self
    }

    /// A command with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.shell {
            None => Command::new(&self.executable),
            Some(commands) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!(r#"{commands}; exec "$0" "$@""#)).arg(&self.executable);
                shell
            }
        };
        command.args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(VARIABLES.as_bytes()) {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    /// Runs a command to its end; its standard output.
    pub async fn run(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        output(self.command(arguments), input).await
    }

    /// Starts `serve`, `ingest` or `worker`.
    pub fn start(&self, role: &'static str, output: Output<'_>) -> anyhow::Result<Running> {
        let mut command = self.command(&[role]);
        if self.in_groups {
            Running::start_group(role, &mut command, output)
        } else {
            Running::start(role, &mut command, output)
        }
    }

    /// Starts a role with an admin listener of its own, and waits until the process is ready.
    pub async fn start_ready(&self, role: &'static str, output: Output<'_>) -> anyhow::Result<Running> {
        let admin = free_address()?;
        let mut running = self.clone().admin(&admin).start(role, output)?;
        running.ready(&admin).await?;
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in place of the program; it prints what it is told.
    async fn told(program: Program, words: &str) -> String {
        program.run(&["-c", &format!("echo {words}")], None).await.unwrap()
    }

    #[tokio::test]
    async fn settings_are_variables_and_the_last_one_counts() {
        let program = Program::new("/bin/sh").graph("first").with("graph.timeout", "4s").graph("second");
        let words = "$META_DISPATCH__GRAPH__BASE_URL $META_DISPATCH__GRAPH__TIMEOUT";
        assert_eq!(told(program, words).await, "second 4s\n");
    }

    #[tokio::test]
    async fn a_shell_prepares_the_process() {
        let program = Program::new("/bin/sh").after("export PREPARED=yes").in_folder(Path::new("/"));
        assert_eq!(told(program, "$PREPARED $PWD").await, "yes /\n");
    }

    #[tokio::test]
    async fn a_command_reads_its_input() {
        let program = Program::new("/bin/sh");
        assert_eq!(program.run(&["-c", "cat"], Some("a line")).await.unwrap(), "a line");
    }
}
