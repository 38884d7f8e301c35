//! Batches over HTTP (docs/contract.md, section 3).

use std::collections::HashSet;
use std::fmt::Write as _;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{Lane, RowId};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};
use crate::support::without_detail;

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv; charset=utf-8";

struct Answered {
    status: u16,
    batch_id: String,
    lines: Vec<Value>,
}

impl Pipeline {
    async fn batch(&self, query: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answered {
        let answer = reqwest::Client::new()
            .post(format!("http://{}/api/v2/messages/batch?{query}", self.http))
            .bearer_auth(self.tsid.expose_secret())
            .header(CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await
            .expect("ingest answers");
        let status = answer.status().as_u16();
        let batch_id = answer.headers().get("batch-id").map(|id| id.to_str().unwrap().to_owned());
        let text = answer.text().await.expect("answers are complete");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("answers are JSON"));
        let lines = lines.map(without_detail).collect();
        Answered { status, batch_id: batch_id.unwrap_or_default(), lines }
    }

    /// The head of a request whose body is sent in chunks.
    async fn chunked(&self, query: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).await.expect("ingest listens");
        let head = format!(
            "POST /api/v2/messages/batch?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.tsid.expose_secret()
        );
        stream.write_all(head.as_bytes()).await.expect("it can be written");
        stream
    }

    fn line(&self, dest: &str) -> String {
        json!({"app_id": self.messenger, "dest": dest, "mdata": "hi"}).to_string()
    }
}

fn id(line: &Value) -> RowId {
    RowId(line["cdls_id"].as_i64().unwrap_or_else(|| panic!("no id in {line}")))
}

async fn send(stream: &mut TcpStream, text: &str) {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.expect("it can be written");
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn each_line_is_answered_in_its_place(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.execute("insert into campaign (cdcs_id, cp_id, state) values (1, 'over', 'cancelled')").await;
    let (messenger, instagram) = (pipeline.messenger, pipeline.instagram);
    let body = [
        json!({"app_id": messenger, "dest": "ann", "mdata": "one"}).to_string(),
        String::new(),
        json!({"app_id": messenger, "dest": "", "mdata": "two"}).to_string(),
        "{nonsense".to_owned(),
        json!({"app_id": instagram, "dest": "bob", "mdata": "five", "priority": "high"}).to_string(),
        json!({"app_id": instagram, "class": "messenger", "dest": "bob", "mdata": "six"}).to_string(),
        json!({"app_id": 999, "dest": "bob", "mdata": "seven"}).to_string(),
        json!({"app_id": messenger, "class": "telegram", "dest": "bob", "mdata": "eight"}).to_string(),
        json!({"app_id": messenger, "cp_id": "over", "dest": "bob", "mdata": "nine"}).to_string(),
        json!({"app_id": messenger, "httpdup": 60, "dest": "cid", "mdata": "ten"}).to_string(),
        json!({"app_id": messenger, "httpdup": 60, "dest": "cid", "mdata": "eleven"}).to_string(),
        json!({"dest": "dan", "mdata": "twelve"}).to_string(),
        "x".repeat(1_000_000),
        json!({"app_id": messenger, "dest": "eve", "mdata": "fourteen", "msg_id": "own"}).to_string(),
    ]
    .join("\n");
    let answered = pipeline.batch("msg_id=default", NDJSON, body).await;
    assert_eq!(answered.status, 200);
    assert!(!answered.batch_id.is_empty());
    let said: Vec<(i64, i64)> = answered
        .lines
        .iter()
        .map(|line| (line["line"].as_i64().unwrap(), line["status_code"].as_i64().unwrap_or_default()))
        .collect();
    let expected = [
        (1, 0),
        (3, 220),
        (4, 400),
        (5, 0),
        (6, 230),
        (7, 230),
        (8, 229),
        (9, 247),
        (10, 0),
        (11, 244),
        (12, 210),
        (13, 413),
        (14, 0),
    ];
    assert_eq!(said, expected);
    assert_eq!(answered.lines[1], json!({"line": 3, "status": "No dest", "status_code": 220}));
    assert_eq!(answered.lines[0], json!({"line": 1, "cdls_id": id(&answered.lines[0])}));
    let first = pipeline.row(id(&answered.lines[0])).await;
    assert_eq!((first.priority, first.msg_id.as_deref()), (Lane::Bulk, Some("default")));
    let fifth = pipeline.row(id(&answered.lines[3])).await;
    assert_eq!((fifth.priority, fifth.class), (Lane::High, Class::INSTAGRAM));
    let last = pipeline.expect_ok(id(&answered.lines[12])).await;
    assert_eq!(last.msg_id.as_deref(), Some("own"));
    assert_eq!(pipeline.rows().await.len(), 4);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_takes_its_defaults_from_the_query() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let query = format!("app_id={}&class=messenger&cp_id=spring", pipeline.messenger);
    let body = b"\xef\xbb\xbfdest,mdata,mtype\r\nann,\"Hi, Ann\",\r\n\r\nbob,ol\xe1,text\r\nragged\r\ncid,https://e.com/a.png,image\r\n";
    let answered = pipeline.batch(&query, CSV, body.to_vec()).await;
    assert_eq!(answered.lines[2], json!({"line": 5, "status": "Malformed request", "status_code": 400}));
    let rows = pipeline.rows().await;
    let logged: Vec<_> = rows.iter().map(|row| (row.dest.as_str(), row.mdata.as_str())).collect();
    assert_eq!(logged, [("ann", "Hi, Ann"), ("bob", "olá"), ("cid", "https://e.com/a.png")]);
    assert!(rows.iter().all(|row| row.cp_id.as_deref() == Some("spring")));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_batch_is_refused_as_a_whole() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let refused = |status: &str, code: i64| json!({"return": {"status": status, "status_code": code, "messageId": "", "cdls_id": 0}});
    for (query, content_type, body, status, text, code) in [
        ("", "application/json", "{}", 400, "Malformed request", 400),
        ("", CSV, "dest,colour\na,b\n", 400, "Invalid parameter: colour", 229),
        ("stream=1", CSV, "dest,colour\na,b\n", 400, "Invalid parameter: colour", 229),
        ("stream=maybe", NDJSON, "", 400, "Invalid parameter: stream", 229),
        ("batch_id=", NDJSON, "", 400, "Invalid parameter: batch_id", 229),
        ("tsid=nobody-knows-this", NDJSON, "{}", 401, "SID not found", 102),
    ] {
        let answered = pipeline.batch(query, content_type, body).await;
        assert_eq!((answered.status, &answered.lines[0]), (status, &refused(text, code)), "{query} {body}");
    }
    for content_type in [NDJSON, CSV] {
        let answered = pipeline.batch("", content_type, "").await;
        assert_eq!(
            (answered.status, &answered.lines[0]),
            (400, &refused("Malformed request", 400)),
            "no message"
        );
    }
    assert!(pipeline.rows().await.is_empty());
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn repeated_batch_logs_no_line_twice(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let body = [pipeline.line("ann"), pipeline.line(""), pipeline.line("cid")].join("\n");
    let first = pipeline.batch("", NDJSON, body.clone()).await;
    let query = format!("batch_id={}", first.batch_id);
    let again = pipeline.batch(&query, NDJSON, body).await;
    assert_eq!((&again.batch_id, &again.lines), (&first.batch_id, &first.lines));
    // What was logged stays as it was, even where it would be refused now; what was refused may be mended.
    let mended = ["{", &pipeline.line("bob"), &pipeline.line("other"), &pipeline.line("dan")].join("\n");
    let mended = pipeline.batch(&query, NDJSON, mended).await;
    assert_eq!((&mended.lines[0], &mended.lines[2]), (&first.lines[0], &first.lines[2]));
    let rows = pipeline.rows().await;
    let dests: Vec<&str> = rows.iter().map(|row| row.dest.as_str()).collect();
    assert_eq!(dests, ["ann", "cid", "bob", "dan"]);
    // The name is the account's own batch; another name is another batch.
    let other = pipeline.batch("batch_id=other", NDJSON, pipeline.line("ann")).await;
    assert_ne!(other.lines[0], first.lines[0]);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn repeat_after_a_cut_logs_each_line_once(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let lines: Vec<String> = (0..3_000).map(|n| pipeline.line(&format!("d{n}"))).collect();
    let mut stream = pipeline.chunked("batch_id=cut").await;
    send(&mut stream, &format!("{}\n{}", lines[..1_500].join("\n"), &lines[1_500][..20])).await;
    eventually("some lines to be logged", || async {
        let logged = pipeline.rows().await.len();
        if logged > 500 { Ok(()) } else { Err(logged.to_string()) }
    })
    .await;
    drop(stream);
    let answered = pipeline.batch("batch_id=cut", NDJSON, lines.join("\n")).await;
    let ids: HashSet<RowId> = answered.lines.iter().map(id).collect();
    assert_eq!((answered.lines.len(), ids.len()), (3_000, 3_000));
    let rows = pipeline.rows().await;
    let dests: HashSet<&str> = rows.iter().map(|row| row.dest.as_str()).collect();
    assert_eq!((rows.len(), dests.len()), (3_000, 3_000));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn two_ingests_log_each_line_of_one_batch_once() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    let second = pipeline.start_ingest().await;
    let body: Vec<String> = (0..2_000).map(|n| pipeline.line(&format!("d{n}"))).collect();
    let body = body.join("\n");
    let other = reqwest::Client::new()
        .post(format!("http://{second}/api/v2/messages/batch?batch_id=both"))
        .bearer_auth(pipeline.tsid.expose_secret())
        .header(CONTENT_TYPE, NDJSON)
        .body(body.clone())
        .send();
    let (one, other) = tokio::join!(pipeline.batch("batch_id=both", NDJSON, body), other);
    let other = other.expect("the second ingest answers").text().await.expect("its answers are complete");
    let other: Vec<Value> = other.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(one.lines, other);
    assert_eq!(pipeline.rows().await.len(), 2_000);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_batch_is_answered_while_written() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let mut stream = pipeline.chunked("stream=1").await;
    let mut seen = String::new();
    for n in 1..=3 {
        send(&mut stream, &format!("{}\n", pipeline.line("ann"))).await;
        let expected = format!("{{\"line\":{n},\"cdls_id\":");
        let mut bytes = [0; 4_096];
        while !seen.contains(&expected) {
            let length = stream.read(&mut bytes).await.expect("answers come");
            assert!(length > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }
    assert!(seen.to_ascii_lowercase().contains("batch-id: "), "{seen}");
    stream.write_all(b"0\r\n\r\n").await.expect("it can be written");
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.expect("the answer ends well") {
        if line == "0" {
            break;
        }
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn client_may_write_200_000_lines_before_reading() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let line = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
    pipeline.store.pause_line(line, None, "test").await.expect("lines can be paused");
    let query = format!("app_id={line}&mdata=hi");
    let mut body = String::from("dest\n");
    for n in 0..200_000 {
        writeln!(body, "d{n}").expect("it is a string");
    }
    let mut stream = TcpStream::connect(pipeline.http).await.expect("ingest listens");
    let head = format!(
        "POST /api/v2/messages/batch?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: text/csv\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        pipeline.tsid.expose_secret(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("it can be written");
    stream.write_all(body.as_bytes()).await.expect("everything can be written before anything is read");
    let mut answered = String::new();
    stream.read_to_string(&mut answered).await.expect("the answer is complete");
    assert!(answered.starts_with("HTTP/1.1 200"));
    // Lines end with a line feed alone: what stands between CRLFs is the size of a chunk.
    let sizes = regex::Regex::new(r"\r\n[0-9A-Fa-f]+\r\n").expect("a pattern");
    let answered = sizes.replace_all(&answered, "");
    assert_eq!(answered.matches("\"cdls_id\":").count(), 200_000);
    assert!(answered.contains("{\"line\":200001,\"cdls_id\":"));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn lines_get_503_while_the_database_is_away() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let lines: Vec<String> = (0..1_200).map(|n| pipeline.line(&format!("d{n}"))).collect();
    let opened = pipeline.batch("batch_id=away", NDJSON, lines[..10].join("\n")).await;
    pipeline.execute("alter table cdls rename to away").await;
    let refused = pipeline.batch("batch_id=away", NDJSON, lines.join("\n")).await;
    assert_eq!(refused.lines.len(), 1_200);
    assert_eq!(refused.lines[..10], opened.lines[..]);
    let away = json!({"line": 11, "status": "temporarily unavailable", "status_code": 503});
    assert_eq!(refused.lines[10], away);
    assert!(refused.lines[10..].iter().all(|line| line["status_code"] == 503));
    pipeline.execute("alter table away rename to cdls").await;
    let again = pipeline.batch("batch_id=away", NDJSON, lines.join("\n")).await;
    assert_eq!(again.lines[..10], opened.lines[..]);
    assert_eq!(again.lines.iter().map(id).collect::<HashSet<_>>().len(), 1_200);
    assert_eq!(pipeline.rows().await.len(), 1_200);
    pipeline.stop().await;
}

/// It would seem to keep the batch from being logged twice, which `batch_id` does.
#[tokio::test(flavor = "multi_thread")]
async fn idempotency_key_is_refused_as_batch_name() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let answer = reqwest::Client::new()
        .post(format!("http://{}/api/v2/messages/batch", pipeline.http))
        .bearer_auth(pipeline.tsid.expose_secret())
        .header(CONTENT_TYPE, NDJSON)
        .header("Idempotency-Key", "spring-1")
        .body(pipeline.line("ann"))
        .send()
        .await
        .expect("ingest answers");
    assert_eq!(answer.status(), 400);
    let answer: Value = answer.json().await.expect("answers are JSON");
    assert_eq!(answer["return"]["status"], "Invalid parameter: Idempotency-Key");
    assert_eq!(answer["return"]["status_code"], 229);
    assert!(pipeline.rows().await.is_empty());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_get_503_beyond_the_backlog_bound() {
    let pipeline = Pipeline::start_with(Backend::Embedded, &[("ingest.max_backlog", "10")]).await;
    assert!(pipeline.store.pause_line(pipeline.messenger, None, "for a test").await.expect("it answers"));
    let lines: Vec<String> = (0..20).map(|n| pipeline.line(&format!("d{n}"))).collect();
    let send = |lines: &[String]| pipeline.batch("batch_id=spring", NDJSON, lines.join("\n"));
    let first = send(&lines[..10]).await;
    eventually("the bound to be seen", || async {
        let other = json!({"app_id": pipeline.messenger.0, "dest": "other", "mdata": "hi"});
        match pipeline.post(Class::MESSENGER, other).await {
            (StatusCode::SERVICE_UNAVAILABLE, _) => Ok(()),
            (status, _) => Err(status.to_string()),
        }
    })
    .await;
    let refused = send(&lines[..11]).await;
    assert_eq!(refused.lines[..10], first.lines[..], "what was logged is answered so");
    let full = json!({"line": 11, "status": "temporarily unavailable", "status_code": 503});
    assert_eq!(refused.lines[10], full);
    assert!(pipeline.store.resume_line(pipeline.messenger).await.expect("it answers"));
    let again = eventually("room again", || async {
        let answered = send(&lines).await;
        match answered.lines.iter().find(|line| line["cdls_id"].is_null()) {
            None => Ok(answered),
            Some(refused) => Err(refused.to_string()),
        }
    })
    .await;
    assert_eq!(again.lines.iter().map(id).collect::<HashSet<_>>().len(), 20);
    let rows = pipeline.rows().await;
    assert_eq!(rows.iter().filter(|row| row.dest != "other").count(), 20);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_refuses_the_rest_of_its_batch() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let mut stream = pipeline.chunked("stream=1").await;
    let (reading, mut writing) = stream.split();
    let mut answers = BufReader::new(reading).lines();
    let mut answer = async || loop {
        let line = answers.next_line().await.expect("it can be read").expect("an answer");
        if line.starts_with("{\"line\"") {
            return serde_json::from_str::<Value>(&line).expect("answers are JSON");
        }
    };
    let mut send_line = async || {
        let line = format!("{}\n", pipeline.line("ann"));
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        writing.write_all(chunk.as_bytes()).await.expect("it can be written");
    };
    send_line().await;
    id(&answer().await);
    let token = meta_dispatch::edge::tokens::identifier(pipeline.tsid.expose_secret()).expect("long enough");
    assert!(pipeline.store.revoke_token(token).await.expect("it answers"));
    let begun = std::time::Instant::now();
    let refused = loop {
        send_line().await;
        let answer = answer().await;
        if answer["cdls_id"].is_null() {
            break answer;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "a revoked token goes on sending");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((&refused["status"], &refused["status_code"]), (&json!("SID not found"), &json!(102)));
    pipeline.stop().await;
}
