//! Ids, labels and tokens: trimmed alike in every way in; recipients that a spreadsheet has mangled.

use meta_dispatch::channel::Class;
use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::invalid;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline};

/// Characters that surround an id copied from a cell or a page.
const PADDING: [(&str, &str); 6] = [
    ("", " "),
    ("\t", "\r\n"),
    ("\u{a0}", "\u{202f}"),
    ("\u{feff}", "\u{200b}"),
    ("\u{200e}", "\u{200f}"),
    ("\u{2060}", "\u{ad}"),
];

fn padded(text: &str) -> Vec<String> {
    PADDING.iter().map(|(before, after)| format!("{before}{text}{after}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_labels_are_trimmed_in_every_way_in() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let line = pipeline.messenger.0;
    let mut csv = String::from("dest,mdata,cp_id,msg_id\n");
    for (dest, (label, reference)) in padded("253").iter().zip(padded("xmas").iter().zip(padded("A-1"))) {
        let body = json!({
            "app_id": format!(" {line}\u{a0}"), "dest": dest, "mdata": " hi ", "cp_id": label, "msg_id": reference,
        });
        assert_eq!(pipeline.send("application/json", body.to_string()).await.status, 200);
        let form: String = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("dest", dest),
                ("mdata", &" hi ".to_owned()),
                ("cp_id", label),
                ("msg_id", &reference),
            ])
            .finish();
        assert_eq!(pipeline.send("", form).await.status, 200);
        csv.push_str(&format!("\"{dest}\",\" hi \",\"{label}\",\"{reference}\"\n"));
    }
    let batch = pipeline.csv("", csv).await;
    assert_eq!((batch.status, batch.lines.len(), batch.duplicates), (200, 6, Some(5)));
    let rows = pipeline.rows().await;
    assert_eq!(rows.len(), 18);
    for row in rows {
        let ids = (row.dest.as_str(), row.cp_id.as_deref(), row.msg_id.as_deref(), row.mdata.as_str());
        assert_eq!(ids, ("253", Some("xmas"), Some("A-1"), " hi "));
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recipient_is_one_for_httpdup() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let line = pipeline.messenger.0;
    let send = async |dest: &str| {
        let parameters = json!({"app_id": line, "dest": dest, "mdata": "hi", "httpdup": 60});
        pipeline.post(Class::MESSENGER, parameters).await.1["return"]["status_code"].clone()
    };
    assert_eq!(send("777").await, 0);
    for dest in padded("777") {
        assert_eq!(send(&dest).await, 244, "{dest:?}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_paths_are_trimmed_as_the_ids_were() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let line = pipeline.messenger.0;
    let tomorrow = meta_dispatch::text::timestamp(time::OffsetDateTime::now_utc() + time::Duration::DAY);
    let waits = json!({
        "app_id": line, "dest": "253", "mdata": "hi", "cp_id": "xmas ", "msg_id": "A-1", "send_at": tomorrow,
    });
    assert_eq!(pipeline.post(Class::MESSENGER, waits).await.0, 200);
    let ask = async |method: Method, path: &str| -> (u16, Value) {
        let url = format!("http://{}/api/v2/{path}", pipeline.http);
        let request = pipeline.client.request(method, url).bearer_auth(pipeline.tsid.expose_secret());
        let answer = request.send().await.expect("ingest answers");
        (answer.status().as_u16(), answer.json().await.expect("answers are JSON"))
    };
    for filter in ["cp_id=xmas%20", "cp_id=%C2%A0xmas", "msg_id=A-1+&dest=%09253%E2%80%8B", "status=PENDING+"]
    {
        let (status, page) = ask(Method::GET, &format!("messages?{filter}")).await;
        assert_eq!((status, page["messages"].as_array().map(Vec::len)), (200, Some(1)), "{filter}");
    }
    let (status, cancelled) = ask(Method::POST, "campaigns/%C2%A0xmas%20/cancel").await;
    assert_eq!((status, &cancelled["cp_id"], &cancelled["touched"]), (200, &json!("xmas"), &json!(1)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_trimmed_wherever_it_stands() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let (line, tsid) = (pipeline.messenger.0, pipeline.tsid.expose_secret());
    let url = format!("http://{}/api/v2/MakeMessenger.php", pipeline.http);
    for token in padded(tsid) {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("tsid", &token).finish();
        let body = json!({"tsid": token, "app_id": line, "dest": "253", "mdata": "hi"});
        let in_json = pipeline.client.post(&url).json(&body).send().await.expect("ingest answers");
        assert_eq!(in_json.status().as_u16(), 200, "{token:?}");
        let list = format!("http://{}/api/v2/messages?{query}", pipeline.http);
        let in_query = pipeline.client.get(list).send().await.expect("ingest answers");
        assert_eq!(in_query.status().as_u16(), 200, "{token:?}");
    }
    let key = |key: &str| {
        let body = json!({"tsid": tsid, "app_id": line, "dest": "254", "mdata": "hi"});
        pipeline.client.post(&url).header("Idempotency-Key", key.as_bytes()).json(&body).send()
    };
    let first: Value = key("order-7").await.expect("it answers").json().await.expect("JSON");
    let again: Value = key("\u{a0}order-7\u{200b}").await.expect("it answers").json().await.expect("JSON");
    assert_eq!(first["return"]["cdls_id"], again["return"]["cdls_id"]);
    pipeline.stop().await;
}

#[rstest]
#[case("2.53193E+16", "export")]
#[case("2,53193E+15", "comma")]
#[case("2531927391.0", "point")]
#[case("2,531,927,391", "comma")]
#[case("'253", "quote")]
#[case("=\"253\"", "quote")]
#[case("=253", "formula")]
#[case("Ola Ana", "white space")]
#[case("253\u{200b}927", "invisible")]
#[case("#N/A", "spreadsheet")]
#[tokio::test(flavor = "multi_thread")]
async fn mangled_recipient_is_refused_in_words(#[case] dest: &str, #[case] word: &str) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let body = json!({"dest": dest, "mdata": "hi"});
    let refused = pipeline.send("application/json", body.to_string()).await;
    assert_eq!(refused.refusal(&["`dest`", word]), invalid("dest"));
    let quoted = dest.replace('"', "\"\"");
    let batch = pipeline.csv("", format!("dest,mdata\n\"{quoted}\",hi\n254,hi\n")).await;
    assert_eq!(batch.codes(), [(2, 229), (3, 0)]);
    assert!(
        batch.lines[0]["detail"].as_str().is_some_and(|detail| detail.contains(word)),
        "{}",
        batch.lines[0]
    );
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_typed_clients_are_told() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let url = "MakeMessenger.php";
    for (changes, code, words) in [
        (json!({"app_id": 1.0}), 210, ["point", "digits"]),
        (json!({"app_id": "1.0"}), 210, ["`1.0`", "digits"]),
        (json!({"wait": 1.5}), 229, ["0 to 30", "digits"]),
        (json!({"httpdup": false}), 229, ["0 to 600", "digits"]),
        (json!({"dest": 2531927391.5}), 229, ["point", "text"]),
        (json!({"mcaption": "x".repeat(2_001)}), 229, ["mcaption", "2000"]),
        (json!({"cp_id": "a\nb"}), 229, ["`cp_id`", "line end"]),
        (json!({"mtype": "Image"}), 226, ["Messenger", "image"]),
    ] {
        let mut body = json!({"app_id": pipeline.messenger, "dest": "253", "mdata": "hi"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let refused = pipeline.call(url, "application/json", body.to_string()).await;
        assert_eq!(refused.refusal(&words).2, code, "{changes}");
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn page_token_of_sql_works_with_a_line_end(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_line(Class::MESSENGER, &format!(" {PAGE_TOKEN}\r\n")).await;
    pipeline.execute(&format!("update cd_v8_line set v8l_fb_page_id = ' 1001 ' where v8l_id = {line}")).await;
    let id = pipeline.submit_on(line, "253", "hi").await;
    pipeline.expect_ok(id).await;
    let blank = pipeline.add_line(Class::MESSENGER, "\u{a0}\n").await;
    let parameters = json!({"app_id": blank.0, "dest": "253", "mdata": "hi"});
    assert_eq!(pipeline.post(Class::MESSENGER, parameters).await.1["return"]["status_code"], 233);
    pipeline.stop().await;
}
