//! API tokens over the whole program: keys of their hashes, scopes, ends, and the time of their last use.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta_dispatch::domain::TokenScopes;
use meta_dispatch::edge::tokens::{self, TokenKeys};
use meta_dispatch::store::{NewToken, TokenRow};
use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Producer, header};
use crate::support::store::LONG_AGO;

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// Make a token by the command, with these keys.
async fn add(pipeline: &Pipeline, keys: &str, options: &[&str]) -> String {
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).database(pipeline.database_url());
    let account = pipeline.account.to_string();
    let arguments = [&["--json", "token", "add", "--account", &account][..], options].concat();
    let program = program.with("security.token_key", keys);
    let answer = program.run(&arguments, None).await.expect("the command succeeds");
    let answer: Value = serde_json::from_str(&answer).expect("one JSON object");
    answer["tsid"].as_str().expect("a text").to_owned()
}

/// Send a message with a token; return the HTTP status and the envelope's content.
async fn send(pipeline: &Pipeline, tsid: &str) -> (u16, Value) {
    let body = json!({"app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hello"});
    let request = pipeline
        .client
        .post(format!("http://{}/api/v2/MakeMessenger.php", pipeline.http))
        .bearer_auth(tsid)
        .json(&body);
    let answer = request.send().await.expect("ingest answers");
    let status = answer.status().as_u16();
    let answer: Value = answer.json().await.expect("answers are JSON");
    (status, answer["return"].clone())
}

async fn code(pipeline: &Pipeline, tsid: &str) -> i64 {
    send(pipeline, tsid).await.1["status_code"].as_i64().expect("an integer")
}

async fn row(pipeline: &Pipeline, tsid: &str) -> TokenRow {
    let rows = pipeline.store.tokens().await.expect("the store answers");
    rows.into_iter().find(|row| row.token_id == tsid[..10]).expect("it is listed")
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn hash_has_the_first_key_and_others_are_known(#[case] backend: Backend) {
    let (old, new, foreign) = (key(1), key(2), key(3));
    let both = format!("{new},{old}");
    let pipeline = Pipeline::start_with(backend, &[("security.token_key", &both)]).await;
    for (keys, expected) in [(both.as_str(), 0), (old.as_str(), 0), ("", 0), (foreign.as_str(), 503)] {
        let tsid = add(&pipeline, keys, &[]).await;
        assert_eq!(tsid.len(), 30);
        assert_eq!(code(&pipeline, &tsid).await, expected, "{keys}");
        let key_id = row(&pipeline, &tsid).await.key_id;
        assert_eq!(key_id.is_some(), !keys.is_empty());
        if keys == both {
            let first = TokenKeys::new(&[[2; 32]]);
            assert!(key_id.is_some_and(|id| first.has(&id)), "the first key is for new tokens");
        }
    }
    assert_eq!(code(&pipeline, pipeline.tsid.expose_secret()).await, 0, "a hash without a key");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_token_is_identified_by_its_hash() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let (short, legacy) = ("tiny-token", "tiny_token");
    let hash = TokenKeys::default().hashes(short).remove(0);
    let token = NewToken {
        account: pipeline.account,
        token_id: hash.identifier(short),
        hash: hash.hash,
        key_id: None,
        name: None,
        scopes: TokenScopes::ALL,
        expires_at: None,
    };
    pipeline.store.insert_token(&token).await.expect("tokens can be added");
    pipeline.store.add_token(pipeline.account, legacy, &tokens::hash(legacy)).await.expect("it can be added");
    assert_eq!((code(&pipeline, short).await, code(&pipeline, legacy).await), (0, 0));
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).database(pipeline.database_url());
    let listed = program.run(&["token", "list"], None).await.expect("the command succeeds");
    assert!(listed.contains(&token.token_id) && !listed.contains(short), "{listed}");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn token_opens_its_scopes_alone(#[case] backend: Backend) {
    const CALLS: [(&str, &str, &str); 10] = [
        ("POST", "/MakeMessenger.php", "send"),
        ("GET", "/MakeInstagram.php", "send"),
        ("POST", "/messages/batch", "send"),
        ("GET", "/messages", "read"),
        ("GET", "/messages/1", "read"),
        ("GET", "/messages/export", "read"),
        ("GET", "/lines", "read"),
        ("GET", "/campaigns/spring", "read"),
        ("POST", "/campaigns/spring/pause", "campaigns"),
        ("POST", "/messages/cancel", "campaigns"),
    ];
    let pipeline = Pipeline::start_with(backend, &[]).await;
    for scope in ["send", "read", "campaigns", "callbacks"] {
        let tsid = add(&pipeline, "", &["--scope", scope, "--name", scope]).await;
        for (method, path, wanted) in CALLS {
            let method: Method = method.parse().expect("a method");
            let url = format!("http://{}/api/v2{path}", pipeline.http);
            let request = pipeline.client.request(method, url).bearer_auth(&tsid);
            let request = request.header("Content-Type", "application/x-ndjson");
            let answer = request.send().await.expect("ingest answers");
            let is_refused = answer.status().as_u16() == 401;
            assert_eq!(is_refused, scope != wanted, "{scope}: {path}");
            if is_refused {
                let answer: Value = answer.json().await.expect("answers are JSON");
                let told = &answer["return"];
                assert_eq!(
                    (&told["status"], &told["status_code"]),
                    (&json!("fail authentication"), &json!(100)),
                    "{scope}: {path}"
                );
                let detail = told["detail"].as_str().expect("a detail");
                assert!(detail.contains(&format!("`{wanted}`")), "{detail}");
            }
        }
        assert_eq!(row(&pipeline, &tsid).await.name.as_deref(), Some(scope));
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_needs_the_scope_to_send() {
    let pipeline = Pipeline::start(SERVERS).await;
    let reader = add(&pipeline, "", &["--scope", "read,campaigns,callbacks"]).await;
    let sender = add(&pipeline, "", &["--scope", "send"]).await;
    let producer = Producer::connect_to(pipeline.vhost(), &reader).await;
    producer.intake_is_up().await;
    producer.submit_text(pipeline.messenger, "ann", "hello", producer.properties()).await;
    let rejected = producer.rejected().await;
    assert_eq!(header(&rejected.properties, "status_code"), "100");
    assert!(header(&rejected.properties, "detail").contains("`send`"));
    let producer = Producer::connect_to(pipeline.vhost(), &sender).await;
    producer.submit_text(pipeline.messenger, "bob", "hello", producer.properties()).await;
    eventually("the message", || async {
        let rows = pipeline.rows().await;
        if rows.iter().any(|row| row.dest == "bob") { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    pipeline.stop().await;
}

/// The shared queue goes on behind a submission whose token has a missing key.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn missing_key_holds_up_no_other_producer() {
    let pipeline = Pipeline::start_with(SERVERS, &[("security.token_key", &key(1))]).await;
    let (foreign, known) = (add(&pipeline, &key(3), &[]).await, add(&pipeline, &key(1), &[]).await);
    let producer = Producer::connect_to(pipeline.vhost(), &foreign).await;
    producer.intake_is_up().await;
    producer.submit_text(pipeline.messenger, "ann", "hello", producer.properties()).await;
    let other = Producer::connect_to(pipeline.vhost(), &known).await;
    other.submit_text(pipeline.messenger, "bob", "hello", other.properties()).await;
    eventually("the message behind it", || async {
        let rows = pipeline.rows().await;
        if rows.iter().any(|row| row.dest == "bob") { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let refused = producer.unauthenticated().await;
    assert_eq!(header(&refused.properties, "status_code"), "503");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn expired_token_is_unknown(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[]).await;
    let soon = add(&pipeline, "", &["--expires", "90d"]).await;
    let later = add(&pipeline, "", &["--expires", "2060-01-01T00:00:00Z"]).await;
    assert_eq!(code(&pipeline, &later).await, 0);
    let ends = row(&pipeline, &soon).await.expires_at.expect("an end");
    let left = ends - time::OffsetDateTime::now_utc();
    assert!(left > time::Duration::days(89) && left <= time::Duration::days(90), "{left}");
    let ended = format!(
        "update account_token set expires_at = {LONG_AGO} where token_id in ('{}', '{}')",
        &soon[..10],
        &later[..10]
    );
    pipeline.execute(&ended).await;
    let (status, refused) = send(&pipeline, &soon).await;
    assert_eq!(
        (status, &refused["status"], &refused["status_code"]),
        (401, &json!("SID not found"), &json!(102))
    );
    eventually("the end of a token that was in use", || async {
        match code(&pipeline, &later).await {
            102 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn last_use_is_listed(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[]).await;
    let unused = add(&pipeline, "", &[]).await;
    let tsid = pipeline.tsid.expose_secret();
    assert_eq!(code(&pipeline, tsid).await, 0);
    eventually("the last use", || async {
        row(&pipeline, tsid).await.last_used_at.map(drop).ok_or_else(|| "not noted".to_owned())
    })
    .await;
    assert_eq!(row(&pipeline, &unused).await.last_used_at, None);
    pipeline.stop().await;
}

#[test]
fn wrong_terms_of_a_token_are_wrong_usage() {
    let program = crate::cli::program::Program::new();
    program.json("account add --name Example");
    for options in ["--scope fly", "--scope=", "--expires soon", "--expires 2020-01-01T00:00:00Z", "--name="]
    {
        assert_eq!(program.run(&format!("token add --account 1 {options}")).code, 2, "{options}");
    }
    let listed = program.run("token list");
    assert!(listed.stdout.contains("EXPIRES") && listed.stdout.contains("all"), "{}", listed.stdout);
}
