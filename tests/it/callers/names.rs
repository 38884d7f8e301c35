//! Names that a call does not know: refused where a filter or an option would be missed, told where they are ignored.

use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline};

async fn ask(pipeline: &Pipeline, method: reqwest::Method, path: &str) -> (u16, Value) {
    let url = format!("http://{}/api/v2/{path}", pipeline.http);
    let request = pipeline.client.request(method, url).bearer_auth(pipeline.tsid.expose_secret());
    let answer = request.send().await.expect("ingest answers");
    (answer.status().as_u16(), answer.json().await.expect("answers are JSON"))
}

#[rstest]
#[case("GET", "messages?cpid=spring", "cpid", "`cp_id`")]
#[case("GET", "messages?limit=5&colour=red", "colour", "no parameter")]
#[case("GET", "messages/1?verbose=1", "verbose", "no parameter")]
#[case("GET", "campaigns/spring?limit=5", "limit", "no parameter")]
#[case("POST", "campaigns/spring/pause?force=1", "force", "no parameter")]
#[case("POST", "messages/batch?sendat=now", "sendat", "`send_at`")]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_query_parameter_is_named(
    #[case] method: &str,
    #[case] path: &str,
    #[case] name: &str,
    #[case] word: &str,
) {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let method: reqwest::Method = method.parse().expect("a method");
    let url = format!("http://{}/api/v2/{path}", pipeline.http);
    let request = pipeline.client.request(method, url).bearer_auth(pipeline.tsid.expose_secret());
    let request = request.header("Content-Type", "application/x-ndjson").body("{}\n");
    let answer = request.send().await.expect("ingest answers");
    assert_eq!(answer.status().as_u16(), 400);
    let answer: Value = answer.json().await.expect("answers are JSON");
    assert_eq!(answer["return"]["status"], format!("Invalid parameter: {name}"));
    assert_eq!(answer["return"]["status_code"], 229);
    assert!(answer["return"]["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{answer}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_before_unknown_names_and_are_always_known() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let tsid = pipeline.tsid.expose_secret();
    for path in ["messages", "messages/1", "campaigns/x"] {
        let url = format!("http://{}/api/v2/{path}?colour=red", pipeline.http);
        assert_eq!(reqwest::get(url).await.expect("it answers").status().as_u16(), 401, "{path}");
        let (status, answer) =
            ask(&pipeline, reqwest::Method::GET, &format!("{path}?sid={tsid}&tsid={tsid}")).await;
        assert_ne!(answer["return"]["status_code"], 229, "{status} {path}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_name_is_told_and_the_message_accepted() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let told = async |content_type: &str, body: String| {
        let answered = pipeline.send(content_type, body).await;
        assert_eq!(answered.status, 200);
        answered.detail().to_owned()
    };
    let form = "dest=1&mdata=hi&sendat=2030-01-01&agente=7&lang=pt";
    assert_eq!(told("", form.to_owned()).await, "`sendat` is not a parameter; did you mean `send_at`?");
    let json = json!({"dest": "2", "mdata": "hi", "prioriy": "high", "destt": "x", "agente": 7});
    let detail = told("application/json", json.to_string()).await;
    assert!(detail.contains("`priority`") && detail.contains("`dest`"), "{detail}");
    assert_eq!(told("", "dest=3&mdata=hi&agente=7&token=x&id=5".to_owned()).await, "");
    pipeline.stop().await;
}
