//! `campaign send` with files as spreadsheets leave them, and labels with what nobody sees around them.

use serde_json::{Value, json};

use super::program::Program;
use super::senders::Sender;
use crate::support::pipeline::{Backend, Pipeline};

/// A file of bytes; returns its path.
fn file(program: &Program, name: &str, bytes: &[u8]) -> String {
    let path = program.file(name, "");
    std::fs::write(&path, bytes).expect("the folder can be written");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn file_without_a_message_is_an_error() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let utf16: Vec<u8> = "\u{feff}dest\tmdata".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, bytes) in [
        ("empty.csv", &b""[..]),
        ("header.csv", b"dest,mdata\n"),
        ("open.csv", b"dest;mdata"),
        ("rows.csv", b"dest,mdata\n,\n\n , \n"),
        ("utf16.csv", &utf16[..]),
        ("empty.ndjson", b""),
        ("blank.ndjson", b"\n \n"),
    ] {
        let path = file(&sender.program, name, bytes);
        let ran = sender.run(&format!("campaign send {path} --app-id {}", pipeline.messenger)).await;
        assert!(ran.error().contains("no message in it"), "{name}: {}", ran.stderr);
    }
    assert!(pipeline.rows().await.is_empty());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spreadsheets_are_sent_as_they_are() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let line = pipeline.messenger;
    let mut csv = b"sep=;\r\nDest;Nome;mdata;\r\n".to_vec();
    for n in 0..2_500 {
        csv.extend(format!("{n};Ana;\"a; {n}\";\r\n").bytes());
    }
    csv.extend(b"x1;Jos\xe9;\x93Oferta\x94;\r\n;;;\r\n");
    let path = file(&sender.program, "excel.csv", &csv);
    let refused = sender.run(&format!("campaign send {path} --cp-id a --app-id {line}")).await;
    assert!(refused.stderr.contains("Invalid parameter: Nome"), "{}", refused.stderr);
    let sent =
        sender.run(&format!("campaign send {path} --cp-id a --app-id {line} --ignore-columns=nome")).await;
    let expected = json!({"lines": 2_501, "logged": 2_501, "logged_before": 0, "refused": 0, "duplicates": 0, "not_utf8": 1});
    assert_eq!(sent.json(), expected);
    let row = pipeline.rows().await.pop().expect("rows");
    assert_eq!((row.dest.as_str(), row.mdata.as_str()), ("x1", "“Oferta”"));
    let utf16: Vec<u8> =
        "\u{feff}dest\tmdata\r\ny1\tOlá\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let path = file(&sender.program, "utf16.csv", &utf16);
    assert_eq!(sender.run(&format!("campaign send {path} --app-id {line}")).await.json()["logged"], 1);
    assert_eq!(pipeline.rows().await.pop().expect("rows").mdata, "Olá");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_recipient_is_found_in_another_part() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sender = Sender::of(&pipeline);
    let mut csv = String::from("dest,mdata\n");
    for n in 0..2_100 {
        csv.push_str(&format!("d{n},hello\n"));
    }
    csv.push_str("d7,again\nlast,hello\n");
    let path = file(&sender.program, "list.csv", csv.as_bytes());
    let command = format!("campaign send {path} --app-id {} --cp-id c --once-per-dest", pipeline.messenger);
    let ran = sender.run(&command).await;
    assert_eq!(ran.code, 1);
    let sent: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(
        (&sent["logged"], &sent["refused"], &sent["duplicates"]),
        (&json!(2_101), &json!(1), &json!(1))
    );
    assert!(ran.stderr.contains("line 2102: Invalid parameter: dest (status_code 229)"), "{}", ran.stderr);
    assert_eq!(pipeline.rows().await.len(), 2_101);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn label_means_the_same_campaign_in_every_command() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    assert!(pipeline.store.pause_line(pipeline.messenger, None, "test").await.expect("it answers"));
    let sender = Sender::of(&pipeline);
    let path = file(&sender.program, "list.csv", b"dest,mdata\n1,a\n");
    let line = pipeline.messenger;
    // Blanks would separate arguments here; an invisible character is no better seen.
    for command in [
        format!("campaign send {path} --app-id {line} --cp-id xmas\u{200b}"),
        format!("send --app-id {line} --dest 2 --mdata b --cp-id \u{feff}xmas"),
        "campaign status \u{200b}xmas".to_owned(),
    ] {
        sender.run(&command).await.json();
    }
    assert!(pipeline.rows().await.iter().all(|row| row.cp_id.as_deref() == Some("xmas")));
    let cancelled = sender.run("campaign cancel xmas\u{feff}").await.json();
    assert_eq!((&cancelled["cp_id"], &cancelled["touched"]), (&json!("xmas"), &json!(2)));
    let dots = sender.run("campaign status ..").await;
    assert!(dots.code == 2 && dots.stderr.contains("URL"), "{}", dots.stderr);
    pipeline.stop().await;
}

#[test]
fn line_takes_ids_and_tokens_of_meta_only() {
    let program = Program::new();
    program.json("account add --name Example");
    for id in ["1.00184E+14", "https://facebook.com/1001", "MyPage", "1,001"] {
        let add = format!("line add --account 1 --class messenger --page-id {id} --pat-stdin");
        let ran = program.run_with_input(&add, "EAAtoken");
        assert!(ran.code == 2 && ran.stderr.contains("digits"), "{}", ran.stderr);
    }
    let add = "line add --account 1 --class messenger --page-id \u{200b}1001 --pat-stdin";
    for (token, word) in [
        ("\"EAAtoken\"", "quotes"),
        ("<EAAtoken>", "angle brackets"),
        ("access_token=EAAtoken", "access_token"),
        ("{\"access_token\":\"EAAtoken\"}", "JSON"),
        ("Bearer EAAtoken", "Bearer"),
    ] {
        let ran = program.run_with_input(add, token);
        assert!(ran.error().contains(word) && !ran.everything().contains("EAA"), "{}", ran.stderr);
    }
    let ran = program.run_with_input(&format!("--json {add}"), "\u{feff}EAAtoken\u{a0}\r\n");
    assert_eq!(ran.json()["v8l_id"], 1);
    assert_eq!(program.json("line list")["lines"][0]["v8l_fb_page_id"], "1001");
}
