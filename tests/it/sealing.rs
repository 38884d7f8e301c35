//! Page tokens that are sealed in the database: sealing by the commands, opening by the worker, and lines whose token
//! does not open.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, RowId, Status};
use meta_dispatch::seal::{KeyRing, is_sealed, key_id};
use meta_dispatch::simulator::token_tag;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::program::Program;

use crate::cli::program::Program as Command;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

fn id_of_key(byte: u8) -> String {
    KeyRing::new(&[[byte; 32]]).first().expect("a key").id().to_owned()
}

/// Run a command on the pipeline's database, with these keys.
async fn run(pipeline: &Pipeline, keys: &str, arguments: &[&str], input: Option<&str>) -> String {
    let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch")).database(pipeline.database_url());
    program.with("security.key", keys).run(arguments, input).await.expect("the command succeeds")
}

async fn run_json(pipeline: &Pipeline, keys: &str, arguments: &[&str], input: Option<&str>) -> Value {
    let answer = run(pipeline, keys, &[&["--json"][..], arguments].concat(), input).await;
    serde_json::from_str(&answer).expect("one JSON object")
}

async fn add_line(pipeline: &Pipeline, keys: &str, token: &str) -> LineId {
    let add =
        format!("line add --account {} --class messenger --page-id 77 --yes --pat-stdin", pipeline.account);
    let added = run_json(pipeline, keys, &add.split(' ').collect::<Vec<_>>(), Some(token)).await;
    LineId(added["v8l_id"].as_i64().expect("an id"))
}

/// Return the line's page token as stored.
async fn stored(pipeline: &Pipeline, line: LineId) -> String {
    let tokens = pipeline.store.page_tokens(LineId(line.0 - 1), 1).await.expect("the store answers");
    tokens[0].text.expose_secret().to_owned()
}

async fn store_token(pipeline: &Pipeline, line: LineId, text: &str) {
    pipeline.execute(&format!("update cd_v8_line set v8l_wa_api_key = '{text}' where v8l_id = {line}")).await;
}

/// Return the tags of the tokens that calls had.
fn tags(pipeline: &Pipeline) -> Vec<String> {
    pipeline.simulator.calls().into_iter().map(|call| call.token).collect()
}

/// Return the line as its account sees it.
async fn shown(pipeline: &Pipeline, line: LineId) -> Value {
    let url = format!("http://{}/api/v2/lines/{line}", pipeline.http);
    let request = pipeline.client.get(url).bearer_auth(pipeline.tsid.expose_secret());
    request.send().await.expect("it answers").json().await.expect("answers are JSON")
}

/// Wait until the line is shown to wait for this reason.
async fn until_held(pipeline: &Pipeline, line: LineId, reason: &str) {
    let wanted = format!("page token cannot be opened: {reason}");
    let held = eventually("the line to say why it waits", || async {
        let shown = shown(pipeline, line).await;
        if shown["reason"] == wanted.as_str() { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!((&held["state"], &held["until"]), (&json!("paused"), &Value::Null));
    assert!(held["action"].as_str().is_some_and(|action| action.contains("set-pat")), "{held}");
}

async fn until_sending(pipeline: &Pipeline, line: LineId) {
    eventually("the line to send", || async {
        let shown = shown(pipeline, line).await;
        if shown["state"] == "sending" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

async fn expect_untouched(pipeline: &Pipeline, id: RowId) {
    let row = pipeline.row(id).await;
    assert_eq!((row.status, row.attempts), (Status::Pending, 0), "{row:?}");
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn commands_seal_and_calls_have_the_opened_token(#[case] backend: Backend) {
    let key = key(1);
    let pipeline = Pipeline::start_with(backend, &[("security.key", key.as_str())]).await;
    let line = add_line(&pipeline, &key, "EAAfirst").await;
    let first = stored(&pipeline, line).await;
    assert_eq!(key_id(&first), Some(id_of_key(1).as_str()), "{first}");
    pipeline.expect_ok(pipeline.submit_on(line, "ann", "hello").await).await;
    assert_eq!(tags(&pipeline), [token_tag("EAAfirst")]);

    let id = line.to_string();
    let set_pat = ["line", "set-pat", &id, "--pat-stdin"];
    run(&pipeline, &key, &set_pat, Some("EAAsecond\n")).await;
    let second = stored(&pipeline, line).await;
    assert!(is_sealed(&second) && second != first, "{second}");
    eventually("a call with the second token", || async {
        pipeline.expect_ok(pipeline.submit_on(line, "ann", "hello").await).await;
        let tags = tags(&pipeline);
        if tags.contains(&token_tag("EAAsecond")) { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .await;
    // A token that another program stores in plain works as before.
    pipeline.expect_ok(pipeline.submit("bob", "hi").await).await;
    assert_eq!(tags(&pipeline).last(), Some(&token_tag(PAGE_TOKEN)));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn swapped_texts_of_two_lines_hold_both(#[case] backend: Backend) {
    let key = key(1);
    let pipeline = Pipeline::start_with(backend, &[("security.key", key.as_str())]).await;
    let lines = [add_line(&pipeline, &key, "EAAone").await, add_line(&pipeline, &key, "EAAother").await];
    let texts = [stored(&pipeline, lines[0]).await, stored(&pipeline, lines[1]).await];
    store_token(&pipeline, lines[0], &texts[1]).await;
    store_token(&pipeline, lines[1], &texts[0]).await;
    let mut ids = Vec::new();
    for line in lines {
        ids.push(pipeline.submit_on(line, "ann", "hello").await);
    }
    for (line, id) in lines.into_iter().zip(&ids) {
        until_held(&pipeline, line, "the sealed text is damaged, or was sealed for another line").await;
        expect_untouched(&pipeline, *id).await;
    }
    // Other lines go on, and nothing was sent for these.
    pipeline.expect_ok(pipeline.submit("bob", "hi").await).await;
    assert_eq!(tags(&pipeline), [token_tag(PAGE_TOKEN)]);

    store_token(&pipeline, lines[0], &texts[0]).await;
    store_token(&pipeline, lines[1], &texts[1]).await;
    for (line, id) in lines.into_iter().zip(&ids) {
        assert_eq!(pipeline.expect_ok(*id).await.attempts, 1);
        until_sending(&pipeline, line).await;
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn missing_key_holds_the_line_until_it_is_back(#[case] backend: Backend) {
    let key = key(1);
    let mut pipeline = Pipeline::start_with(backend, &[("security.key", key.as_str())]).await;
    let line = add_line(&pipeline, &key, "EAAsealed").await;
    let quiet = add_line(&pipeline, &key, "EAAquiet").await;
    for line in [line, quiet] {
        pipeline.expect_ok(pipeline.submit_on(line, "ann", "hello").await).await;
    }

    pipeline.stop_processes().await;
    pipeline.settings.security.key = "".into();
    pipeline.start_processes().await;
    let id = pipeline.submit_on(line, "ann", "hello").await;
    let doomed = pipeline.submit_on(quiet, "ann", "never sent").await;
    let reason = format!("key {} is not in security.key", id_of_key(1));
    for line in [line, quiet] {
        until_held(&pipeline, line, &reason).await;
    }
    expect_untouched(&pipeline, id).await;
    let listed = run(&pipeline, "", &["line", "list"], None).await;
    assert!(listed.contains(&reason) && listed.contains("line set-pat"), "{listed}");
    // This line has no message that would lead to it when the key is back.
    run(&pipeline, "", &["log", "cancel", &doomed.to_string()], None).await;
    pipeline.until(doomed, "CANCELLED", |row| row.status == Status::Cancelled).await;

    pipeline.stop_processes().await;
    pipeline.settings.security.key = key.as_str().into();
    pipeline.start_processes().await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 1);
    for line in [line, quiet] {
        until_sending(&pipeline, line).await;
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn rotation_disturbs_no_message(#[case] backend: Backend) {
    let both = format!("{}, {}", key(2), key(1));
    let mut pipeline = Pipeline::start_with(backend, &[("security.key", both.as_str())]).await;
    let mut lines = Vec::new();
    for n in 0..3 {
        lines.push(add_line(&pipeline, &key(1), &format!("EAAline{n}")).await);
    }
    let sending = async {
        let mut ids = Vec::new();
        for n in 0..30 {
            for line in &lines {
                ids.push(pipeline.submit_on(*line, &format!("r{n}"), "hello").await);
            }
        }
        ids
    };
    let rotating = run_json(&pipeline, &both, &["key", "rotate"], None);
    let (ids, rotated) = tokio::join!(sending, rotating);
    assert_eq!(rotated, json!({"sealed": 3, "already": 0, "failed": []}));
    for id in ids {
        assert_eq!(pipeline.expect_ok(id).await.attempts, 1);
    }
    for line in &lines {
        assert_eq!(key_id(&stored(&pipeline, *line).await), Some(id_of_key(2).as_str()));
    }
    let again = run_json(&pipeline, &both, &["key", "rotate"], None).await;
    assert_eq!(again, json!({"sealed": 0, "already": 3, "failed": []}));
    // The lines of the pipeline itself are in plain.
    let sealed = run_json(&pipeline, &both, &["key", "seal"], None).await;
    assert_eq!(sealed, json!({"sealed": 2, "already": 3, "failed": []}));

    // The old key is needed no more.
    pipeline.stop_processes().await;
    pipeline.settings.security.key = key(2).into();
    pipeline.start_processes().await;
    lines.push(pipeline.messenger);
    for line in lines {
        pipeline.expect_ok(pipeline.submit_on(line, "ann", "hello").await).await;
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn sealed_text_of_another_version_is_never_sent(
    #[case] backend: Backend,
    #[values("enc:v9:0011aabb:AAAA", "ENC:later")] text: &str,
) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger;
    store_token(&pipeline, line, text).await;
    let id = pipeline.submit("ann", "hello").await;
    until_held(&pipeline, line, "this version does not know its form").await;
    expect_untouched(&pipeline, id).await;
    // `line resume` does not let the text out.
    run(&pipeline, "", &["line", "resume", &line.to_string()], None).await;
    until_held(&pipeline, line, "this version does not know its form").await;
    assert!(pipeline.simulator.calls().is_empty());

    store_token(&pipeline, line, "EAAreplaced").await;
    pipeline.expect_ok(id).await;
    assert_eq!(tags(&pipeline), [token_tag("EAAreplaced")]);
    until_sending(&pipeline, line).await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn sealing_ends_no_pause_of_a_refused_token(#[case] backend: Backend) {
    let key = key(1);
    let pipeline = Pipeline::start_with(backend, &[("security.key", key.as_str())]).await;
    let line = pipeline.messenger;
    let other = pipeline.add_line(Class::MESSENGER, "EAAother").await;
    pipeline.expect_ok(pipeline.submit_on(other, "bob", "hi").await).await;
    store_token(&pipeline, line, "EXPIREDtoken").await;
    let id = pipeline.submit("ann", "hello").await;
    pipeline.until(id, "the refusal", |row| row.error_code == Some(190)).await;
    eventually("the pause to be shown", || async {
        let shown = shown(&pipeline, line).await;
        if shown["state"] == "paused" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    let sealed = run_json(&pipeline, &key, &["key", "seal", "--line", &line.to_string()], None).await;
    assert_eq!(sealed, json!({"sealed": 1, "already": 0, "failed": []}));
    // The worker reads the records of its lines together: it has seen the sealed text when it knows this token.
    store_token(&pipeline, other, "EAAchanged").await;
    eventually("a call with the changed token", || async {
        pipeline.expect_ok(pipeline.submit_on(other, "bob", "hi").await).await;
        let tags = tags(&pipeline);
        if tags.contains(&token_tag("EAAchanged")) { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .await;
    let record = pipeline.store.lines(&[line]).await.expect("the store answers").remove(0);
    assert!(record.pause_reason.is_some_and(|reason| reason.contains("190")));
    run(&pipeline, &key, &["line", "set-pat", &line.to_string(), "--pat-stdin"], Some("EAAnew")).await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 2);
    pipeline.stop().await;
}

#[test]
fn sealed_text_is_no_new_page_token() {
    let program = Command::new();
    let line = program.add_line("EAAfirst");
    for text in ["enc:v1:0011aabb:AAAA", "Enc:v9:later"] {
        let add = "line add --account 1 --class messenger --page-id 1 --yes --pat-stdin";
        for command in [add, &format!("line set-pat {line} --pat-stdin")] {
            let ran = program.run_with_input(command, text);
            assert!(ran.error().contains("begins with `enc:`"), "{}", ran.stderr);
        }
    }
    assert_eq!(program.json("line list")["lines"].as_array().map(Vec::len), Some(1));
}

#[test]
fn generated_key_is_32_bytes_in_base64() {
    let program = Command::new();
    let key = program.json("key generate")["key"].as_str().expect("a text").to_owned();
    assert_eq!(STANDARD.decode(&key).expect("base64").len(), 32);
    assert_ne!(program.run("key generate").stdout.trim(), key);
}

#[test]
fn sealing_needs_a_key() {
    let program = Command::new();
    program.add_line("EAAfirst");
    for command in ["key seal", "key rotate"] {
        assert!(program.run(command).error().contains("security.key"), "{command}");
    }
    let wrong = Command::new().with("SECURITY__KEY", "c2hvcnQ=").run("serve");
    assert!(wrong.error().starts_with("setting security.key: must be 32 bytes"), "{}", wrong.stderr);
}

#[test]
fn token_of_an_unknown_key_is_named_and_fails_the_run() {
    let program = Command::new().with("SECURITY__KEY", &key(1));
    let line = program.add_line("EAAfirst");
    let program = program.with("SECURITY__KEY", &key(2));
    let ran = program.run("--json key rotate");
    ran.error();
    let answer: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    let reason = format!("key {} is not in security.key", id_of_key(1));
    let failed = json!([{"v8l_id": line, "reason": reason}]);
    assert_eq!(answer, json!({"sealed": 0, "already": 0, "failed": failed}));
}

#[test]
fn check_counts_tokens_by_form() {
    let program = Command::new().with("GRAPH__BASE_URL", "http://127.0.0.1:9/v25.0");
    program.add_line("EAAplain");
    let program = program.with("SECURITY__KEY", &key(1));
    let unknown = program.add_line("EAAsealed");
    let program = program.with("SECURITY__KEY", &key(2));
    program.add_line("EAAother");
    let tokens = program.json("check")["page_tokens"].clone();
    assert_eq!((&tokens["plain"], &tokens["sealed"]), (&json!(1), &json!(1)));
    assert_eq!(tokens["cannot_open"][0]["v8l_id"], unknown);
    let text = program.run("check").stdout;
    assert!(text.contains("1 in plain, 1 sealed") && text.contains("`key seal`"), "{text}");
    assert!(text.contains(&format!("line {unknown}: key ")) && !text.contains("EAA"), "{text}");
}
