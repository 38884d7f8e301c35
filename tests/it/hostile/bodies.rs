//! Bodies of a single message: JSON, forms, multipart, encodings. A body is read as its type says, or refused by name.

use meta_dispatch::domain::RowId;

use super::scene::{Answer, Fate, JSON, SEND, Scene, TEXT, refused};

/// A body, and the text that is logged, or the refusal.
struct Case {
    name: &'static str,
    content_type: &'static str,
    coding: &'static str,
    body: Vec<u8>,
    expected: Result<&'static str, Fate>,
}

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=b";
const MALFORMED: i64 = 400;

fn read(
    name: &'static str,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
    text: &'static str,
) -> Case {
    Case { name, content_type, coding: "", body: body.into(), expected: Ok(text) }
}

fn wrong(name: &'static str, content_type: &'static str, body: impl Into<Vec<u8>>, code: i64) -> Case {
    Case { name, content_type, coding: "", body: body.into(), expected: Err(refused(code)) }
}

fn coded(name: &'static str, coding: &'static str) -> Case {
    Case { coding, ..wrong(name, JSON, object(""), MALFORMED) }
}

/// Return a good object with more in it.
fn object(more: &str) -> String {
    format!(r#"{{"dest":"d","mdata":"{TEXT}"{more}}}"#)
}

/// Return an object with this text, as it is written in JSON.
fn with_text(text: &str) -> String {
    format!(r#"{{"dest":"d","mdata":{text}}}"#)
}

fn json() -> Vec<Case> {
    let deep = format!(r#","x":{}{}"#, "[".repeat(28_000), "]".repeat(28_000));
    let names: String = (0..4_500).map(|n| format!(r#","n{n}":1"#)).collect();
    let bytes = |before: &str, odd: &[u8]| [before.as_bytes(), odd, br#""}"#].concat();
    let utf_16: Vec<u8> = "\u{feff}{\"dest\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        read("28,000 levels under an ignored name", JSON, object(&deep), TEXT),
        read("4,500 ignored names", JSON, object(&names), TEXT),
        read("an ignored number beyond all", JSON, object(r#","x":1e400"#), TEXT),
        read("a name without letters", JSON, object(r#","":1"#), TEXT),
        read("a name twice", JSON, format!(r#"{{"mdata":"first","dest":"d","mdata":"{TEXT}"}}"#), TEXT),
        wrong(
            "levels without an end",
            JSON,
            format!(r#"{{"dest":"d","x":{}"#, "[".repeat(50_000)),
            MALFORMED,
        ),
        wrong("a leading zero", JSON, object(r#","x":01"#), MALFORMED),
        wrong("NaN", JSON, object(r#","x":NaN"#), MALFORMED),
        wrong("single quotes", JSON, "{'dest':'d'}", MALFORMED),
        wrong("a comment", JSON, object("/*x*/"), MALFORMED),
        wrong("a comma at the end", JSON, object(","), MALFORMED),
        wrong("two objects", JSON, object("") + &object(""), MALFORMED),
        wrong("an object in a text", JSON, r#""{\"dest\":\"d\"}""#, MALFORMED),
        wrong("a line feed within a text", JSON, with_text("\"a\nb\""), MALFORMED),
        wrong("half of a surrogate", JSON, with_text(r#""\ud800""#), MALFORMED),
        wrong("surrogates in the wrong order", JSON, with_text(r#""\udc00\ud800""#), MALFORMED),
        wrong("a NUL in a text", JSON, with_text(r#""a\u0000b""#), 229),
        wrong("a NUL in the JSON", JSON, "{\0}", MALFORMED),
        wrong("no UTF-8", JSON, bytes(r#"{"dest":"d","mdata":"a"#, b"\xff"), MALFORMED),
        wrong(
            "a character in more bytes than it needs",
            JSON,
            bytes(r#"{"dest":"d","mdata":"a"#, b"\xc0\xaf"),
            MALFORMED,
        ),
        wrong("UTF-16 cut in a character", JSON, utf_16[..utf_16.len() - 1].to_vec(), MALFORMED),
        wrong("the mark of UTF-32", JSON, &b"\xff\xfe\0\0{\0\0\0}\0\0\0"[..], MALFORMED),
        wrong("nothing in an object", JSON, "{}", 220),
        wrong("nothing", JSON, "", 220),
        wrong("one byte too many", JSON, object(&format!(r#","x":"{}""#, "x".repeat(64 * 1024))), 413),
    ]
}

fn types_and_codings() -> Vec<Case> {
    let entity = r#"<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>"#;
    vec![
        wrong("XML with an entity", "application/xml", entity, MALFORMED),
        wrong("HTML", "text/html", "<form>", MALFORMED),
        wrong("serialized PHP", "application/vnd.php.serialized", "O:8:\"stdClass\":0:{}", MALFORMED),
        wrong("UTF-7", "application/json; charset=utf-7", object(""), MALFORMED),
        wrong("UTF-32", "application/json; charset=utf-32", object(""), MALFORMED),
        wrong("a type with a type in it", "text/plain; application/json", object(""), MALFORMED),
        coded("gzip", "gzip"),
        coded("gzip before identity", "gzip, identity"),
        coded("brotli", "br"),
        coded("zstd", "zstd"),
        coded("a coding that nobody knows", "x-bomb"),
    ]
}

fn forms() -> Vec<Case> {
    let names = "a=1&".repeat(15_000);
    vec![
        read("15,000 ignored names", FORM, format!("{names}dest=d&mdata={TEXT}"), TEXT),
        read("a list's name for a token", FORM, format!("tsid[]=x&dest=d&mdata={TEXT}"), TEXT),
        read("a name twice", FORM, format!("mdata=first&dest=d&mdata={TEXT}"), TEXT),
        read("a character in more bytes than it needs", FORM, "dest=d&mdata=a%C0%AFb", "aÀ¯b"),
        read("broken escapes", FORM, "dest=d&mdata=100%25+%zz+%", "100% %zz %"),
        wrong("a NUL", FORM, "dest=d&mdata=a%00b", 229),
        wrong("JSON as a form", FORM, object(""), 220),
        wrong("nothing but separators", FORM, "&".repeat(60_000), 220),
        wrong("one byte too many", FORM, "x".repeat(64 * 1024 + 1), 413),
    ]
}

fn multipart() -> Vec<Case> {
    let part = |name: &str, headers: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{headers}\r\n{value}\r\n")
    };
    let good = part("dest", "", "d") + &part("mdata", "", TEXT);
    vec![
        read("800 ignored parts", MULTIPART, part("x", "", "1").repeat(800) + &good + "--b--\r\n", TEXT),
        wrong(
            "a part without a name",
            MULTIPART,
            "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
            MALFORMED,
        ),
        wrong("a part without a header", MULTIPART, "--b\r\n\r\nx\r\n--b--\r\n", MALFORMED),
        wrong(
            "a part whose header does not end",
            MULTIPART,
            "--b\r\nContent-Disposition: form-data",
            MALFORMED,
        ),
        wrong("another boundary", MULTIPART, good.replace("--b", "--c") + "--c--\r\n", MALFORMED),
        wrong("an end alone", MULTIPART, "--b--\r\n", MALFORMED),
        wrong("no end", MULTIPART, good.clone(), MALFORMED),
        wrong(
            "a part in an unknown encoding",
            MULTIPART,
            part("dest", "Content-Type: text/plain; charset=klingon\r\n", "d") + "--b--\r\n",
            MALFORMED,
        ),
        wrong("a form", MULTIPART, format!("dest=d&mdata={TEXT}"), MALFORMED),
    ]
}

async fn send(scene: &Scene, case: &Case) -> Answer {
    let bearer = format!("Bearer {}", scene.serve.tsid);
    let mut headers =
        vec![("authorization", bearer.as_bytes()), ("content-type", case.content_type.as_bytes())];
    if !case.coding.is_empty() {
        headers.push(("content-encoding", case.coding.as_bytes()));
    }
    scene.post(&format!("{SEND}?app_id=1"), &headers, case.body.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_as_declared_or_refused() {
    let mut scene = Scene::start().await;
    for case in [json(), types_and_codings(), forms(), multipart()].into_iter().flatten() {
        let name = format!("{} ({})", case.name, case.content_type);
        let answer = send(&scene, &case).await;
        let fate = match case.expected {
            Ok(_) => Fate::Logged,
            // The body's size has an HTTP status of its own.
            Err(Fate::Refused(_, 413)) => Fate::Refused(413, 413),
            Err(fate) => fate,
        };
        let id = scene.judge(&name, &answer, fate).await;
        if let (Ok(text), 1..) = (case.expected, id) {
            let logged = scene.serve.row(RowId(id)).await.mdata;
            scene.expect(&name, logged.as_str(), text);
        }
    }
    scene.end().await;
}
