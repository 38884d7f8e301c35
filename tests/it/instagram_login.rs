//! Lines of Instagram Login and Unified Login: the host and path of their calls, tokens that the worker refreshes, tokens
//! that have ended, and an outage of one host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta_dispatch::channel::{Class, Login};
use meta_dispatch::domain::{LineId, RowId, Status};
use meta_dispatch::seal::is_sealed;
use meta_dispatch::simulator::{Simulator, SimulatorOptions, token_tag};
use meta_dispatch::store::{LineRecord, NewLine};
use reqwest::StatusCode;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;
const ACCOUNT: &str = "17841400000000017";
const TOKEN: &str = "IGAAfirsttokenthatmustnotappear";
const SYSTEM_TOKEN: &str = "EAAsystemusertoken";

async fn add_line(pipeline: &Pipeline, token: &str, login: Option<Login>, account: Option<&str>) -> LineId {
    let line = NewLine {
        id: None,
        account: pipeline.account,
        name: None,
        class: Class::INSTAGRAM,
        page_token: token.into(),
        page_id: None,
        instagram_account_id: account.map(str::to_owned),
        login,
        rate_text: None,
        rate_media: None,
    };
    pipeline.store.add_line(&line).await.expect("lines can be added")
}

async fn submit(pipeline: &Pipeline, line: LineId, dest: &str) -> RowId {
    let parameters = json!({"app_id": line.0, "dest": dest, "mdata": "hello"});
    let (status, answer) = pipeline.post(Class::INSTAGRAM, parameters).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
}

/// Tell the simulator who is behind the tokens.
async fn identify(pipeline: &Pipeline, simulator: &Simulator, identities: Value) {
    let url = format!("{}/simulator/pages", simulator.origin());
    let answer = pipeline.client.put(url).json(&identities).send().await.expect("the simulator answers");
    assert_eq!(answer.status(), StatusCode::OK);
}

fn tags(simulator: &Simulator) -> Vec<String> {
    simulator.calls().into_iter().map(|call| call.token).collect()
}

async fn record(pipeline: &Pipeline, line: LineId) -> LineRecord {
    pipeline.store.lines(&[line]).await.expect("the store answers").remove(0)
}

/// Note that the line's token ends in so many days.
async fn set_end(pipeline: &Pipeline, line: LineId, days: i64) {
    let version = record(pipeline, line).await.token_version;
    let end = OffsetDateTime::now_utc() + time::Duration::days(days);
    assert!(pipeline.store.note_token_end(line, version, Some(end)).await.expect("the store answers"));
}

async fn shown(pipeline: &Pipeline, line: LineId) -> Value {
    let url = format!("http://{}/api/v2/lines/{line}", pipeline.http);
    let request = pipeline.client.get(url).bearer_auth(pipeline.tsid.expose_secret());
    request.send().await.expect("it answers").json().await.expect("answers are JSON")
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn token_chooses_the_host_unless_the_line_does(#[case] backend: Backend) {
    crate::support::install_crypto();
    let instagram = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
    let base_url = instagram.base_url();
    let pipeline = Pipeline::start_with(backend, &[("graph.instagram_base_url", base_url.as_str())]).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    pipeline.expect_ok(submit(&pipeline, line, "ann").await).await;
    pipeline.expect_ok(submit(&pipeline, pipeline.instagram, "bob").await).await;
    pipeline.expect_ok(pipeline.submit("cid", "hi").await).await;
    assert_eq!(tags(&instagram), [token_tag(TOKEN)]);
    assert_eq!(tags(&pipeline.simulator), [token_tag(PAGE_TOKEN), token_tag(PAGE_TOKEN)]);

    let chosen = add_line(&pipeline, "IGAAchosen", Some(Login::Facebook), None).await;
    submit(&pipeline, chosen, "dan").await;
    eventually("a call at graph.facebook.com", || async {
        let tags = tags(&pipeline.simulator);
        if tags.contains(&token_tag("IGAAchosen")) { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .await;
    assert_eq!(tags(&instagram).len(), 1);
    pipeline.stop().await;
    instagram.shutdown().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn unified_line_waits_for_the_id_of_its_account(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let identity = json!({ SYSTEM_TOKEN: {"type": "SYSTEM_USER", "ig_id": ACCOUNT, "object": "instagram"} });
    identify(&pipeline, &pipeline.simulator, identity).await;
    let line = add_line(&pipeline, SYSTEM_TOKEN, Some(Login::Unified), None).await;
    let id = submit(&pipeline, line, "ann").await;
    let shown = shown(&pipeline, line).await;
    assert_eq!((&shown["state"], &shown["graph"]), (&json!("inactive"), &json!("unified")), "{shown}");
    assert!(
        shown["reason"].as_str().is_some_and(|reason| reason.contains("Instagram account id")),
        "{shown}"
    );
    assert_eq!(pipeline.row(id).await.attempts, 0);
    pipeline
        .execute(&format!("update cd_v8_line set v8l_ig_account_id = '{ACCOUNT}' where v8l_id = {line}"))
        .await;
    // The simulator refuses `me` of a system user.
    assert_eq!(pipeline.expect_ok(id).await.attempts, 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn token_is_refreshed_before_it_ends(#[case] backend: Backend) {
    let key = STANDARD.encode([1; 32]);
    let pipeline = Pipeline::start_with(backend, &[("security.key", key.as_str())]).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let identity =
        json!({ TOKEN: {"ig_id": ACCOUNT, "issued_at": now - 40 * 86_400, "expires_at": now + 20 * 86_400} });
    identify(&pipeline, &pipeline.simulator, identity).await;
    // The line was connected 40 days ago.
    pipeline
        .execute(&format!(
            "update cd_v8_line set v8l_pat_refreshed_at = '2020-01-01T00:00:00.000Z' where v8l_id = {line}"
        ))
        .await;
    let before = record(&pipeline, line).await;
    set_end(&pipeline, line, 20).await;
    let after = eventually("a new token", || async {
        let line = record(&pipeline, line).await;
        if line.token_version > before.token_version {
            Ok(line)
        } else {
            Err(format!("{:?}", line.token_error))
        }
    })
    .await;
    let stored = after.page_token.expect("it is set");
    assert!(is_sealed(stored.expose_secret()), "the new token is sealed");
    let left = after.token_expires_at.expect("it is known") - OffsetDateTime::now_utc();
    assert_eq!((left.whole_days(), after.token_error), (59, None));
    eventually("a call with the new token", || async {
        pipeline.expect_ok(submit(&pipeline, line, "ann").await).await;
        let last = tags(&pipeline.simulator).pop().unwrap_or_default();
        if last != token_tag(TOKEN) { Ok(()) } else { Err(last) }
    })
    .await;
    assert!(shown(&pipeline, line).await["token_expires_at"].is_string());
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_refresh_leaves_the_token_and_says_why(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    // Too young for Meta, and not for the row.
    identify(&pipeline, &pipeline.simulator, json!({ TOKEN: {"ig_id": ACCOUNT, "issued_at": now - 60} }))
        .await;
    pipeline
        .execute(&format!(
            "update cd_v8_line set v8l_pat_refreshed_at = '2020-01-01T00:00:00.000Z' where v8l_id = {line}"
        ))
        .await;
    set_end(&pipeline, line, 2).await;
    let error = eventually("the failure to be noted", || async {
        record(&pipeline, line).await.token_error.ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(error.contains("Graph code 100") && !error.contains("IGAA"), "{error}");
    pipeline.expect_ok(submit(&pipeline, line, "ann").await).await;
    assert_eq!(tags(&pipeline.simulator), [token_tag(TOKEN)]);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn ended_token_pauses_its_line_until_it_is_replaced(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    // A call before the worker knows is refused too.
    identify(&pipeline, &pipeline.simulator, json!({ TOKEN: {"valid": false} })).await;
    set_end(&pipeline, line, -1).await;
    let paused = eventually("the line to be paused", || async {
        let shown = shown(&pipeline, line).await;
        if shown["state"] == "paused" { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert!(paused["reason"].as_str().is_some_and(|reason| reason.contains("token has ended")), "{paused}");
    assert!(paused["action"].as_str().is_some_and(|action| action.contains("set-pat")), "{paused}");
    let id = submit(&pipeline, line, "ann").await;
    pipeline.store.set_page_token(line, &"IGAAconnectedagain".into()).await.expect("tokens can be replaced");
    pipeline.expect_ok(id).await;
    assert_eq!(tags(&pipeline.simulator).last(), Some(&token_tag("IGAAconnectedagain")));
    assert_eq!(record(&pipeline, line).await.token_error, None);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn outage_of_instagram_holds_no_page_back(#[case] backend: Backend) {
    let nobody = format!("http://127.0.0.1:{}/v25.0", testkit::process::free_port().expect("a free port"));
    let pipeline = Pipeline::start_with(backend, &[("graph.instagram_base_url", nobody.as_str())]).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(submit(&pipeline, line, &format!("r{n}")).await);
    }
    eventually("calls that fail", || async {
        let mut failed = 0;
        for id in &ids {
            failed += usize::from(pipeline.row(*id).await.attempts > 0);
        }
        if failed >= 5 { Ok(()) } else { Err(format!("{failed} failed")) }
    })
    .await;
    for n in 0..5 {
        let row = pipeline.expect_ok(pipeline.submit(&format!("p{n}"), "hi").await).await;
        assert_eq!(row.attempts, 1);
    }
    for id in ids {
        let row = pipeline.row(id).await;
        assert!(row.status != Status::Ok && row.status != Status::Error, "{row:?}");
    }
    pipeline.stop().await;
}

/// A token whose secret's app is the line's own proves its calls with that secret.
#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn line_proves_its_calls_with_the_secret_of_its_app(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[("graph.app_secret", "another-secret")]).await;
    let line = add_line(&pipeline, TOKEN, None, Some(ACCOUNT)).await;
    let url = format!("{}/simulator/apps", pipeline.simulator.origin());
    let apps = json!({"501": {"secret": "the-secret-of-501", "require_proof": true}});
    let answer = pipeline.client.put(url).json(&apps).send().await.expect("the simulator answers");
    assert_eq!(answer.status(), StatusCode::OK);
    identify(&pipeline, &pipeline.simulator, json!({ TOKEN: {"ig_id": ACCOUNT, "app_id": "501"} })).await;
    pipeline.execute("insert into meta_app (meta_app_id, secret) values ('501', 'the-secret-of-501')").await;
    pipeline.execute(&format!("update cd_v8_line set v8l_meta_app = '501' where v8l_id = {line}")).await;
    let row = pipeline.expect_ok(submit(&pipeline, line, "ann").await).await;
    assert_eq!(row.attempts, 1);
    pipeline.stop().await;
}
