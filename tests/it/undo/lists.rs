//! `GET /api/v2/messages` with its filters, `GET /api/v2/messages/export` and `GET /api/v2/campaigns`.

use meta_dispatch::store::LogRow;
use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{EMBEDDED, SERVERS, later};
use crate::support::pipeline::{Backend, Pipeline};

impl Pipeline {
    async fn dests(&self, query: &str) -> Vec<String> {
        let page = self.read(&format!("messages?{query}")).await;
        let rows = page["messages"].as_array().expect("a list");
        rows.iter().map(|row| row["dest"].as_str().expect("a text").to_owned()).collect()
    }

    async fn exported(&self, query: &str) -> (String, String) {
        let url = format!("http://{}/api/v2/messages/export?{query}", self.http);
        let request = self.client.get(url).bearer_auth(self.tsid.expose_secret());
        let answer = request.send().await.expect("ingest answers");
        assert_eq!(answer.status().as_u16(), 200);
        let content_type = answer.headers()["content-type"].to_str().expect("a text").to_owned();
        (content_type, answer.text().await.expect("the answer is whole"))
    }
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn filters_take_several_values_errors_and_times(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    for (dest, msg_id) in [("ann", "a"), ("code10-bob", "b"), ("code551-cleo", "c")] {
        let id = pipeline.text(dest, json!({"msg_id": msg_id})).await;
        pipeline.outcome(id).await;
    }
    pipeline.text("dan", json!({"msg_id": "d", "send_at": later()})).await;
    let all = ["dan", "code551-cleo", "code10-bob", "ann"];
    assert_eq!(pipeline.dests("status=PENDING,OK,ERROR").await, all);
    assert_eq!(pipeline.dests("status=PENDING,ERROR").await, all[..3]);
    assert_eq!(pipeline.dests("msg_id=a,c,nobody%27s").await, ["code551-cleo", "ann"]);
    assert_eq!(pipeline.dests("error_code=551").await, ["code551-cleo"]);
    assert_eq!(pipeline.dests("error_kind=refused").await, ["code551-cleo", "code10-bob"]);
    assert_eq!(pipeline.dests("error_kind=expired").await, [] as [&str; 0]);
    assert_eq!(pipeline.dests("since=2020-01-01T00:00:00Z&until=4070908800").await, all);
    assert_eq!(pipeline.dests("until=2020-01-01T00:00:00Z").await, [] as [&str; 0]);
    for (query, name) in [("since=x", "since"), ("error_kind=x", "error_kind"), ("status=OK,x", "status")] {
        let (status, answer) = pipeline.api(Method::GET, &format!("messages?{query}")).await;
        let expected = json!(format!("Invalid parameter: {name}"));
        assert_eq!((status, &answer["return"]["status"]), (400, &expected), "{query}");
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn export_is_whole_and_oldest_first(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let mut ids = Vec::new();
    for n in 0..1_203 {
        let line = json!({"app_id": pipeline.messenger.0, "dest": format!("d{n}"), "mdata": "=1+1,\"x\"\nü", "cp_id": "c"});
        ids.push(line.to_string());
    }
    let url = format!("http://{}/api/v2/messages/batch?class=messenger&send_at={}", pipeline.http, later());
    let sent = pipeline.client.post(url).bearer_auth(pipeline.tsid.expose_secret());
    let sent = sent.header("content-type", "application/x-ndjson").body(ids.join("\n")).send().await;
    assert_eq!(sent.expect("ingest answers").status().as_u16(), 200);
    let (content_type, text) = pipeline.exported("cp_id=c&format=ndjson").await;
    assert_eq!(content_type, "application/x-ndjson");
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let dests: Vec<&str> = rows.iter().filter_map(|row| row["dest"].as_str()).collect();
    assert!(
        dests.iter().copied().eq((0..1_203)
            .map(|n| format!("d{n}"))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str))
    );
    let (content_type, text) = pipeline.exported("cp_id=c").await;
    assert_eq!(content_type, "text/csv");
    assert_eq!(text.lines().next(), Some(LogRow::COLUMNS.join(",").as_str()));
    assert_eq!(text.matches(",\"'=1+1,\"\"x\"\"\nü\",").count(), 1_203);
    assert_eq!(text.matches("\r\n").count(), 1_204);
    let (_, none) = pipeline.exported("cp_id=nothing").await;
    assert_eq!(none, format!("{}\r\n", LogRow::COLUMNS.join(",")));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn campaigns_are_listed_newest_first(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    for (label, dest) in [("first", "ann"), ("second", "code10-bob"), ("third", "cleo")] {
        let id = pipeline.text(dest, json!({"cp_id": label})).await;
        pipeline.outcome(id).await;
    }
    pipeline.text("dan", json!({"cp_id": "third", "send_at": later()})).await;
    let (_, paused) = pipeline.api(Method::POST, "campaigns/first/pause").await;
    assert_eq!(paused["state"], "paused");
    let labels = async |query: &str| {
        let page = pipeline.read(&format!("campaigns?{query}")).await;
        let campaigns = page["campaigns"].as_array().expect("a list").clone();
        assert!(campaigns.iter().all(|campaign| campaign.get("errors").is_none()), "{page}");
        let labels: Vec<String> =
            campaigns.iter().map(|campaign| campaign["cp_id"].as_str().expect("a text").to_owned()).collect();
        (labels, page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(labels("").await, (vec!["third".into(), "second".into(), "first".into()], None));
    let (page, next) = labels("limit=2").await;
    assert_eq!(page, ["third", "second"]);
    let after = format!("limit=2&after={}", next.expect("there is more"));
    assert_eq!(labels(&after).await, (vec!["first".into()], None));
    for (state, expected) in [("running", "third"), ("finished", "second"), ("paused", "first")] {
        assert_eq!(labels(&format!("state={state}")).await.0, [expected], "{state}");
    }
    assert_eq!(labels("state=cancelled").await.0, [] as [&str; 0]);

    let second = pipeline.read("campaigns/second").await;
    let errors = json!([{"error_code": 10, "error_subcode": 2_018_278, "error_kind": "refused", "rows": 1}]);
    assert_eq!((&second["errors"], &second["delivered"], &second["read"]), (&errors, &json!(0), &json!(0)));
    assert_eq!(second["lines"][0]["app_id"], pipeline.messenger.0);
    let (_, cancelled) = pipeline.api(Method::POST, "campaigns/second/cancel").await;
    assert_eq!(cancelled["state"], "cancelled");
    let (status, refused) = pipeline.api(Method::POST, "campaigns/second/resume").await;
    assert_eq!((status, &refused["return"]["status_code"]), (400, &json!(247)));
    assert!(refused["return"]["detail"].as_str().is_some_and(|detail| detail.contains("cannot be resumed")));
    pipeline.stop().await;
}
