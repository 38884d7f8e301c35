//! The commands of the pages, run as a reader types them: one shell a page, with `serve` on SQLite and the simulator.
//!
//! A page other than the README continues the quickstart, as the quickstart says. Only addresses differ from the page:
//! each shell has free ports of its own.

mod classification;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use regex::{Captures, Regex};
use serde_json::{Deserializer, Value};

use crate::support::pipeline::eventually;
use crate::support::serve::free_port;

/// Makes a test of each page, and the list of these pages.
macro_rules! run_on_sqlite {
    ($($name:ident: $page:literal,)*) => {
        const RUN: &[&str] = &[$($page),*];
        $(
            #[tokio::test]
            async fn $name() {
                run($page).await;
            }
        )*
    };
}

run_on_sqlite! {
    readme_runs: "README.md",
    quickstart_runs: "docs/quickstart.md",
    http_api_runs: "docs/http-api.md",
    batch_runs: "docs/batch.md",
    campaigns_runs: "docs/campaigns.md",
    scheduling_runs: "docs/scheduling.md",
    classification_runs: "docs/classification.md",
    operations_runs: "docs/operations.md",
    deployment_runs: "docs/deployment.md",
    security_runs: "docs/security.md",
    amqp_runs: "docs/amqp.md",
}

/// Blocks that are not run: the page, how the block begins, and the reason.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "cargo run --release -- demo", "builds the program"),
    ("README.md", "export META_DISPATCH__DATABASE__URL=postgres://", "needs PostgreSQL and RabbitMQ"),
    ("README.md", "tests/run", "runs these tests"),
    (
        "docs/attachments.md",
        "meta-dispatch attachment list",
        "tests/it/attachments.rs tries what they change",
    ),
    (
        "docs/webhooks.md",
        "meta-dispatch app add",
        "needs files of secrets; tests/it/cli/apps.rs runs the commands",
    ),
    ("CONTRIBUTING.md", "cargo build", "builds the program"),
    ("CONTRIBUTING.md", "cargo test --lib", "runs tests"),
    ("CONTRIBUTING.md", "cargo test --test it", "runs these tests"),
    ("CONTRIBUTING.md", "tests/run", "runs these tests"),
    ("CONTRIBUTING.md", "fuzz/run", "builds and runs the fuzz targets"),
    ("docs/quickstart.md", "cargo build --release", "builds the program"),
    ("docs/deployment.md", "META_DISPATCH__ADMIN__LISTEN=127.0.0.1:9092", "needs PostgreSQL and RabbitMQ"),
    ("docs/deployment.md", "docker build", "needs Docker"),
    (
        "docs/lines.md",
        "meta-dispatch line add",
        "needs tokens of Meta; tests/it/line_check.rs runs these commands",
    ),
    (
        "docs/lines.md",
        "meta-dispatch line check",
        "needs tokens of Meta; tests/it/line_check.rs runs these commands",
    ),
    (
        "docs/lines.md",
        "meta-dispatch line subscribe",
        "needs tokens of Meta; tests/it/line_check.rs runs these commands",
    ),
    ("docs/amqp.md", "rabbitmqctl", "needs RabbitMQ; tests/it/permissions.rs runs with these permissions"),
    ("docs/amqp.md", "cargo run --example producer", "needs RabbitMQ; tests/it/examples.rs runs the program"),
    ("examples/README.md", "sh \"$REPOSITORY/examples/send.sh\"", "tests/it/examples.rs runs the program"),
];

/// Programs that a page may use and a machine may lack: their blocks are left out there.
const OPTIONAL: &[&str] = &["jq", "node", "php", "psql", "python3", "sqlite3"];

/// A block of commands on a page.
struct Block {
    page: String,
    /// Line of its first command.
    line: usize,
    commands: String,
    /// The lines of the output that the page prints directly below.
    output: Vec<String>,
}

/// The blocks of commands on a page.
fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(page).expect("the page is part of the repository");
    let mut blocks: Vec<Block> = Vec::new();
    let mut follows_commands = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            follows_commands &= line.trim().is_empty();
            continue;
        };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        let language = language.trim();
        let are_commands = matches!(language, "sh" | "bash" | "console");
        if are_commands {
            let (page, commands) = (page.to_owned(), body.join("\n"));
            blocks.push(Block { page, line: number + 2, commands, output: Vec::new() });
        } else if follows_commands
            && matches!(language, "" | "json" | "text")
            && let Some(block) = blocks.last_mut()
        {
            block.output = body.into_iter().map(str::to_owned).collect();
        }
        follows_commands = are_commands;
    }
    blocks
}

impl Block {
    fn is_run(&self) -> bool {
        !NOT_RUN.iter().any(|(page, start, _)| self.page == *page && self.commands.starts_with(*start))
    }

    /// Whether the machine lacks a program that the block uses.
    fn lacks_a_program(&self) -> bool {
        let used = |program: &&&str| self.commands.split_whitespace().any(|word| word == **program);
        let missing = |program: &&&str| Command::new(program).arg("--version").output().is_err();
        let lacking = OPTIONAL.iter().filter(used).find(missing);
        if let Some(program) = lacking {
            // Past the captured output of the test.
            let place = format!("{}, line {}", self.page, self.line);
            let _ = writeln!(std::io::stderr(), "left out: {place} ({program} is not installed)");
        }
        lacking.is_some()
    }

    /// A process in the foreground has a terminal of its own; the reader copies the token from there.
    fn in_its_terminal(mut self) -> Block {
        if self.commands.lines().last() == Some("meta-dispatch serve") {
            self.commands = format!(
                "{{ {}\n}} > terminal.txt &\nuntil meta-dispatch health; do sleep 1; done\n\
                 TSID=$(sed -n '/^token of/{{n;p;}}' terminal.txt)",
                self.commands
            );
        }
        self
    }

    /// The commands, with the ports of this shell for those that the page and the defaults name.
    fn on(&self, [http, admin, graph]: [u16; 3]) -> String {
        let address = Regex::new(r"(127\.0\.0\.1|localhost):([0-9]+)").expect("a pattern");
        let text = address.replace_all(&self.commands, |found: &Captures<'_>| {
            let port = match &found[2] {
                "8080" => http,
                "9090" => admin,
                "8090" => graph,
                other => panic!("{}, line {}: no free port stands for {other}", self.page, self.line),
            };
            format!("127.0.0.1:{port}")
        });
        let sender = Regex::new("(meta-dispatch (--json )?(send|campaign [a-z]+)) ").expect("a pattern");
        let text = sender.replace_all(&text, format!("$1 --url http://127.0.0.1:{http} "));
        text.replace("meta-dispatch simulate", &format!("meta-dispatch simulate --listen 127.0.0.1:{graph}"))
    }

    /// The difference between this output and the one on the page, if there is any.
    fn differs(&self, stdout: &str) -> Option<String> {
        let json = |line| Deserializer::from_str(line).into_iter::<Value>().map_while(Result::ok);
        let values: Vec<Value> = stdout.lines().flat_map(json).collect();
        if self.output.is_empty() {
            let refused =
                |value: &&Value| value["return"]["status"].as_str().is_some_and(|status| status != "OK");
            return values.iter().find(refused).map(|value| format!("unexpected answer {value}"));
        }
        let (mut values, mut lines) = (values.iter(), stdout.lines());
        let is_missing = |printed: &&String| match serde_json::from_str(printed) {
            Ok(printed @ Value::Object(_)) => !values.any(|value| is_like(&printed, value)),
            _ => !lines.any(|line| line.trim() == printed.trim()),
        };
        self.output.iter().find(is_missing).map(|printed| format!("no line like {printed}"))
    }
}

/// Whether an answer is like the printed one: `…` stands for any text, and ids may differ.
fn is_like(printed: &Value, answer: &Value) -> bool {
    match (printed, answer) {
        (Value::Object(printed), Value::Object(answer)) => {
            let fits = |(name, value): (&String, &Value)| {
                answer.get(name).is_some_and(|found| name == "cdls_id" || is_like(value, found))
            };
            printed.len() == answer.len() && printed.iter().all(fits)
        }
        (Value::String(printed), Value::String(answer)) => match printed.split_once('…') {
            Some((start, end)) => answer.starts_with(start) && answer.ends_with(end),
            None => printed == answer,
        },
        _ => printed == answer,
    }
}

/// The blocks that a reader of this page types, from the first shell prompt on.
fn session(page: &str) -> Vec<Block> {
    let typed = |page: &str| blocks(page).into_iter().filter(Block::is_run);
    let before: Vec<Block> = match page {
        "docs/quickstart.md" => Vec::new(),
        // A token from a file, as the page demands, and an address where no Graph answers.
        "README.md" => vec![Block {
            page: page.to_owned(),
            line: 1,
            commands: "printf %s PAT-1 > page-token.txt\n\
                       export META_DISPATCH__GRAPH__BASE_URL=http://127.0.0.1:8090/v25.0"
                .to_owned(),
            output: Vec::new(),
        }],
        _ => typed("docs/quickstart.md").filter(|block| !block.commands.starts_with("kill ")).collect(),
    };
    let own: Vec<Block> = typed(page).map(Block::in_its_terminal).collect();
    assert!(!own.is_empty(), "{page} has no block that is run");
    before.into_iter().chain(own).filter(|block| !block.lacks_a_program()).collect()
}

/// A shell that runs blocks, and all processes that it starts.
struct Shell {
    folder: tempfile::TempDir,
    blocks: Vec<Block>,
    bash: Child,
}

impl Shell {
    fn start(blocks: Vec<Block>) -> Shell {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["bin", "logs", "work"] {
            fs::create_dir(folder.path().join(name)).expect("the folder can be written");
        }
        let program = folder.path().join("bin/meta-dispatch");
        symlink(env!("CARGO_BIN_EXE_meta-dispatch"), program).expect("the folder can be written");
        let script = script(folder.path(), &blocks);
        let bash = Command::new("bash")
            .args(["-eu", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("bash starts");
        Shell { folder, blocks, bash }
    }

    /// Waits for the end of a block, and returns its exit code.
    async fn ended(&self, number: usize) -> i32 {
        let Block { page, line, .. } = &self.blocks[number];
        eventually(&format!("{page}, line {line}"), || async {
            let code = self.log(number, "code");
            code.strip_suffix('\n').and_then(|code| code.parse().ok()).ok_or_else(|| self.report(number))
        })
        .await
    }

    fn log(&self, number: usize, kind: &str) -> String {
        let bytes = fs::read(self.folder.path().join(format!("logs/{number}.{kind}")));
        // Not every block leaves every file.
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    fn report(&self, number: usize) -> String {
        let Block { page, line, commands, .. } = &self.blocks[number];
        let [failed, code, out, err] = ["failed", "code", "out", "err"].map(|kind| self.log(number, kind));
        let served = fs::read_to_string(self.folder.path().join("work/serve.log")).unwrap_or_default();
        let served: Vec<&str> = served.lines().rev().take(10).collect();
        format!(
            "{page}, line {line}, exit code {}: {failed}\n{commands}\n--- stdout\n{out}\n--- stderr\n{err}\n\
             --- serve.log, newest first\n{}",
            code.trim(),
            served.join("\n")
        )
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The group may have ended already.
        let group = format!("-{}", self.bash.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.bash.wait();
    }
}

/// The blocks as one script. Each is a file whose lines have the page's numbers, and leaves its output, its exit code and
/// the command that failed. The script ends with its group when the test does, also where that is killed.
fn script(folder: &Path, blocks: &[Block]) -> String {
    let ports @ [http, admin, _] = [free_port(), free_port(), free_port()];
    let folder = folder.display();
    let mut script = format!(
        "exec 3<&0 0</dev/null\n\
         unset \"${{!META_DISPATCH@}}\"\n\
         export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PATH='{folder}/bin':\"$PATH\"\n\
         export META_DISPATCH__HTTP__LISTEN=127.0.0.1:{http} META_DISPATCH__ADMIN__LISTEN=127.0.0.1:{admin}\n\
         cd '{folder}/work'\n"
    );
    for (number, block) in blocks.iter().enumerate() {
        let log = format!("{folder}/logs/{number}");
        let text = format!("{}{}\n", "\n".repeat(block.line - 1), block.on(ports));
        fs::write(format!("{log}.sh"), text).expect("the folder can be written");
        script.push_str(&format!(
            "exec >'{log}.out' 2>'{log}.err'\n\
             trap 'echo \"$?\" >\"{log}.code\"' EXIT\n\
             trap 'echo \"line $LINENO: $BASH_COMMAND\" >\"{log}.failed\"' ERR\n\
             . '{log}.sh'\n\
             echo 0 >'{log}.code'\n"
        ));
    }
    script.push_str("trap - EXIT\nread -r <&3 || kill -s KILL 0\n");
    script
}

async fn run(page: &str) {
    let shell = Shell::start(session(page));
    for (number, block) in shell.blocks.iter().enumerate() {
        let code = shell.ended(number).await;
        assert_eq!(code, 0, "{}", shell.report(number));
        let difference = block.differs(&shell.log(number, "out"));
        assert!(difference.is_none(), "{}: {}", difference.unwrap_or_default(), shell.report(number));
    }
}

#[test]
fn each_block_runs_or_is_left_out_for_a_reason() {
    for folder in [".", "docs", "docs/decisions", "examples"] {
        for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
            let path = entry.expect("its entries are readable").path();
            let page = path.to_str().expect("names are UTF-8").trim_start_matches("./");
            if !page.ends_with(".md") || RUN.contains(&page) {
                continue;
            }
            if let Some(Block { line, commands, .. }) = blocks(page).into_iter().find(Block::is_run) {
                panic!("{page}, line {line}: neither run nor named in tests/it/pages.rs:\n{commands}");
            }
        }
    }
    for (page, start, reason) in NOT_RUN {
        let found = blocks(page).iter().filter(|block| block.commands.starts_with(*start)).count();
        assert_eq!(found, 1, "{page}: {found} blocks begin with `{start}` ({reason})");
    }
}
