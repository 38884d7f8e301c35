//! The commands of operators and senders beside these calls.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::later;
use crate::cli::program::Program;
use crate::cli::senders::Sender;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::Producer;

/// The program, on the database of a running one.
fn beside(pipeline: &Pipeline) -> Program {
    Program::new().with("DATABASE__URL", pipeline.database_url())
}

#[tokio::test(flavor = "multi_thread")]
async fn log_cancel_ends_one_message_or_those_of_a_filter() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let scheduled = json!({"send_at": later(), "cp_id": "spring"});
    let first = pipeline.text("ann", scheduled.clone()).await;
    pipeline.text("bob", scheduled.clone()).await;
    pipeline.text("cleo", json!({"send_at": later()})).await;
    let program = beside(&pipeline);
    let run = |command: &str| tokio::task::block_in_place(|| program.run(command));
    let json = |command: &str| tokio::task::block_in_place(|| program.json(command));
    let answer = json(&format!("log cancel {first}"));
    assert_eq!(answer, json!({"cdls_id": first, "matching": 1, "cancelled": 1, "dry_run": false}));
    assert!(run(&format!("log cancel {first}")).error().contains("CANCELLED"));
    let dry = json("log cancel --cp-id spring --dry-run");
    assert_eq!(dry, json!({"matching": 1, "cancelled": 0, "dry_run": true}));
    let text = run("log cancel --cp-id spring --dest bob --yes").stdout;
    assert!(text.contains("1 message cancelled."), "{text}");
    assert!(run("log cancel --yes").error().contains("--batch-id"));
    assert!(run("log cancel --status OK").error().contains("do not wait"));
    assert_eq!(json("log cancel --since 1h")["cancelled"], 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_tail_filters_by_recipient_reference_error_and_time() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    for dest in ["ann", "bob", "code551-cleo"] {
        let id = pipeline.text(dest, json!({"msg_id": format!("of-{dest}")})).await;
        pipeline.outcome(id).await;
    }
    pipeline.execute("update cdls set created_at = '2020-01-01T00:00:00.000Z' where dest = 'ann'").await;
    let program = beside(&pipeline);
    let dests = |filter: &str| {
        let listed = tokio::task::block_in_place(|| program.json(&format!("log tail {filter}")));
        let messages = listed["messages"].as_array().expect("a list").clone();
        messages.iter().map(|row| row["dest"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(dests("--dest bob"), ["bob"]);
    assert_eq!(dests("--msg-id of-ann"), ["ann"]);
    assert_eq!(dests("--error-code 551"), ["code551-cleo"]);
    assert_eq!(dests("--since 1h"), ["bob", "code551-cleo"]);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_export_writes_a_file_or_standard_output() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    for dest in ["ann", "bob"] {
        let id = pipeline.text(dest, json!({"cp_id": "spring", "msg_id": "m"})).await;
        pipeline.expect_ok(id).await;
    }
    let program = beside(&pipeline);
    let run = |command: &str| tokio::task::block_in_place(|| program.run(command));
    let csv = run("log export --cp-id spring --msg-id m").stdout;
    assert!(csv.starts_with("cdls_id,") && csv.matches("\r\n").count() == 3, "{csv}");
    let file = program.file("rows.ndjson", "old");
    let answer: Value = tokio::task::block_in_place(|| {
        program.json(&format!("log export --dest bob --format ndjson --output {}", file.display()))
    });
    assert_eq!(answer["rows"], 1);
    let row: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("it is there")).expect("JSON");
    assert_eq!((&row["dest"], &row["status"]), (&json!("bob"), &json!("OK")));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_without_a_label_gets_one_of_its_name_and_the_date() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let file = sender.program.file("offers.csv", "dest,mdata\nann,hello\n");
    let command = format!("campaign send {} --app-id {}", file.display(), pipeline.messenger);
    let sent = sender.run(&command).await.json();
    let label = sent["cp_id"].as_str().expect("a label").to_owned();
    assert!(label.starts_with("offers-20") && label.len() == "offers-2026-11-28".len(), "{label}");
    let listed = sender.run("campaign list").await.json();
    assert_eq!(listed["campaigns"][0]["cp_id"], label.as_str());
    let without = sender.program.file("more.csv", "dest,mdata\nbob,hello\n");
    let command = format!("campaign send {} --no-cp-id --app-id {}", without.display(), pipeline.messenger);
    let sent = sender.run(&command).await.json();
    assert_eq!((sent.get("cp_id"), &sent["logged"]), (None, &json!(1)));
    assert_eq!(sender.run(&format!("campaign cancel {label}")).await.code, 0);
    let resumed = sender.run(&format!("campaign resume {label}")).await;
    assert!(resumed.code == 1 && resumed.stderr.contains("247"), "{}", resumed.stderr);
    pipeline.stop().await;
}

#[test]
fn line_is_changed_and_removed() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let set = program.json(&format!("line set {line} --name Shop --rate-text 20 --active false"));
    assert_eq!(
        (&set["v8l_name"], &set["v8l_rate_text"], &set["state"]),
        (&json!("Shop"), &json!(20), &json!("inactive"))
    );
    let set = program.json(&format!("line set {line} --rate-text default --active true"));
    assert_eq!(
        (&set["v8l_name"], &set["v8l_rate_text"], &set["state"]),
        (&json!("Shop"), &json!(null), &json!("sending"))
    );
    assert!(program.run(&format!("line set {line}")).error().contains("--rate-text"));
    assert!(program.run("line set 77 --name x").error().contains("no line 77"));
    let add = "line add --account 1 --class messenger --page-id 99 --pat-stdin";
    let refused = program.run_with_input(add, "EAAtoken");
    assert!(refused.error().contains("--yes"), "{}", refused.stderr);
    let removed = program.json(&format!("line remove {line}"));
    assert_eq!(removed, json!({"removed": line, "cancelled": 0}));
    assert!(program.run(&format!("line remove {line}")).error().contains("no line"));
}

#[test]
fn account_is_disabled_and_enabled() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    assert_eq!(program.json("account disable 1"), json!({"cdcs_id": 1, "cdcs_active": false}));
    assert_eq!(program.json("line list")["lines"][0]["state"], "account disabled");
    assert_eq!(program.json("account enable 1")["cdcs_active"], true);
    assert_eq!(program.json("line list")["lines"][0]["v8l_id"], line);
    assert!(program.run("account disable 77").error().contains("no account 77"));
}

#[test]
fn rejected_list_needs_a_broker() {
    assert!(Program::new().run("rejected list").error().contains("broker.url"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn rejected_list_shows_submissions_and_takes_none_away() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(pipeline.messenger, "2.53E+16", "hi", properties).await;
    inbox.next_json().await;
    let program = beside(&pipeline).with("BROKER__URL", pipeline.vhost().url().expose_secret());
    for _ in 0..2 {
        let listed = eventually("the refused submission", || async {
            let listed = tokio::task::block_in_place(|| program.json("rejected list"));
            if listed["queued"] == 1 { Ok(listed) } else { Err(listed.to_string()) }
        })
        .await;
        let row = &listed["rejected"][0];
        assert_eq!((&row["status_code"], &row["dest"]), (&json!(229), &json!("2.53E+16")), "{listed}");
        assert!(row["detail"].as_str().is_some_and(|detail| detail.contains("spreadsheets")), "{listed}");
        assert!(row["at"].is_string(), "{listed}");
    }
    pipeline.stop().await;
}
