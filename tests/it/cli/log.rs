//! `log`.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, Lane, LineId, RowId, Submission};
use meta_dispatch::store::{Change, ChangeKind, Record, SharedStore};
use serde_json::{Value, json};

use super::program::Program;
use crate::support::insert::Insert;

const PATIENCE: Duration = Duration::from_secs(20);

/// The columns of the contract, in its order.
const COLUMNS: &str = "cdls_id cdcs_id v8l_id class dest mtype mdata mcaption msg_id cp_id priority status \
    status_code message_id error_code error_subcode error_kind error_message fbtrace_id attempts \
    ambiguous_attempts next_at expires_at created_at sent_at done_at delivered_at read_at";

async fn insert(store: &SharedStore, line: i64, texts: &[&str]) -> Vec<RowId> {
    let submissions: Vec<Submission> = texts
        .iter()
        .map(|text| Submission {
            account: AccountId(1),
            line: LineId(line),
            class: Class::MESSENGER,
            dest: "25312345678901234".into(),
            kind: MessageKind::Text,
            mdata: (*text).into(),
            mcaption: None,
            msg_id: None,
            cp_id: text.strip_prefix("campaign ").map(str::to_owned),
            lane: Lane::High,
            send_at: None,
            valid_for: Duration::from_secs(3600),
            waiter: None,
        })
        .collect();
    store.insert(&submissions).await.expect("the rows are logged")
}

/// Ends a row that nobody has claimed as ERROR `expired`.
async fn expire(store: &SharedStore, id: RowId) {
    let changes = [Change::waiting(id, 0, ChangeKind::Expire)];
    let record = Record {
        worker: "w",
        changes: &changes,
        claims: &[],
        claim_no: 0,
        ended_work: &[],
        ended_claims: &[],
        repeated: false,
    };
    let recorded = store.record(record).await;
    assert_eq!(recorded.expect("the store answers").changed, [true]);
}

fn texts(listing: &Value) -> Vec<&str> {
    let messages = listing["messages"].as_array().expect("a list");
    messages.iter().map(|message| message["mdata"].as_str().expect("a text")).collect()
}

#[tokio::test]
async fn shows_the_columns_of_the_contract_in_order() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    let id = insert(&store, line, &["two\nlines"]).await[0];
    store.close().await;

    let json = program.run(&format!("log show {id} --json"));
    assert_eq!(json.json()["mdata"], "two\nlines");
    let places: Vec<usize> = COLUMNS
        .split_whitespace()
        .map(|column| json.stdout.find(&format!("\"{column}\":")).expect("the column is there"))
        .collect();
    assert!(places.is_sorted(), "{}", json.stdout);

    let text = program.run(&format!("log show {id}")).stdout;
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, COLUMNS.split_whitespace().collect::<Vec<_>>());
    assert!(text.contains("two\\nlines"), "{text}");
}

#[test]
fn missing_message_is_an_error() {
    let program = Program::new();
    program.json("migrate");
    assert!(program.run("log show 99").error().contains("99"));
}

#[tokio::test]
async fn tail_shows_the_newest_oldest_first() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    let ids = insert(&store, line, &["a", "b", "campaign spring", "d"]).await;
    expire(&store, ids[1]).await;
    store.close().await;

    assert_eq!(texts(&program.json("log tail --lines 2")), ["campaign spring", "d"]);
    assert_eq!(texts(&program.json("log tail --lines 0")), [] as [&str; 0]);
    assert_eq!(texts(&program.json("log tail --cp-id spring")), ["campaign spring"]);
    assert_eq!(texts(&program.json("log tail --status error")), ["b"]);
    assert_eq!(texts(&program.json(&format!("log tail --line {line}"))), ["a", "b", "campaign spring", "d"]);
    assert_eq!(texts(&program.json("log tail --line 777")), [] as [&str; 0]);
    let table = program.run("log tail").stdout;
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.lines().nth(2).is_some_and(|row| row.contains("ERROR") && row.contains("expired")),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "no colours without a terminal");
}

#[tokio::test]
async fn tail_cuts_nothing_without_a_terminal() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    let long = "a text of many words ".repeat(20);
    insert(&store, line, &[long.trim_end(), "two\nlines"]).await;
    store.close().await;

    let table = program.run("log tail").stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains(long.trim_end()) && table.contains("two\\nlines"), "{table}");
}

#[tokio::test]
async fn counts_messages_by_line_and_status() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    let ids = insert(&store, line, &["a", "b", "c"]).await;
    expire(&store, ids[0]).await;
    store.close().await;

    let stats = program.json("log stats --since 1h");
    let of = |status: &str| {
        let cells = stats["stats"].as_array().expect("a list");
        cells.iter().find(|cell| cell["status"] == status).cloned().expect("a cell")
    };
    assert_eq!(of("PENDING"), json!({"v8l_id": line, "class": "messenger", "status": "PENDING", "rows": 2}));
    assert_eq!(of("ERROR")["rows"], 1);
    let table = program.run("log stats").stdout;
    let total: Vec<&str> = table.lines().last().expect("a row").split_whitespace().collect();
    assert_eq!((total[0], total[total.len() - 1]), ("all", "3"), "{table}");
}

/// A program that goes on; ended when dropped.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(program: &Program, arguments: &str) -> Following {
        let mut child = program.spawn(arguments);
        let stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Following { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn following_shows_new_rows_and_status_changes() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    insert(&store, line, &["before", "shown"]).await;
    let following = Following::start(&program, "log tail --lines 1 --follow --json");
    let next = || serde_json::from_str::<Value>(&following.next()).expect("a JSON object a line");
    assert_eq!(next()["mdata"], "shown");
    let id = insert(&store, line, &["new"]).await[0];
    let new = next();
    assert_eq!((&new["mdata"], &new["status"]), (&json!("new"), &json!("PENDING")));
    expire(&store, id).await;
    let changed = next();
    assert_eq!((&changed["cdls_id"], &changed["status"]), (&json!(id.0), &json!("ERROR")));
    store.close().await;
}

#[tokio::test]
async fn following_prints_one_header_and_steady_columns() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    let following = Following::start(&program, "log tail -f");
    let header = following.next();
    insert(&store, line, &["first"]).await;
    let first = following.next();
    insert(&store, line, &["second, which is longer"]).await;
    let second = following.next();
    let column = header.find("MDATA").expect("the column is named");
    assert_eq!((first.find("first"), second.find("second")), (Some(column), Some(column)));
    store.close().await;
}

#[tokio::test]
async fn closed_output_ends_the_command_quietly() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let store = program.store().await;
    // More than a pipe holds.
    let long = "x".repeat(1900);
    insert(&store, line, &vec![long.as_str(); 200]).await;
    store.close().await;
    for arguments in ["log tail --lines 200 --json", "log tail --lines 200 --json --follow"] {
        let mut child = program.spawn(arguments);
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments}");
    }
}
