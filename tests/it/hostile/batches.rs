//! Batches: lines, rows, columns and options. A line is refused by itself, a batch that cannot be read as a whole.

use serde_json::Value;

use super::scene::{Answer, Scene, TEXT};

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// The HTTP status and `status_code`; nothing is logged.
    Refused(u16, i64),
    /// The number and the code of each answered line; 0 for one that is logged.
    Lines(Vec<(i64, i64)>),
}

struct Case {
    name: &'static str,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    outcome: Outcome,
}

const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

fn of_type(
    content_type: &'static str,
    name: &'static str,
    body: impl Into<Vec<u8>>,
    outcome: Outcome,
) -> Case {
    let headers = vec![("content-type", content_type.to_owned())];
    Case { name, query: "app_id=1".to_owned(), headers, body: body.into(), outcome }
}

fn ndjson(name: &'static str, body: impl Into<Vec<u8>>, lines: &[(i64, i64)]) -> Case {
    of_type(NDJSON, name, body, Outcome::Lines(lines.to_vec()))
}

fn csv(name: &'static str, body: impl Into<Vec<u8>>, lines: &[(i64, i64)]) -> Case {
    of_type(CSV, name, body, Outcome::Lines(lines.to_vec()))
}

/// A good batch but for its query.
fn with_query(name: &'static str, query: &str) -> Case {
    Case { query: format!("app_id=1&{query}"), ..of_type(NDJSON, name, good(), Outcome::Refused(400, 229)) }
}

/// A good batch but for a header.
fn with_header(name: &'static str, header: (&'static str, &str), outcome: Outcome) -> Case {
    let mut case = of_type(NDJSON, name, good(), outcome);
    case.headers.retain(|(name, _)| *name != header.0);
    case.headers.push((header.0, header.1.to_owned()));
    case
}

fn good() -> String {
    line("")
}

/// Return a good line with more in it.
fn line(more: &str) -> String {
    format!("{{\"dest\":\"b\",\"mdata\":\"{TEXT}\"{more}}}\n")
}

fn unreadable() -> Outcome {
    Outcome::Refused(400, 400)
}

fn lines(tsid: &str) -> Vec<Case> {
    let many = |code: i64, count: i64| (1..=count).map(|line| (line, code)).collect::<Vec<_>>();
    let before_good = |line: &str| format!("{line}\n{}", good());
    let of_line = |text: &str| format!("{{\"dest\":\"b\",\"app_id\":{text},\"mdata\":\"{TEXT}\"}}\n");
    vec![
        ndjson("2,000 empty objects", "{}\n".repeat(2_000), &many(220, 2_000)),
        ndjson("300 lines of no account", of_line("999999").repeat(300), &many(230, 300)),
        ndjson("100,000 blank lines before a good one", "\n".repeat(100_000) + &good(), &[(100_001, 0)]),
        of_type(NDJSON, "100,000 blank lines", "\n".repeat(100_000), unreadable()),
        of_type(NDJSON, "nothing", "", unreadable()),
        ndjson("a line of 1 MB", before_good(&"x".repeat(1 << 20)), &[(1, 413), (2, 0)]),
        ndjson(
            "levels without an end",
            before_good(&format!("{{\"x\":{}", "[".repeat(50_000))),
            &[(1, 400), (2, 0)],
        ),
        ndjson("values that are no objects", "[]\n7\n\"x\"\nnull\ntrue\n", &many(400, 5)),
        ndjson("carriage returns alone", format!("{}\r{}", good().trim_end(), good()), &[(1, 400)]),
        ndjson("no UTF-8", [&b"{\"dest\":\"\xff\"}\n"[..], good().as_bytes()].concat(), &[(1, 400), (2, 0)]),
        ndjson("a NUL between two lines", format!("{}\0{}", good(), good()), &[(1, 0), (2, 400)]),
        ndjson("a NUL in a reference", line(r#","msg_id":"a\u0000""#), &[(1, 229)]),
        ndjson("a token in a line", line(&format!(r#","tsid":"{tsid}""#)), &[(1, 229)]),
        ndjson("a token under its other name", line(r#","sid":"0123456789wrong""#), &[(1, 229)]),
        ndjson("an unknown class", line(r#","class":"whatsapp""#), &[(1, 229)]),
        ndjson("a class that is an object", line(r#","class":{}"#), &[(1, 229)]),
        ndjson("another class than the line's", line(r#","class":"instagram""#), &[(1, 230)]),
        ndjson("a wait that is no number", line(r#","wait":"for ever""#), &[(1, 0)]),
    ]
}

fn rows() -> Vec<Case> {
    let row = format!("b,{TEXT}\n");
    let wide: String = (0..600).map(|n| format!(",c{n}")).collect();
    let refused = |name, header: &str, code| {
        of_type(CSV, name, format!("{header}\n{row}"), Outcome::Refused(400, code))
    };
    vec![
        csv("a row", format!("dest,mdata\n{row}"), &[(2, 0)]),
        csv("a formula", format!("dest,mdata\n\"=cmd|'/c calc'!A1\",{TEXT}\n{row}"), &[(2, 229), (3, 0)]),
        csv("a row of 600 cells", format!("dest,mdata\nb,hi{}\n{row}", ",".repeat(600)), &[(2, 400), (3, 0)]),
        csv("a row of 1 MB", format!("dest,mdata\nb,{}\n{row}", "x".repeat(1 << 20)), &[(2, 413), (3, 0)]),
        csv("a cell too few", format!("dest,mdata\nb\n{row}"), &[(2, 400), (3, 0)]),
        csv("the header again", format!("dest,mdata\ndest,mdata\n{row}"), &[(2, 400), (3, 0)]),
        refused("a header of 1 MB", &"x".repeat(1 << 20), 229),
        refused("600 columns", &format!("dest,mdata{wide}"), 400),
        refused("a column of tokens", "dest,mdata,tsid", 229),
        refused("a column twice", "dest,mdata,DEST", 229),
        refused(
            "a column that is a script and a header",
            "dest,mdata,\"<b>\u{1b}[31m\r\nX-Injected: 1\"",
            229,
        ),
        refused("an open quote in the header", "dest,\"mdata", 229),
        of_type(CSV, "a header alone", "dest,mdata\n", unreadable()),
        of_type(CSV, "nothing", "", unreadable()),
    ]
}

fn wholes(tsid: &str) -> Vec<Case> {
    let refused = Outcome::Refused;
    let more = format!("Bearer {tsid}x");
    vec![
        with_query("a name with a header", "batch_id=a%0d%0aX-Injected:%201"),
        with_query("a name of 65 characters", &format!("batch_id={}", "x".repeat(65))),
        with_query("a name of other letters", "batch_id=%C3%A9"),
        with_query("a line end for a separator", "separator=%0a"),
        with_query("another flag than 1 and 0", "stream=2"),
        with_query("an unknown option", "colour=red"),
        with_header("JSON", ("content-type", "application/json"), unreadable()),
        Case { headers: Vec::new(), ..of_type(NDJSON, "no type", good(), unreadable()) },
        with_header("gzip", ("content-encoding", "gzip"), unreadable()),
        with_header("a key", ("idempotency-key", "k"), refused(400, 229)),
        with_header("no token", ("authorization", "Basic x"), refused(401, 100)),
        with_header("an unknown token", ("authorization", "Bearer 0123456789wrong"), refused(401, 102)),
        with_header("more than a token", ("authorization", more.as_str()), refused(401, 102)),
    ]
}

/// Send a batch as the account, unless a header names another token.
async fn send(scene: &Scene, case: &Case) -> Answer {
    let bearer = format!("Bearer {}", scene.serve.tsid);
    let mut headers: Vec<(&str, &[u8])> =
        case.headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    if case.headers.iter().all(|(name, _)| *name != "authorization") {
        headers.push(("authorization", bearer.as_bytes()));
    }
    scene.post(&format!("/api/v2/messages/batch?{}", case.query), &headers, case.body.clone()).await
}

/// Return the outcome that an answer tells, and the details of its refusals.
fn outcome(answer: &Answer) -> (Outcome, Vec<Value>) {
    if answer.status != 200 {
        let envelope = answer.json();
        let code = envelope["return"]["status_code"].as_i64().unwrap_or_default();
        return (Outcome::Refused(answer.status, code), vec![envelope["return"]["detail"].clone()]);
    }
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    let code =
        |line: &Value| line["status_code"].as_i64().unwrap_or(if line["cdls_id"].is_i64() { 0 } else { -1 });
    let codes = lines.iter().map(|line| (line["line"].as_i64().unwrap_or_default(), code(line))).collect();
    let refused = lines.iter().filter(|line| code(line) != 0).map(|line| line["detail"].clone()).collect();
    (Outcome::Lines(codes), refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_refused_one_by_one() {
    let mut scene = Scene::start().await;
    let tsid = scene.serve.tsid.clone();
    for case in [lines(&tsid), rows(), wholes(&tsid)].into_iter().flatten() {
        let answer = send(&scene, &case).await;
        let (seen, details) = outcome(&answer);
        let logged = match &seen {
            Outcome::Lines(codes) => codes.iter().filter(|(_, code)| *code == 0).count(),
            Outcome::Refused(..) => 0,
        };
        scene.expect(case.name, seen, case.outcome);
        for detail in details {
            scene.judge_detail(case.name, &detail);
        }
        scene.expect(case.name, answer.headers.contains_key("x-injected"), false);
        scene.expect(case.name, answer.text.contains('\u{1b}'), false);
        scene.settle(case.name, answer.text.as_bytes(), logged as i64).await;
    }
    scene.end().await;
}
