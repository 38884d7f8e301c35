//! What senders ask afterwards over HTTP (docs/contract.md, section 3): messages and campaigns.

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::edge::tokens;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::without_detail;

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

impl Pipeline {
    async fn ask(&self, method: reqwest::Method, path: &str) -> (u16, Value) {
        self.ask_as(method, path, self.tsid.expose_secret()).await
    }

    async fn ask_as(&self, method: reqwest::Method, path: &str, token: &str) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .request(method, format!("http://{}/api/v2/{path}", self.http))
            .bearer_auth(token)
            .send()
            .await
            .expect("ingest answers");
        assert_eq!(answer.headers()[reqwest::header::CONTENT_TYPE], "application/json");
        let status = answer.status().as_u16();
        (status, without_detail(answer.json().await.expect("answers are JSON")))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::GET, path).await
    }

    async fn command(&self, path: &str) -> Value {
        let (status, answer) = self.ask(reqwest::Method::POST, path).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn submit_of(&self, cp_id: &str, dest: &str) -> RowId {
        let parameters =
            json!({ "app_id": self.messenger.0, "dest": dest, "mdata": "hello", "cp_id": cp_id });
        let (status, answer) = self.post(Class::MESSENGER, parameters).await;
        assert_eq!(status, 200, "{answer}");
        RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
    }

    async fn token_of_another_account(&self) -> String {
        let account = self.store.add_account("Other").await.expect("accounts can be added");
        let token = tokens::mint();
        let token = token.expose_secret();
        self.store
            .add_token(account, tokens::identifier(token).expect("long enough"), &tokens::hash(token))
            .await
            .expect("tokens can be added");
        token.to_owned()
    }
}

fn refusal(status: &str, code: i64) -> Value {
    json!({"return": {"status": status, "status_code": code, "messageId": "", "cdls_id": 0}})
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn message_is_shown_whole_to_its_account_only(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(id).await;
    let (status, row) = pipeline.get(&format!("messages/{id}")).await;
    assert_eq!((status, &row["cdls_id"], &row["status"]), (200, &json!(id), &json!("OK")));
    assert_eq!(row, serde_json::to_value(pipeline.row(id).await).expect("rows are JSON"));
    let columns = row.as_object().expect("an object").len();
    assert_eq!(columns, 28, "{row}");

    let missing = (404, refusal("Not found", 404));
    let other = pipeline.token_of_another_account().await;
    assert_eq!(pipeline.ask_as(reqwest::Method::GET, &format!("messages/{id}"), &other).await, missing);
    for absent in ["999999", "0", "-1", "x", "99999999999999999999", "%FF"] {
        assert_eq!(pipeline.get(&format!("messages/{absent}")).await, missing, "{absent}");
    }
    let list = pipeline.ask_as(reqwest::Method::GET, "messages", &other).await;
    assert_eq!(list, (200, json!({"messages": [], "next": null})));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_those_of_the_send_endpoints() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let get = async |path: &str| {
        let answer =
            reqwest::get(format!("http://{}/api/v2/{path}", pipeline.http)).await.expect("an answer");
        let status = answer.status().as_u16();
        (status, without_detail(answer.json().await.expect("JSON")))
    };
    for path in ["messages", "messages/1", "campaigns/c"] {
        assert_eq!(get(path).await, (401, refusal("fail authentication", 100)), "{path}");
        let unknown = format!("{path}?tsid=nosuchtoken1234567890");
        assert_eq!(get(&unknown).await, (401, refusal("SID not found", 102)), "{path}");
    }
    let tsid = pipeline.tsid.expose_secret();
    for name in ["tsid", "sid"] {
        assert_eq!(get(&format!("messages?{name}={tsid}")).await.0, 200);
    }
    for (query, name) in
        [("limit=0", "limit"), ("limit=1001", "limit"), ("status=SENT", "status"), ("after=%00", "after")]
    {
        let expected = (400, refusal(&format!("Invalid parameter: {name}"), 229));
        assert_eq!(get(&format!("messages?tsid={tsid}&{query}")).await, expected, "{query}");
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn cursor_walks_a_list_while_rows_are_added(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(pipeline.submit(&format!("d{n}"), "hello").await.0);
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let (status, page) = pipeline.get(&format!("messages?limit=3&after={after}")).await;
        assert_eq!(status, 200);
        seen.extend(
            page["messages"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|row| row["cdls_id"].as_i64().expect("an id")),
        );
        // What is added or changes its status meanwhile moves nothing on the pages that follow.
        pipeline.submit("later", "hello").await;
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    ids.reverse();
    assert_eq!(seen, ids);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn paused_campaign_waits_until_resumed(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    assert_eq!(pipeline.get("campaigns/spring").await, (404, refusal("Not found", 404)));
    assert_eq!(pipeline.ask(reqwest::Method::POST, "campaigns/spring/pause").await.0, 404);
    // A line at 4 a second has most of these waiting, in its owner's window, when the pause comes.
    pipeline.execute("update cd_v8_line set v8l_rate_text = 4").await;
    let dests: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
    let submitting = dests.iter().map(|dest| pipeline.submit_of("spring", dest));
    futures::future::join_all(submitting).await;
    let paused = pipeline.command("campaigns/spring/pause").await;
    let waiting = paused["counts"]["PENDING"].as_i64().expect("a number");
    assert_eq!((&paused["state"], &paused["eta"]), (&json!("paused"), &json!(null)));
    assert_eq!((&paused["touched"], &paused["total"]), (&json!(waiting), &json!(40)));
    assert!(waiting > 0, "{paused}");

    // Other messages of the line go on; by then whatever was in flight has ended.
    for n in 0..8 {
        let id = pipeline.submit(&format!("other{n}"), "hello").await;
        pipeline.expect_ok(id).await;
    }
    let calls = pipeline.simulator.calls().len();
    let (_, still) = pipeline.get("campaigns/spring").await;
    assert_eq!(still["state"], "paused");
    let ok = still["counts"]["OK"].as_i64().expect("a number");
    assert_eq!(calls as i64, ok + 8);
    assert!(ok < 40, "{still}");

    let resumed = pipeline.command("campaigns/spring/resume").await;
    assert_eq!(resumed["state"], "running");
    assert!(resumed["eta"].is_string() && resumed["touched"].as_i64() > Some(0), "{resumed}");
    eventually("the campaign to finish", || async {
        let (_, progress) = pipeline.get("campaigns/spring").await;
        if progress["state"] == "finished" && progress["counts"]["OK"] == 40 {
            Ok(())
        } else {
            Err(progress.to_string())
        }
    })
    .await;
    assert_eq!(pipeline.simulator.calls().len(), 48, "each was sent once");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_campaign_ends_and_takes_no_messages(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.execute("update cd_v8_line set v8l_rate_text = 5").await;
    for n in 0..40 {
        pipeline.submit_of("spring", &format!("d{n}")).await;
    }
    let waiter = {
        let parameters = json!({
            "app_id": pipeline.messenger.0, "dest": "last", "mdata": "hello", "cp_id": "spring", "wait": 30,
        });
        pipeline.post(Class::MESSENGER, parameters)
    };
    let cancel = async {
        eventually("the waiting request's row", || async {
            let (_, progress) = pipeline.get("messages?dest=last").await;
            if progress["messages"][0].is_object() { Ok(()) } else { Err(progress.to_string()) }
        })
        .await;
        pipeline.command("campaigns/spring/cancel").await
    };
    let (waited, cancelled) = tokio::join!(waiter, cancel);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["touched"].as_i64() > Some(1), "{cancelled}");
    assert_eq!(waited.0, 400);
    assert_eq!(waited.1["return"]["status"], "CANCELLED");

    let refused = json!({ "app_id": pipeline.messenger.0, "dest": "x", "mdata": "hello", "cp_id": "spring" });
    let refused = pipeline.post(Class::MESSENGER, refused).await.1;
    assert_eq!(without_detail(refused), refusal("Campaign cancelled", 247));
    let ended = eventually("every row to end", || async {
        let (_, progress) = pipeline.get("campaigns/spring").await;
        let counts = &progress["counts"];
        let going_on: i64 =
            ["PENDING", "RETRY", "SENDING"].iter().filter_map(|status| counts[*status].as_i64()).sum();
        if going_on == 0 { Ok(progress) } else { Err(progress.to_string()) }
    })
    .await;
    assert_eq!(ended["total"], 41);
    assert_eq!(ended["counts"]["OK"].as_i64(), Some(pipeline.simulator.calls().len() as i64));
    let (status, refused) = pipeline.ask(reqwest::Method::POST, "campaigns/spring/resume").await;
    assert_eq!((status, &refused["return"]["status_code"]), (400, &json!(247)), "{refused}");
    let again = pipeline.command("campaigns/spring/cancel").await;
    assert_eq!((&again["state"], &again["touched"]), (&json!("cancelled"), &json!(0)));
    let (_, rows) = pipeline.get("messages?cp_id=spring&status=CANCELLED&limit=1").await;
    assert_eq!(rows["messages"][0]["status"], Status::Cancelled.as_str());
    pipeline.stop().await;
}
