//! Runs the real program on a temporary SQLite file.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use meta_dispatch::settings::Settings;
use meta_dispatch::store::{self, SharedStore};
use serde_json::Value;

/// A folder with a database, and the settings that name it.
pub struct Program {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// What one run left behind.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new() -> Program {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:{}", folder.path().join("log.db").display());
        Program { folder, environment: Vec::new() }.with("DATABASE__URL", &url)
    }

    /// With a setting more, as `SECTION__KEY`.
    pub fn with(mut self, key: &str, value: &str) -> Program {
        self.environment.push((format!("META_DISPATCH__{key}"), value.to_owned()));
        self
    }

    /// With a variable of the environment that is no setting.
    pub fn with_variable(mut self, name: &str, value: &str) -> Program {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file that its user alone may open: some hold tokens.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the folder can be written");
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, own).expect("modes can be set");
        path
    }

    /// The program with these arguments (separated by blanks), its input and output as pipes.
    pub fn spawn(&self, arguments: &str) -> Child {
        Command::new(env!("CARGO_BIN_EXE_meta-dispatch"))
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path())
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    pub fn run_with_input(&self, arguments: &str, input: &str) -> Ran {
        let mut child = self.spawn(arguments);
        // A program that does not read its input closes it; that is its right.
        let _ = child.stdin.take().expect("it is a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the program ends");
        Ran {
            code: output.status.code().expect("the program ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("errors are UTF-8"),
        }
    }

    pub fn run(&self, arguments: &str) -> Ran {
        self.run_with_input(arguments, "")
    }

    /// Runs with `--json`; the answer is one object, and nothing else.
    pub fn json(&self, arguments: &str) -> Value {
        self.run(&format!("--json {arguments}")).json()
    }

    /// Adds an account, and a line of it with this page token; returns the line's id.
    pub fn add_line(&self, page_token: &str) -> i64 {
        let account = self.json("account add --name Example")["cdcs_id"].as_i64().expect("an id");
        let command =
            format!("--json line add --account {account} --class messenger --page-id 99 --yes --pat-stdin");
        self.run_with_input(&command, page_token).json()["v8l_id"].as_i64().expect("an id")
    }

    /// The store that the program uses.
    pub async fn store(&self) -> SharedStore {
        let url = self.environment[0].1.clone();
        let settings =
            Settings::load_with(None, vec![("database.url".into(), url)]).expect("the settings are right");
        store::open(&settings.database).await.expect("the database opens")
    }
}

impl Ran {
    /// The answer of a run that succeeded: one JSON object.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        let value: Value = serde_json::from_str(&self.stdout).expect("one JSON value");
        assert!(value.is_object(), "{value}");
        value
    }

    /// The error of a run that failed: one line.
    pub fn error(&self) -> &str {
        assert_eq!(self.code, 1, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        self.stderr.strip_prefix("error: ").expect("errors begin so")
    }

    pub fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}
