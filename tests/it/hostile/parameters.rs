//! Values of parameters, carriers of tokens, and headers. Codes are those of the contract, in its order.

use std::net::TcpListener;

use meta_dispatch::domain::{RowId, Status};
use serde_json::{Value, json};

use super::scene::{Fate, JSON, SEND, Scene, TEXT, refused};
use crate::support::pipeline::eventually;

/// The code of a message that is logged.
const LOGGED: i64 = 0;
/// Invalid parameter.
const INVALID: i64 = 229;

/// A parameter, its value as it is written in JSON, and the code.
type ValueCase = (&'static str, &'static str, String, i64);

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn app_ids() -> Vec<ValueCase> {
    let of = |name, value: &str, code| (name, "app_id", value.to_owned(), code);
    vec![
        of("a line's id with an exponent", "1e2", 210),
        of("a line's id with a point", "1.0", 210),
        of("minus zero", "-0", 210),
        of("leading zeros", "0001", 400),
        of("leading zeros in a text", "\"0001\"", LOGGED),
        of("2^63", "9223372036854775808", 210),
        of("minus one", "-1", 210),
        of("an exponent in a text", "\"1e0\"", 210),
        of("hexadecimal", "\"0x1\"", 210),
        of("a sign", "\"+1\"", 210),
        of("a full-width digit", "\"\u{ff11}\"", 210),
        of("an array", "[1]", 210),
        of("an object", "{}", 210),
        of("a boolean", "true", 210),
        of("5,000 digits", &"9".repeat(5_000), 210),
        of("a NUL behind", r#""1\u0000""#, 210),
        of("blanks around", "\" 1 \"", LOGGED),
        of("SQL behind", "\"1; drop table cdls\"", 210),
    ]
}

fn texts() -> Vec<ValueCase> {
    let of = |name, parameter, text: &str, code| (name, parameter, quoted(text), code);
    let emoji = |count: usize| "😀".repeat(count);
    vec![
        of("128 emoji", "dest", &emoji(128), LOGGED),
        of("129 emoji", "dest", &emoji(129), INVALID),
        of("a line end", "dest", "a\r\nb", INVALID),
        of("an escape of terminals", "dest", "\u{1b}[31m", INVALID),
        of("another direction within", "dest", "a\u{202e}b", INVALID),
        of("a line of a log", "dest", r#"{"level":"error"}"#, INVALID),
        of("a formula", "dest", "=cmd|'/c calc'!A1", INVALID),
        of("SQL that is always true", "dest", "' or '1'='1", INVALID),
        of("a pattern of SQL", "dest", "%_\\", LOGGED),
        of("a NUL", "dest", "a\0", INVALID),
        of("a script", "dest", "<script>alert(1)</script>", LOGGED),
        of("a path", "dest", "../../etc/passwd", LOGGED),
        of("2,000 emoji", "mdata", &emoji(2_000), LOGGED),
        of("2,001 emoji", "mdata", &emoji(2_001), 238),
        of("an escape of terminals", "mdata", "\u{1b}[2J\u{7}", LOGGED),
        of("a formula", "mdata", "=cmd|'/c calc'!A1", LOGGED),
        of("capitals", "mtype", "TEXT", 226),
        of("a NUL behind", "mtype", "text\0", 226),
        of("2,001 characters", "mcaption", &"x".repeat(2_001), INVALID),
        of("256 characters", "msg_id", &"x".repeat(256), INVALID),
        of("a NUL", "msg_id", "a\0b", INVALID),
        of(
            "a forged line of the log",
            "msg_id",
            "x\r\n2026-11-28T14:00:00Z ERROR forged-line \u{1b}[31m",
            LOGGED,
        ),
        of("SQL behind", "msg_id", "'; drop table cdls; --", LOGGED),
        of("129 characters", "cp_id", &"x".repeat(129), INVALID),
        of("a line end", "cp_id", "a\nb", INVALID),
        of("a NUL", "cp_id", "\0", INVALID),
        of("a path", "cp_id", "../../x", LOGGED),
        of("capitals", "priority", "HIGH", INVALID),
        of("a sign", "valid_for", "+1", INVALID),
        of("the year 9999 behind UTC", "send_at", "9999-12-31T23:59:59-23:59", INVALID),
        of("the year 0", "send_at", "0000-01-01T00:00:00Z", INVALID),
        of("30 February", "send_at", "2027-02-30T00:00:00Z", INVALID),
        of("a time without an offset", "send_at", "2026-12-01T00:00:00", INVALID),
    ]
}

fn other_types() -> Vec<ValueCase> {
    let of = |name, parameter, value: &str, code| (name, parameter, value.to_owned(), code);
    vec![
        of("an array", "dest", "[]", INVALID),
        of("an object", "dest", r#"{"id":"1"}"#, INVALID),
        of("a number with a point", "dest", "1.5", INVALID),
        of("an array", "mdata", "[]", INVALID),
        of("an array", "mtype", r#"["text"]"#, 226),
        of("an array", "mcaption", "[]", INVALID),
        of("an operator of a database", "msg_id", r#"{"$ne":null}"#, INVALID),
        of("an array", "cp_id", "[1]", INVALID),
        of("a number", "priority", "1", INVALID),
        of("below zero", "wait", "-1", INVALID),
        of("a point", "wait", "1.5", INVALID),
        of("an array", "wait", "[]", INVALID),
        of("20 digits", "wait", "99999999999999999999", INVALID),
        of("below zero", "httpdup", "-1", INVALID),
        of("an exponent", "httpdup", "1e1", INVALID),
        of("a boolean", "httpdup", "true", INVALID),
        of("before 1970", "send_at", "-1", INVALID),
        of("2^63", "send_at", "9223372036854775808", INVALID),
        of("2^63 - 1", "send_at", "9223372036854775807", INVALID),
        of("the year 2100", "send_at", "4102444800", INVALID),
        of("a boolean", "send_at", "true", INVALID),
        of("zero", "valid_for", "0", INVALID),
        of("an exponent", "valid_for", "1e3", INVALID),
        of("more than 366 days", "valid_for", "31622401", INVALID),
    ]
}

/// Return a good message with this value in the place of its own.
fn with(parameter: &str, value: &str) -> String {
    let good = [("app_id", "1".to_owned()), ("dest", "\"p\"".to_owned()), ("mdata", quoted(TEXT))];
    let others = good.iter().filter(|(name, _)| *name != parameter);
    let others: String = others.map(|(name, value)| format!("\"{name}\":{value},")).collect();
    format!("{{{others}\"{parameter}\":{value}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_refused_by_their_code() {
    let mut scene = Scene::start().await;
    let bearer = format!("Bearer {}", scene.serve.tsid);
    let headers = [("authorization", bearer.as_bytes()), ("content-type", JSON.as_bytes())];
    for (name, parameter, value, code) in [app_ids(), texts(), other_types()].into_iter().flatten() {
        let case = format!("{parameter}: {name}");
        let answer = scene.post(SEND, &headers, with(parameter, &value)).await;
        let expected = if code == LOGGED { Fate::Logged } else { refused(code) };
        scene.judge(&case, &answer, expected).await;
        if code == INVALID {
            let status = answer.json()["return"]["status"].clone();
            scene.expect(&case, status, json!(format!("Invalid parameter: {parameter}")));
        }
    }
    let printed = scene.end().await;
    assert!(!printed.contains("forged-line") && !printed.contains('\u{1b}'), "a value was printed");
}

/// URLs of assets: the form alone is checked, as Meta fetches them.
const URLS: &[(&str, &str, i64)] = &[
    ("an address of a cloud's metadata", "http://169.254.169.254/latest/meta-data/", LOGGED),
    ("loopback", "http://127.0.0.1:9090/metrics", LOGGED),
    ("a user and a password", "http://user:pass@example.com/a", LOGGED),
    ("a mapped address", "http://[::ffff:127.0.0.1]/a", LOGGED),
    ("an address in one number", "http://2130706433/a", LOGGED),
    ("an escaped NUL", "http://example.com/%00", LOGGED),
    ("a file", "file:///etc/passwd", 227),
    ("a script", "javascript:alert(1)", 227),
    ("data", "data:text/html,<script>", 227),
    ("FTP", "ftp://example.com/a", 227),
    ("no scheme", "//example.com/a", 227),
    ("no host", "http:///a", 227),
    ("nothing but a scheme", "http://", 227),
    ("a backslash for a host", "http://\\@example.com/a", 227),
    ("a port beyond all", "http://example.com:99999/a", 227),
    ("half of a bracket", "http://[::1/a", 227),
    ("a blank", "http://example.com/a b", 227),
    ("a line end", "http://example.com/a\r\nHost: evil.example", 227),
    ("a NUL", "http://example.com/a\0", 227),
    ("a blank before", " http://example.com/a", 227),
];

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_named_by_url_and_never_fetched() {
    let mut scene = Scene::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let own = format!("http://{}/a.jpg", listener.local_addr().expect("a bound port"));
    let path = format!("{SEND}?tsid={}&app_id=1", scene.serve.tsid);
    let send = |kind: &str, url: &str| json!({"dest": "media", "mtype": kind, "mdata": url}).to_string();
    let headers = [("content-type", JSON.as_bytes())];
    for (name, url, code) in URLS {
        let answer = scene.post(&path, &headers, send("image", url)).await;
        let expected = if *code == LOGGED { Fate::Logged } else { refused(*code) };
        scene.judge(name, &answer, expected).await;
    }
    for kind in ["image", "audio", "video", "file"] {
        let answer = scene.post(&path, &headers, send(kind, &own)).await;
        let id = scene.judge(kind, &answer, Fate::Logged).await;
        eventually("the message to be sent", || async {
            let row = scene.serve.row(RowId(id)).await;
            if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }
    listener.set_nonblocking(true).expect("a listener may be asked");
    assert!(listener.accept().is_err(), "an asset was fetched");
    scene.end().await;
}

/// A carrier of a token: the query, the header `Authorization`, the value of `tsid` in the body.
struct Carrier {
    name: &'static str,
    query: String,
    authorization: Vec<u8>,
    tsid: Option<String>,
    expected: Fate,
}

fn carriers(good: &str, other: &str) -> Vec<Carrier> {
    let fate = |code| if code == LOGGED { Fate::Logged } else { Fate::Refused(401, code) };
    let header = |name, value: &[u8], code| Carrier {
        name,
        query: String::new(),
        authorization: value.to_vec(),
        tsid: None,
        expected: fate(code),
    };
    let body = |name, tsid: &str, code| Carrier { tsid: Some(tsid.to_owned()), ..header(name, b"", code) };
    let query = |name, query: String, code| Carrier {
        query,
        ..header(name, format!("Bearer {good}").as_bytes(), code)
    };
    let swapped: String = good
        .chars()
        .map(|letter| match letter.is_lowercase() {
            true => letter.to_ascii_uppercase(),
            false => letter.to_ascii_lowercase(),
        })
        .collect();
    vec![
        header("Bearer alone", b"Bearer", 100),
        header("another scheme", format!("Basic {good}").as_bytes(), 100),
        header("no scheme", good.as_bytes(), 100),
        header("a header that is no text", b"Bearer \xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe", 100),
        header("a token of other letters", "Bearer ééééééééééééé".as_bytes(), 102),
        header("two tokens in one", format!("Bearer {good} {good}").as_bytes(), 102),
        header("20 KB", format!("Bearer {}", "x".repeat(20 * 1024)).as_bytes(), 102),
        header("blanks around", format!("Bearer   {good} ").as_bytes(), LOGGED),
        header("the scheme in capitals", format!("BEARER {good}").as_bytes(), LOGGED),
        body("letters in the other case", &quoted(&swapped), 102),
        body("the identifier alone", &quoted(&good[..10]), 102),
        body("all but the last letter", &quoted(&good[..good.len() - 1]), 102),
        body("one letter more", &quoted(&format!("{good}x")), 102),
        body("the identifier of another token", &quoted(&format!("{}{}", &other[..10], &good[10..])), 102),
        body("a NUL behind", &quoted(&format!("{good}\0")), 102),
        body("a blank within", &quoted(&format!("{} {}", &good[..15], &good[15..])), 102),
        body("64 letters of two bytes", &quoted(&"é".repeat(64)), 102),
        body("60 KB", &quoted(&"x".repeat(60 * 1024)), 102),
        body("SQL that is always true", &quoted("' or '1'='1' --"), 102),
        body("a pattern of SQL", &quoted(&format!("{}%", &good[..10])), 102),
        body("a number", "1234567890123", 102),
        body("an array", &format!("[{}]", quoted(good)), 102),
        body("an operator of a database", r#"{"$ne":null}"#, 102),
        body("blanks around", &quoted(&format!(" {good}\u{200b}\r\n")), LOGGED),
        query("a wrong one in the query", "tsid=0123456789wrong".to_owned(), 102),
        query("a wrong one under the other name", "sid=0123456789wrong".to_owned(), 102),
        query("two in the query", format!("tsid={good}&tsid=0123456789wrong"), 102),
        query("a blank one in the query", "tsid=%20".to_owned(), LOGGED),
        query("a name in capitals", "TSID=0123456789wrong".to_owned(), LOGGED),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_count_whole_and_in_order() {
    let mut scene = Scene::start().await;
    let other = scene.command(&["account", "add", "--name", "Other"]).await;
    let other = other["tsid"].as_str().expect("a token").to_owned();
    for carrier in carriers(&scene.serve.tsid.clone(), &other) {
        let Carrier { name, query, authorization, tsid, expected } = carrier;
        let mut headers = vec![("content-type", JSON.as_bytes())];
        if !authorization.is_empty() {
            headers.push(("authorization", authorization.as_slice()));
        }
        let body = match tsid {
            Some(tsid) => with("tsid", &tsid),
            None => with("app_id", "1"),
        };
        let answer = scene.post(&format!("{SEND}?{query}"), &headers, body).await;
        scene.judge(name, &answer, expected).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_checked_or_ignored() {
    let mut scene = Scene::start().await;
    let bearer = format!("Bearer {}", scene.serve.tsid);
    let (long, longest) = ("k".repeat(256), "k".repeat(255));
    let cases: [(&str, &str, &[u8], Fate); 10] = [
        ("a key of 256 characters", "idempotency-key", long.as_bytes(), refused(INVALID)),
        ("a key of 255 characters", "idempotency-key", longest.as_bytes(), Fate::Logged),
        ("a key that is no text", "idempotency-key", b"\xff\xfe", refused(INVALID)),
        ("a blank key", "idempotency-key", b" ", refused(INVALID)),
        ("another method", "x-http-method-override", b"DELETE", Fate::Logged),
        ("another path", "x-original-url", b"/metrics", Fate::Logged),
        ("another client", "forwarded", b"for=10.0.0.1;host=evil.example", Fate::Logged),
        ("another host", "x-forwarded-host", b"evil.example", Fate::Logged),
        ("a wait that is no number", "prefer", b"wait=soon", Fate::Logged),
        ("another origin", "origin", b"https://evil.example", Fate::Logged),
    ];
    for (case, name, value, expected) in cases {
        let headers =
            [("authorization", bearer.as_bytes()), ("content-type", JSON.as_bytes()), (name, value)];
        let answer = scene.post(SEND, &headers, with("app_id", "1")).await;
        scene.judge(case, &answer, expected).await;
        scene.expect(case, answer.headers.contains_key("access-control-allow-origin"), false);
    }
    scene.end().await;
}
