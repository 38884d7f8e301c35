//! The programs in `examples`, run as their page says: over HTTP against `serve` and the simulator, and over RabbitMQ.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use meta_dispatch::domain::{RowId, Status};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;
use crate::support::serve::{Serve, free_port};

/// Every sign that a form, a query or a shell treats in its own way.
const TEXT: &str = "Olá, 'Ann' & \"Bob\": 1 + 1 = 2, 50 % $HOME #7 😀";

/// A command that runs an example: an interpreter with the file, or the program that Cargo made of it.
fn command(file: &str, interpreter: &str) -> Command {
    let path = Path::new("examples").join(file);
    let mut command = match interpreter {
        "rust" => Command::new(built(&path)),
        interpreter => {
            let mut command = Command::new(interpreter);
            command.arg(path);
            command
        }
    };
    // A proxy of the environment is not for this machine's own addresses.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}

/// `cargo test --test it` makes no examples, and leaves older ones where they are.
fn built(source: &Path) -> PathBuf {
    let name = source.file_stem().expect("examples have names");
    let program = Path::new(env!("CARGO_BIN_EXE_meta-dispatch")).with_file_name("examples").join(name);
    let changed = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    assert!(
        changed(&program) >= changed(source),
        "{} is not built: run `cargo build --workspace --examples`, or `cargo test` without --test",
        source.display()
    );
    program
}

/// Whether an example can run on this machine: an interpreter that is missing is named.
fn can_run(file: &str, interpreter: &str) -> bool {
    let program = match interpreter {
        "rust" => return true,
        "sh" => "curl",
        interpreter => interpreter,
    };
    match Command::new(program).arg("--version").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Past the captured output of the test.
            let _ = writeln!(std::io::stderr(), "left out: examples/{file} ({program} is not installed)");
            false
        }
        Err(error) => panic!("examples/{file} needs {program}: {error}"),
        Ok(_) => true,
    }
}

/// The answer that an example printed.
fn answer(output: &Output) -> Value {
    let printed = str::from_utf8(&output.stdout).expect("answers are UTF-8");
    let answer: Value = serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    answer["return"].clone()
}

fn id(answer: &Value) -> RowId {
    RowId(answer["cdls_id"].as_i64().expect("an id"))
}

#[rstest]
#[case::curl("send.sh", "sh")]
#[case::php("send.php", "php")]
#[case::python("send.py", "python3")]
#[case::node("send.mjs", "node")]
#[case::rust("send.rs", "rust")]
#[tokio::test(flavor = "multi_thread")]
async fn over_http_print_and_exit_by_the_answer(#[case] file: &str, #[case] interpreter: &str) {
    if !can_run(file, interpreter) {
        return;
    }
    let serve = Serve::start(Duration::ZERO).await;
    let run = |port: u16, tsid: &str, arguments: &[&str]| {
        let mut command = command(file, interpreter);
        command.env("META_DISPATCH_URL", format!("http://127.0.0.1:{port}")).env("META_DISPATCH_TSID", tsid);
        command.args(arguments).output().expect("examples run")
    };

    let sent = run(serve.http, &serve.tsid, &["1", "ann", TEXT]);
    assert!(sent.status.success(), "{sent:?}");
    let sent = answer(&sent);
    let row = serve.row(id(&sent)).await;
    assert_eq!((row.status, row.dest.as_str(), row.mdata.as_str()), (Status::Ok, "ann", TEXT));
    assert_eq!(sent["messageId"].as_str(), row.message_id.as_deref());

    let first = run(serve.http, &serve.tsid, &["1", "bob", TEXT, "order-7"]);
    let again = run(serve.http, &serve.tsid, &["1", "bob", TEXT, "order-7"]);
    assert!(first.status.success() && again.status.success(), "{first:?}, {again:?}");
    assert_eq!(answer(&first), answer(&again), "the key is the same");

    let refused = run(serve.http, &serve.tsid, &["1", "code10-ann", TEXT]);
    assert!(!refused.status.success(), "{refused:?}");
    let refused = answer(&refused);
    assert_eq!(refused["status"], "ERROR");
    assert_eq!(serve.row(id(&refused)).await.error_code, Some(10));

    let unknown = run(serve.http, "nobodys-token", &["1", "ann", TEXT]);
    assert!(!unknown.status.success(), "{unknown:?}");
    assert_eq!(answer(&unknown)["status"], "SID not found");

    for (port, arguments) in [(free_port(), &["1", "ann", TEXT][..]), (serve.http, &["1", "ann"][..])] {
        let failed = run(port, &serve.tsid, arguments);
        assert!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
        assert!(!failed.stderr.is_empty(), "a failure says why");
    }
    assert_eq!(serve.simulator.counts().calls, 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn over_rabbitmq_print_and_exit_by_the_answer() {
    let vhost = Vhost::lease().await;
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_on(&vhost).await;
    Producer::connect_to(&vhost, &serve.tsid).await.intake_is_up().await;
    let run = |arguments: &[&str]| {
        let mut command = command("producer.rs", "rust");
        command.env("META_DISPATCH_TSID", &serve.tsid).arg(vhost.url().expose_secret());
        command.args(arguments).output().expect("examples run")
    };

    let sent = run(&["1", "ann", TEXT]);
    assert!(sent.status.success(), "{sent:?}");
    let row = serve.row(id(&answer(&sent))).await;
    assert_eq!((row.status, row.mdata.as_str()), (Status::Ok, TEXT));

    let first = run(&["1", "bob", TEXT, "order-7"]);
    let again = run(&["1", "bob", TEXT, "order-7"]);
    assert!(first.status.success() && again.status.success(), "{first:?}, {again:?}");
    assert_eq!(answer(&first), answer(&again), "the key is the same");

    for (dest, status) in [("code10-ann", "ERROR"), ("", "No dest")] {
        let refused = run(&["1", dest, TEXT]);
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(answer(&refused)["status"], status);
    }
    assert_eq!(serve.simulator.counts().calls, 3);
}

#[test]
fn are_all_on_their_page() {
    let page = std::fs::read_to_string("examples/README.md").expect("it is part of the repository");
    for entry in std::fs::read_dir("examples").expect("it is part of the repository") {
        let name = entry.expect("its entries are readable").file_name();
        let name = name.to_str().expect("names are UTF-8");
        assert!(name == "README.md" || page.contains(&format!("[{name}]({name})")), "{name}");
    }
}
