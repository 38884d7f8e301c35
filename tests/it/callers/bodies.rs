//! Bodies of single messages: multipart, JSON under other names, byte order marks, encodings; and what is not read.

use rstest::rstest;
use serde_json::json;

use super::malformed;
use crate::support::pipeline::{Backend, Pipeline};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// A multipart body as curl and PHP write it.
fn multipart(fields: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--boundary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    fields.iter().map(part).chain(["--boundary--\r\n".to_owned()]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_fields_are_parameters() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let body =
        multipart(&[("dest", "253"), ("mdata", "Olá,\r\ntudo bem?"), ("msg_id", "7"), ("agente", "José")]);
    let answered = pipeline.send("multipart/form-data; boundary=boundary", body).await;
    assert_eq!((answered.status, answered.detail()), (200, ""));
    let row = pipeline.newest().await;
    assert_eq!(
        (row.dest.as_str(), row.mdata.as_str(), row.msg_id.as_deref()),
        ("253", "Olá,\r\ntudo bem?", Some("7"))
    );
    let token = pipeline.client.post(format!("http://{}/api/v2/MakeMessenger.php", pipeline.http));
    let line = pipeline.messenger.to_string();
    let tsid = secrecy::ExposeSecret::expose_secret(&pipeline.tsid);
    let body = multipart(&[("tsid", tsid), ("app_id", &line), ("dest", "254"), ("mdata", "hi")]);
    let answer =
        token.header("Content-Type", "multipart/form-data; boundary=boundary").body(body).send().await;
    assert_eq!(answer.expect("ingest answers").status().as_u16(), 200, "the token may be a field");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart_is_bounded_and_holds_no_files() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let with_boundary = "multipart/form-data; boundary=boundary";
    let file = "--boundary\r\nContent-Disposition: form-data; name=\"mdata\"; filename=\"a.png\"\r\n\r\nx\r\n--boundary--\r\n";
    let refused = pipeline.send(with_boundary, file).await;
    assert_eq!(refused.refusal(&["`mdata` is a file", "URL"]), malformed());
    let cut = multipart(&[("dest", "253"), ("mdata", "hi")]);
    let refused = pipeline.send(with_boundary, &cut.as_bytes()[..cut.len() - 20]).await;
    assert_eq!(refused.refusal(&["boundary"]), malformed());
    let refused = pipeline.send("multipart/form-data", cut).await;
    assert_eq!(refused.refusal(&["boundary"]), malformed());
    let long = multipart(&[("dest", "253"), ("mdata", &"x".repeat(64 * 1024))]);
    assert_eq!(pipeline.send(with_boundary, long).await.status, 413);
    assert!(pipeline.rows().await.is_empty());
    pipeline.stop().await;
}

#[rstest]
#[case("text/json")]
#[case("Application/JSON; charset=UTF-8")]
#[case("application/vnd.api+json")]
#[case("application/ld+json; profile=\"x\"")]
#[tokio::test(flavor = "multi_thread")]
async fn json_is_read_under_its_other_names(#[case] content_type: &str) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let body = json!({"dest": "253", "mdata": "Olá"}).to_string();
    assert_eq!(pipeline.send(content_type, body).await.status, 200);
    assert_eq!(pipeline.newest().await.mdata, "Olá");
    pipeline.stop().await;
}

#[rstest]
#[case("text/plain", "", "text/plain")]
#[case("*/*", "", "*/*")]
#[case("text/csv", "", "text/csv")]
#[case(JSON, "gzip", "gzip")]
#[case(FORM, "br", "br")]
#[case("application/json; charset=klingon", "", "klingon")]
#[tokio::test(flavor = "multi_thread")]
async fn unread_body_is_named(#[case] content_type: &str, #[case] coding: &str, #[case] named: &str) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
    let mut request = pipeline.client.post(url).header("Content-Type", content_type).body("{}");
    if !coding.is_empty() {
        request = request.header("Content-Encoding", coding);
    }
    let answer = request.send().await.expect("ingest answers");
    assert_eq!(answer.status().as_u16(), 400);
    let answer: serde_json::Value = answer.json().await.expect("answers are JSON");
    assert_eq!(answer["return"]["status"], "Malformed request");
    let detail = answer["return"]["detail"].as_str().expect("a detail");
    assert!(detail.contains(named), "{detail}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_without_its_type_is_told() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
    for content_type in ["", FORM] {
        let mut request = pipeline.client.post(&url).body(r#"{"tsid":"abcdefghijklmnop","dest":"253"}"#);
        if !content_type.is_empty() {
            request = request.header("Content-Type", content_type);
        }
        let answer = request.send().await.expect("ingest answers");
        let answer: serde_json::Value = answer.json().await.expect("answers are JSON");
        let detail = answer["return"]["detail"].as_str().expect("a detail");
        assert_eq!(answer["return"]["status_code"], 100);
        assert!(detail.contains("application/json") && !detail.contains("abcdefghij"), "{detail}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn byte_order_mark_is_read_everywhere() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let json = json!({"dest": "json", "mdata": "á"}).to_string();
    let line = format!("\u{feff}{}\n", json!({"app_id": pipeline.messenger, "dest": "ndjson", "mdata": "á"}));
    let utf16: Vec<u8> = format!("\u{feff}{json}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(pipeline.send(JSON, format!("\u{feff}{json}")).await.status, 200);
    assert_eq!(pipeline.send(JSON, utf16).await.status, 200);
    assert_eq!(pipeline.send(FORM, "\u{feff}dest=form&mdata=%C3%A1").await.status, 200);
    assert_eq!(pipeline.call("messages/batch", "application/x-ndjson", line).await.status, 200);
    assert_eq!(pipeline.csv("", "\u{feff}dest,mdata\ncsv,á\n").await.status, 200);
    let expected = ["json", "json", "form", "ndjson", "csv"].map(|dest| (dest.to_owned(), "á".to_owned()));
    assert_eq!(pipeline.texts().await, expected);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_form_are_decoded_one_by_one() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let sent = async |body: &[u8], content_type: &str| {
        let answered = pipeline.send(content_type, body).await;
        assert_eq!(answered.status, 200, "{}", answered.detail());
        (pipeline.newest().await.mdata, answered.detail().to_owned())
    };
    let plain = sent(b"dest=1&mdata=Ol%C3%A1+%F0%9F%98%80&agente=Jos%E9", FORM).await;
    assert_eq!(plain, ("Olá 😀".to_owned(), String::new()));
    let (text, detail) = sent(b"dest=2&mdata=%93Oferta%94+%96+10+%80+%99%81", FORM).await;
    assert_eq!(text, "“Oferta” – 10 € ™");
    assert!(detail.contains("`mdata`") && detail.contains("windows-1252"), "{detail}");
    let (text, detail) = sent(b"dest=3&mdata=Ol%C3%A1+Jo%C3%A3o+%F0%9F%98", FORM).await;
    assert_eq!((text.as_str(), detail.contains("`mdata`")), ("Olá João ", true));
    let declared = format!("{FORM}; charset=ISO-8859-1");
    assert_eq!(sent(b"dest=4&mdata=%80+%C3%A1", &declared).await, ("€ Ã¡".to_owned(), String::new()));
    let json = "{\"dest\":\"5\",\"mdata\":\"a\\u0093b\u{85}c\"}";
    assert_eq!(sent(json.as_bytes(), JSON).await.0, "abc", "no control character of C1 reaches a customer");
    let latin =
        sent(b"{\"dest\":\"6\",\"mdata\":\"ol\xe1 \x80\"}", "application/json; charset=windows-1252").await;
    assert_eq!(latin.0, "olá €");
    let refused = pipeline.send(JSON, b"{\"dest\":\"7\",\"mdata\":\"ol\xe1\"}".to_vec()).await;
    assert_eq!(refused.refusal(&["UTF-8", "charset"]), malformed());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_repeat_no_text_and_no_token() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let token = secrecy::ExposeSecret::expose_secret(&pipeline.tsid);
    for body in [
        json!({"dest": token, "mdata": "secret text", "app_id": token}).to_string(),
        json!({"dest": "1 2", "mdata": "secret text"}).to_string(),
        json!({"dest": "1", "mdata": "secret text".repeat(400)}).to_string(),
        json!({"dest": "1", "mtype": "image", "mdata": "secret text"}).to_string(),
        "[\"secret text\"]".to_owned(),
    ] {
        let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
        let request = pipeline.client.post(url).bearer_auth(token).header("Content-Type", JSON).body(body);
        let answer = request.send().await.expect("ingest answers").text().await.expect("it is complete");
        assert!(answer.contains("\"detail\":\""), "{answer}");
        assert!(!answer.contains("secret") && !answer.contains(token), "{answer}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_the_listener_is_unstored() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let token = secrecy::ExposeSecret::expose_secret(&pipeline.tsid);
    for path in
        ["api/v2/MakeMessenger.php", "api/v2/messages", "api/v2/messages/1", "api/v2/campaigns/x", "nothing"]
    {
        for method in [reqwest::Method::GET, reqwest::Method::POST, reqwest::Method::PUT] {
            let url = format!("http://{}/{path}", pipeline.http);
            let answer =
                pipeline.client.request(method, url).bearer_auth(token).send().await.expect("it answers");
            assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
        }
    }
    let batch = pipeline.csv("", "dest,mdata\n1,hi\n").await;
    assert_eq!(batch.status, 200);
    pipeline.stop().await;
}
