//! The commands of senders against a running process: send, campaign, completions, man.

use meta_dispatch::domain::Status;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::program::{Program, Ran};
use crate::support::pipeline::{Backend, Pipeline};
use crate::support::without_detail;

pub(crate) struct Sender {
    pub(crate) program: Program,
    url: String,
    tsid_file: String,
}

impl Sender {
    pub(crate) fn of(pipeline: &Pipeline) -> Sender {
        let program = Program::new();
        let tsid_file = program.file("tsid", &format!("{}\n", pipeline.tsid.expose_secret()));
        Sender {
            url: format!("http://{}", pipeline.http),
            tsid_file: tsid_file.display().to_string(),
            program,
        }
    }

    pub(crate) async fn run(&self, arguments: &str) -> Ran {
        self.run_as_text(&format!("--json {arguments}")).await
    }

    pub(crate) async fn run_as_text(&self, arguments: &str) -> Ran {
        let arguments = format!("{arguments} --url {} --tsid-file {}", self.url, self.tsid_file);
        tokio::task::block_in_place(|| self.program.run(&arguments))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_a_message_and_explains_a_refusal() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let line = pipeline.messenger;
    let sent = sender.run(&format!("send --app-id {line} --dest ann --mdata hello --wait 20")).await.json();
    assert_eq!((&sent["status"], &sent["status_code"]), (&json!("OK"), &json!(200)));
    let refused = sender.run(&format!("send --app-id {line} --dest ann --mdata nourl --mtype image")).await;
    assert!(refused.stderr.contains("refused: Invalid mdata (status_code 227)"), "{}", refused.stderr);
    let told: Value = serde_json::from_str(&refused.stdout).expect("one JSON object");
    assert_eq!(
        without_detail(told),
        json!({"status": "Invalid mdata", "status_code": 227, "messageId": "", "cdls_id": 0})
    );
    let ended = sender.run(&format!("send --app-id {line} --dest code551-bob --mdata hello --wait 20")).await;
    assert_eq!(ended.code, 1);
    let told: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    assert_eq!((&told["status"], &told["status_code"]), (&json!("ERROR"), &json!(400)));
    assert!(ended.stderr.contains(&format!("it is message {}", told["cdls_id"])), "{}", ended.stderr);
    let without = tokio::task::block_in_place(|| {
        sender.program.run(&format!("send --app-id 1 --dest a --mdata b --url {}", sender.url))
    });
    assert!(without.error().contains("META_DISPATCH_TSID"), "{}", without.stderr);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_form_tells_the_reason() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let line = pipeline.messenger;
    let send = |dest: &str| format!("send --app-id {line} --dest {dest} --mdata hello --wait 20");
    let ended = sender.run_as_text(&send("code551-bob")).await;
    let said = ended.error();
    assert!(said.contains(": Graph refused the message"), "{said}");
    assert!(said.contains("error_kind refused, error_code 551, error_subcode 1545041: (#551)"), "{said}");

    let odd = json!({"app_id": line.0, "dest": "ann", "mdata": "hello", "prioriy": "high"});
    let good = json!({"app_id": line.0, "dest": "ben", "mdata": "hello"});
    let file = sender.program.file("odd.ndjson", &format!("{good}\n{odd}\n"));
    let sent = sender.run_as_text(&format!("campaign send {} --cp-id c", file.display())).await;
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    assert!(sent.stderr.contains("line 2: `prioriy` is not a parameter"), "{}", sent.stderr);
    assert!(!sent.stderr.contains("line 1:"), "{}", sent.stderr);

    let held = sender.run_as_text(&send("code190-cid")).await;
    assert_eq!(held.code, 0, "{}", held.stderr);
    assert!(held.stdout.starts_with("accepted: message "), "{}", held.stdout);
    assert!(held.stderr.contains("error_code 190"), "{}", held.stderr);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_file_is_sent_once() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let mut csv = String::from("dest,mdata\n");
    for n in 0..4_500 {
        csv.push_str(&format!("d{n},\"hello, {n}\"\n"));
    }
    let file = sender.program.file("spring.csv", &csv);
    let command = format!("campaign send {} --cp-id spring --app-id {}", file.display(), pipeline.messenger);
    for before in [0, 4_500] {
        let sent: Value = sender.run(&command).await.json();
        assert_eq!(
            sent,
            json!({"lines": 4_500, "logged": 4_500, "logged_before": before, "refused": 0, "duplicates": 0, "not_utf8": 0})
        );
        let status = sender.run("campaign status spring").await.json();
        assert_eq!(status["total"], 4_500);
    }
    let cancelled = sender.run("campaign cancel spring").await.json();
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["touched"].as_i64() > Some(1_000), "{cancelled}");
    assert_eq!(cancelled["counts"].as_object().map(serde_json::Map::len), Some(Status::ALL.len()));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_names_refused_lines_and_logs_the_others() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let line = pipeline.messenger.0;
    let good = json!({"app_id": line, "dest": "ann", "mdata": "hello"});
    let bad = json!({"app_id": line, "mdata": "hello"});
    let file = sender.program.file("some.ndjson", &format!("{good}\n{bad}\n{good}\n"));
    let ran = sender.run(&format!("campaign send {} --cp-id c", file.display())).await;
    assert_eq!(ran.code, 1);
    let sent: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(
        sent,
        json!({"lines": 3, "logged": 2, "logged_before": 0, "refused": 1, "duplicates": 1, "not_utf8": 0})
    );
    assert!(ran.stderr.contains("line 2: No dest (status_code 220)"), "{}", ran.stderr);
    let unknown = sender.run("campaign status nothing").await;
    assert!(unknown.stderr.contains("Not found (status_code 404)"), "{}", unknown.stderr);
    let told: Value = serde_json::from_str(&unknown.stdout).expect("one JSON object");
    assert_eq!(told["status_code"], 404);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repaired_file_sends_only_refused_lines() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let named = format!("--cp-id c --app-id {} --batch-id 2026/spring&x", pipeline.messenger);
    let broken = sender.program.file("a.csv", "dest,mdata\nann,hello\n,hello\ncid,hello\n");
    assert_eq!(sender.run(&format!("campaign send {} {named}", broken.display())).await.code, 1);
    let repaired = sender.program.file("b.csv", "dest,mdata\nann,hello\nbob,hello\ncid,hello\n");
    let sent = sender.run(&format!("campaign send {} {named}", repaired.display())).await.json();
    assert_eq!(
        sent,
        json!({"lines": 3, "logged": 3, "logged_before": 2, "refused": 0, "duplicates": 0, "not_utf8": 0})
    );
    let mut dests: Vec<String> = pipeline.rows().await.into_iter().map(|row| row.dest).collect();
    dests.sort();
    assert_eq!(dests, ["ann", "bob", "cid"]);
    pipeline.stop().await;
}

#[test]
fn makes_completions_and_man_pages() {
    let program = Program::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = program.run(&format!("completions {shell}"));
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout.contains("meta-dispatch") && ran.stdout.contains("campaign"), "{shell}");
    }
    let folder = program.file("marker", "").with_file_name("man");
    assert_eq!(program.run(&format!("man {}", folder.display())).code, 0);
    let page = std::fs::read_to_string(folder.join("meta-dispatch-campaign-send.1")).expect("it is written");
    assert!(page.contains("cp\\-id") || page.contains("cp-id"), "{page}");
}
