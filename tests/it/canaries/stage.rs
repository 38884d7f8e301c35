//! The programs that know the canaries, and the ledger of what they were seen in.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output as Ended, Stdio};

use serde_json::{Value, json};
use testkit::process::{Output, Running, free_address};
use testkit::program::Program;

use super::planted::{Canaries, PLAIN_TOKEN, TEXT};
use super::tables::Place;
use crate::support::raw_graph::{GraphRequest, RawGraph, answer, refusal};
use crate::support::secrets::{Secret, leaks};

pub struct Stage {
    pub canaries: Canaries,
    /// The program with every secret that its settings may hold.
    pub program: Program,
    pub http: String,
    pub admin: String,
    pub plain_line: i64,
    pub sealed_line: i64,
    pub client: reqwest::Client,
    secrets: Vec<Secret>,
    found: Vec<String>,
    folder: tempfile::TempDir,
    _graph: RawGraph,
}

/// Answer as Graph would, and worse: a refusal repeats the token, the head, and the token as an id.
fn play(request: &GraphRequest) -> Vec<u8> {
    let GraphRequest { head, token, dest } = request;
    let oauth = |code: i32, message: String| {
        json!({
            "code": code, "type": "OAuthException", "message": message, "fbtrace_id": token,
            "error_user_title": head, "error_user_msg": format!("Authorization: Bearer {token}"),
        })
    };
    match dest.split('-').next() {
        Some("echo") => refusal("400 Bad Request", &oauth(100, format!("Malformed access token {token}"))),
        Some("cut") => Vec::new(),
        _ if token.is_empty() => {
            refusal("400 Bad Request", &oauth(2500, "An active access token must be used".into()))
        }
        _ => answer("200 OK", "", json!({"recipient_id": dest, "message_id": "m_1"}).to_string()),
    }
}

impl Stage {
    pub async fn set(canaries: Canaries) -> Stage {
        crate::support::install_crypto();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let temporary = folder.path().join("tmp");
        std::fs::create_dir(&temporary).expect("the folder can be written");
        let admin_tokens = folder.path().join("admin-tokens");
        let lines = format!("read:{}\noperate:{}\n", canaries.reader, canaries.operator);
        std::fs::write(&admin_tokens, lines).expect("the folder can be written");
        let own = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&admin_tokens, own).expect("modes can be set");
        let graph = RawGraph::start(play).await;
        let (http, admin) = (free_address().expect("a free port"), free_address().expect("a free port"));
        let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
            .in_folder(folder.path())
            .after("ulimit -c 0")
            .variable("TMPDIR", temporary.to_str().expect("UTF-8"))
            .database(&format!("sqlite:{}", folder.path().join("log.db").display()))
            .graph(&graph.base_url())
            .http(&http)
            .admin(&admin)
            .with("admin.token_file", admin_tokens.to_str().expect("UTF-8"))
            .with("graph.app_secret", &canaries.app_secret)
            .with("graph.timeout", "4s")
            .with("security.key", &canaries.key_text())
            .with("security.token_key", &canaries.token_key_text())
            .with("security.app_key", &canaries.app_key_text())
            .with("webhooks.verify_token", &canaries.verify_token)
            .with("shutdown.grace", "5s")
            .with("log.filter", "trace");
        Stage {
            program,
            http,
            admin,
            plain_line: 0,
            sealed_line: 0,
            client: reqwest::Client::new(),
            secrets: canaries.all(),
            canaries,
            found: Vec::new(),
            folder,
            _graph: graph,
        }
    }

    /// Add an account with a token, a line whose page token is in clear, and one whose page token is sealed.
    pub async fn open_account(&mut self) {
        let program = self.program.clone();
        let added = json_of(&ended(&program, &["--json", "account", "add", "--name", "Acme"], None));
        let account = added["cdcs_id"].to_string();
        self.canaries.tsid = added["tsid"].as_str().expect("a token").to_owned();
        self.secrets = self.canaries.all();
        let line =
            ["--json", "line", "add", "--account", &account, "--class", "messenger", "--page-id", "77"];
        let line = [&line[..], &["--yes", "--pat-stdin"]].concat();
        let plain = ended(&program.clone().with("security.key", ""), &line, Some(&self.canaries.plain_token));
        let sealed = ended(&program, &line, Some(&self.canaries.sealed_token));
        for (what, ended) in [("the line in clear", &plain), ("the sealed line", &sealed)] {
            self.saw(what, &ended.stdout);
            self.saw(what, &ended.stderr);
        }
        self.plain_line = json_of(&plain)["v8l_id"].as_i64().expect("an id");
        self.sealed_line = json_of(&sealed)["v8l_id"].as_i64().expect("an id");
    }

    /// Start a role, and wait until it is ready.
    pub async fn start(&self, role: &'static str, program: &Program) -> Running {
        let mut running = program.start(role, Output::AppendTo(&self.log())).expect("the program runs");
        running.ready(&self.admin).await.expect("it is ready");
        running
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("printed.log")
    }

    pub fn database_file(&self) -> PathBuf {
        self.folder.path().join("log.db")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Note bytes that hold no secret and no text.
    pub fn saw(&mut self, what: &str, bytes: &[u8]) {
        self.found.extend(leaks(&self.secrets, bytes).into_iter().map(|leak| format!("{what}: {leak}")));
    }

    /// Note bytes that hold no secret, and may hold texts.
    pub fn may_hold_texts(&mut self, what: &str, bytes: &[u8]) {
        let secrets = &self.secrets[..self.secrets.len() - 1];
        self.found.extend(leaks(secrets, bytes).into_iter().map(|leak| format!("{what}: {leak}")));
    }

    /// Run a command that succeeds; note what it prints. Return its output.
    pub fn run(&mut self, what: &str, program: &Program, arguments: &[&str], input: Option<&str>) -> Vec<u8> {
        let ended = self.attempt(what, program, arguments, input);
        assert!(ended.status.success(), "{what}: {}", String::from_utf8_lossy(&ended.stderr));
        self.saw(what, &ended.stdout);
        ended.stdout
    }

    /// The same for a command that shows texts.
    pub fn run_with_texts(&mut self, what: &str, program: &Program, arguments: &[&str]) -> Vec<u8> {
        let ended = self.attempt(what, program, arguments, None);
        assert!(ended.status.success(), "{what}: {}", String::from_utf8_lossy(&ended.stderr));
        self.may_hold_texts(what, &ended.stdout);
        ended.stdout
    }

    /// Run a command that fails; note what it prints.
    pub fn run_in_vain(&mut self, what: &str, program: &Program, arguments: &[&str]) {
        let ended = self.attempt(what, program, arguments, None);
        assert!(!ended.status.success(), "{what} succeeds");
        self.saw(what, &ended.stdout);
    }

    fn attempt(&mut self, what: &str, program: &Program, arguments: &[&str], input: Option<&str>) -> Ended {
        let ended = ended(program, arguments, input);
        self.saw(&format!("{what}, errors"), &ended.stderr);
        ended
    }

    /// Look at what the processes have left: their log, temporary files, and the database. Fail if a secret is in the
    /// wrong place, or in none of the right ones.
    pub async fn look(&mut self, place: &Place) {
        let printed = std::fs::read(self.log()).expect("the log can be read");
        assert!(String::from_utf8_lossy(&printed).contains("DEBUG"), "the finest filter was in force");
        self.saw("the log", &printed);
        for (path, content) in files_below(&self.path("tmp")) {
            self.saw(&path.display().to_string(), &content);
        }
        let (mut tokens, mut texts) = (0, 0);
        for column in place.columns().await {
            let named = format!("{}.{}", column.table, column.name);
            let is_log = column.table == "cdls" || column.table.starts_with("cdls_");
            for secret in &self.secrets {
                let Some(form) = secret.form_in(column.values.as_bytes()) else { continue };
                match secret.name {
                    PLAIN_TOKEN if named == "cd_v8_line.v8l_wa_api_key" => tokens += 1,
                    TEXT if is_log && column.name == "mdata" => texts += 1,
                    name => self.found.push(format!("{named}: {name} as {form}")),
                }
            }
        }
        assert!(self.found.is_empty(), "{}", self.found.join("\n"));
        assert_eq!(tokens, 1, "the token of the line in clear is not found");
        assert!(texts > 0, "the texts of the log are not found");
    }
}

/// Run a command to its end.
fn ended(program: &Program, arguments: &[&str], input: Option<&str>) -> Ended {
    let mut command = program.command(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    // A program may close its input without reading it.
    let _written = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

fn json_of(ended: &Ended) -> Value {
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}");
    serde_json::from_slice(&ended.stdout).expect("one JSON object")
}

/// Return the files of a folder and of those in it, with their contents.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("its entries are readable").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            let content = std::fs::read(&path).unwrap_or_default();
            found.push((path, content));
        }
    }
    found
}

#[test]
fn files_of_inner_folders_are_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("inner")).expect("the folder can be written");
    let file = folder.path().join("inner").join("spool");
    std::fs::write(&file, "planted").expect("the folder can be written");
    assert_eq!(files_below(folder.path()), [(file, b"planted".to_vec())]);
}
