//! Requests as bytes: lengths that contradict each other, chunks, line ends, methods, targets, heads.
//!
//! hyper reads them; docs/security.md names what it takes that RFC 9112 would have refused.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scene::{SEND, Scene, TEXT};

/// A head and its end, the statuses of all answers on its connection, and how many rows they log.
struct Case {
    name: &'static str,
    request: Vec<u8>,
    statuses: Vec<u16>,
    logged: i64,
}

/// The request behind each case: a server that reads another length before it gives another answer.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const SERVED: [u16; 2] = [200, 404];
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
const KIB: usize = 1024;

fn post(headers: &str, body: &str) -> String {
    format!("POST {SEND} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

/// Return the body in one chunk, with these trailers.
fn chunked(body: &str, trailers: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len())
}

fn case(name: &'static str, request: impl Into<Vec<u8>>, statuses: &[u16], logged: i64) -> Case {
    Case { name, request: request.into(), statuses: statuses.to_vec(), logged }
}

fn served(name: &'static str, request: impl Into<Vec<u8>>) -> Case {
    case(name, request, &SERVED, 1)
}

/// A request that is refused with this status, and its connection closed.
fn closed(name: &'static str, status: u16, request: impl Into<Vec<u8>>) -> Case {
    case(name, request, &[status], 0)
}

fn parameters(tsid: &str) -> String {
    format!("tsid={tsid}&app_id=1&dest=framing&mdata={TEXT}")
}

fn lengths(tsid: &str) -> Vec<Case> {
    let form = parameters(tsid);
    let length = format!("Content-Length: {}\r\n", form.len());
    let with = |headers: &str| post(headers, &form);
    let coded = |headers: &str| post(headers, &chunked(&form, ""));
    let behind = get(&format!("{SEND}?{form}"), "");
    vec![
        served("a length", with(&length)),
        served("two equal lengths", with(&format!("{length}{length}"))),
        closed("two lengths", 400, with(&format!("{length}Content-Length: 6\r\n"))),
        closed("a list of lengths", 400, with("Content-Length: 5, 5\r\n")),
        closed("a length with a sign", 400, with("Content-Length: +5\r\n")),
        closed("a length below zero", 400, with("Content-Length: -1\r\n")),
        closed("a length of 2^64", 400, with("Content-Length: 18446744073709551616\r\n")),
        closed("a length in hexadecimal", 400, with("Content-Length: 0x10\r\n")),
        closed("an empty length", 400, with("Content-Length:\r\n")),
        closed("a length of 10 GB", 413, with("Content-Length: 10737418240\r\n")),
        closed(
            "a length of 1 MB, after leave",
            413,
            post("Content-Length: 1048576\r\nExpect: 100-continue\r\n", ""),
        ),
        case("a body after leave", with(&format!("{length}Expect: 100-continue\r\n")), &[100, 200, 404], 1),
        served("an unknown expectation", with(&format!("{length}Expect: 200-ok\r\n"))),
        // Closed behind the chunks, so that no other reading of the length matters.
        case("a length and chunks", coded(&format!("Content-Length: 4\r\n{CHUNKED}")), &[200], 1),
        case(
            "chunks and a length, another message behind",
            coded(&format!("{CHUNKED}Content-Length: 4\r\n")) + &behind,
            &[200],
            1,
        ),
        served("chunked named twice", coded("Transfer-Encoding: chunked, chunked\r\n")),
        served("identity before chunked", coded("Transfer-Encoding: identity, chunked\r\n")),
        served("a tab before chunked", coded("Transfer-Encoding:\tchunked\r\n")),
        closed("an unknown coding", 400, coded("Transfer-Encoding: xchunked\r\n")),
        closed("a coding behind chunked", 400, coded(&format!("{CHUNKED}Transfer-Encoding: gzip\r\n"))),
        closed("a list that ends in no chunks", 400, coded("Transfer-Encoding: chunked, identity\r\n")),
        closed("a blank before the colon", 400, coded("Transfer-Encoding : chunked\r\n")),
        closed(
            "chunks in HTTP/1.0",
            400,
            format!("POST {SEND} HTTP/1.0\r\nHost: x\r\n{CHUNKED}\r\n{}", chunked(&form, "")),
        ),
        served("a body behind GET", get(SEND, &length) + &form),
        closed(
            "a body that nobody reads",
            404,
            format!(
                "POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 204800\r\n\r\n{}",
                "x".repeat(200 * KIB)
            ),
        ),
    ]
}

fn chunks(tsid: &str) -> Vec<Case> {
    let form = parameters(tsid);
    let size = form.len();
    let with = |body: &str| post(CHUNKED, body);
    vec![
        served("a chunk", with(&chunked(&form, ""))),
        served("a chunk with an extension", with(&format!("{size:x};a=b\r\n{form}\r\n0\r\n\r\n"))),
        closed(
            "an extension of 1 MB",
            400,
            with(&format!("{size:x};{}\r\n{form}\r\n", "a".repeat(KIB * KIB))),
        ),
        closed("a chunk of 2^64 bytes", 413, with(&format!("FFFFFFFFFFFFFFFF\r\n{}", "x".repeat(70 * KIB)))),
        closed("a size of 17 digits", 400, with(&format!("{}\r\n{form}\r\n0\r\n\r\n", "1".repeat(17)))),
        closed("a size that is no number", 400, with(&format!("zz\r\n{form}\r\n0\r\n\r\n"))),
        closed("a size below zero", 400, with(&format!("-1\r\n{form}\r\n0\r\n\r\n"))),
        closed("a line feed alone behind a size", 400, with(&format!("{size:x}\n{form}\r\n0\r\n\r\n"))),
        closed("a chunk longer than its size", 400, with(&format!("{size:x}\r\n{form}XX\r\n0\r\n\r\n"))),
        closed("10,000 trailers", 400, with(&chunked(&form, &"A: b\r\n".repeat(10_000)))),
        case(
            "the token in a trailer",
            with(&chunked(
                &format!("app_id=1&dest=framing&mdata={TEXT}"),
                &format!("Authorization: Bearer {tsid}\r\n"),
            )),
            &[401, 404],
            0,
        ),
    ]
}

fn lines(tsid: &str) -> Vec<Case> {
    let form = parameters(tsid);
    let length = form.len();
    let with = |header: &str| get("/none", header);
    vec![
        served(
            "line feeds alone",
            format!("POST {SEND} HTTP/1.1\nHost: x\nContent-Length: {length}\n\n{form}"),
        ),
        served("100 empty lines before", "\r\n".repeat(100) + &get(&format!("{SEND}?{form}"), "")),
        closed(
            "a carriage return alone",
            400,
            format!("POST {SEND} HTTP/1.1\r\nHost: x\rContent-Length: {length}\r\n\r\n{form}"),
        ),
        closed("a folded header", 400, with("X-A: a\r\n b\r\n")),
        closed("a NUL in a header", 400, with("X-A: a\0b\r\n")),
        closed("a blank in a header's name", 400, with("X A: a\r\n")),
        closed("a header without a name", 400, with(": a\r\n")),
        closed("a NUL in the target", 400, get("/a\0b", "")),
        closed("a control character in the target", 400, get("/a\u{7f}b", "")),
        closed("a blank in the target", 400, get("/a b", "")),
        closed("two blanks before the target", 400, get(" /a", "")),
        closed("no version", 400, "GET /a\r\nHost: x\r\n\r\n"),
        closed("HTTP/2.0 in a line", 400, "GET /a HTTP/2.0\r\nHost: x\r\n\r\n"),
        closed("an unknown version", 400, "GET /a HTTP/1.2\r\nHost: x\r\n\r\n"),
        closed("a version in small letters", 400, "GET /a http/1.1\r\nHost: x\r\n\r\n"),
        closed("the hello of TLS", 400, &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        case("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], 0),
        case(
            "an upgrade to HTTP/2",
            with(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
            &[404, 404],
            0,
        ),
        closed("a close that is taken back", 404, with("Connection: close\r\nConnection: keep-alive\r\n")),
    ]
}

fn methods_and_sizes(tsid: &str) -> Vec<Case> {
    let form = parameters(tsid);
    let target = format!("{SEND}?{form}");
    let other = |method: &str, target: &str, headers: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
    };
    let bearer = format!("Authorization: Bearer {tsid}\r\n");
    let preflight = "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n";
    let filler = |length: usize| format!("X-Filler: {}\r\n", "x".repeat(length));
    vec![
        served("the target of another host", get(&format!("http://evil.example{target}"), "")),
        case(
            "CONNECT",
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
            &[404, 404],
            0,
        ),
        case("TRACE", other("TRACE", SEND, &bearer), &[405, 404], 0),
        case("OPTIONS of everything", other("OPTIONS", "*", ""), &[404, 404], 0),
        case("a preflight", other("OPTIONS", SEND, preflight), &[405, 404], 0),
        case("DELETE", other("DELETE", &target, ""), &[405, 404], 0),
        case("PUT", other("PUT", &target, ""), &[405, 404], 0),
        case("a method in small letters", other("get", &target, ""), &[405, 404], 0),
        case("another method in a header", get("/none", "X-HTTP-Method-Override: POST\r\n"), &[404, 404], 0),
        case("HEAD of a send", other("HEAD", &target, ""), &[405, 404], 0),
        case("HEAD of a list", other("HEAD", "/api/v2/messages", &bearer), &[200, 404], 0),
        closed("a method of 100 KB", 431, other(&"X".repeat(100 * KIB), "/", "")),
        closed("a target of 70 KB", 431, get(&format!("/{}", "x".repeat(70 * KIB)), "")),
        closed("a query of 60 KB", 431, get(&format!("{target}&x={}", "x".repeat(60 * KIB)), "")),
        served("a query of 20 KB", get(&format!("{target}&x={}", "x".repeat(20 * KIB)), "")),
        closed("a header of 100 KB", 431, get(&target, &filler(100 * KIB))),
        served("100 headers", get(&target, &"A: b\r\n".repeat(99))),
        closed("101 headers", 431, get(&target, &"A: b\r\n".repeat(100))),
        closed("10,000 headers", 431, get(&target, &"A: b\r\n".repeat(10_000))),
        case("500 requests at once", get("/none", "").repeat(500), &[404; 501], 0),
    ]
}

/// Return the statuses of all answers in these bytes.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let lines = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12));
    lines.filter_map(|status| status.parse().ok()).collect()
}

#[test]
fn statuses_of_pipelined_answers_are_read() {
    let answers = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 404 Not Found\r\n\r\n";
    assert_eq!(statuses(answers), [100, 200, 404]);
    assert_eq!(statuses(b""), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_one_length_and_one_answer_each() {
    let mut scene = Scene::start().await;
    let tsid = scene.serve.tsid.clone();
    for Case { name, mut request, statuses: expected, logged } in
        [lengths(&tsid), chunks(&tsid), lines(&tsid), methods_and_sizes(&tsid)].into_iter().flatten()
    {
        request.extend(LAST.as_bytes());
        let answers = scene.exchange(name, &request).await;
        scene.expect(name, statuses(&answers), expected);
        let text = String::from_utf8_lossy(&answers).to_ascii_lowercase();
        scene.expect(name, text.contains("access-control-"), false);
        scene.settle(name, &answers, logged).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn body_that_breaks_off_is_not_logged() {
    let mut scene = Scene::start().await;
    let form = parameters(&scene.serve.tsid);
    let request = post(&format!("Content-Length: {}\r\n", form.len() + 1), &form);
    let mut stream = TcpStream::connect(("127.0.0.1", scene.serve.http)).await.expect("the process listens");
    stream.write_all(request.as_bytes()).await.expect("it is written");
    stream.shutdown().await.expect("the client ends");
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.expect("the process ends the connection");
    scene.expect("a body that breaks off", statuses(&answers), vec![400]);
    scene.settle("a body that breaks off", &answers, 0).await;
    scene.end().await;
}
