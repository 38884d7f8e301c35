//! `account` and `token`.

use meta_dispatch::domain::AccountId;
use meta_dispatch::edge::tokens;

use super::program::Program;

#[tokio::test]
async fn new_token_is_kept_as_identifier_and_hash() {
    let program = Program::new();
    let added = program.json("account add --name Example");
    assert_eq!(added.as_object().expect("an object").len(), 2);
    assert_eq!(added["cdcs_id"], 1);
    let tsid = added["tsid"].as_str().expect("a text");
    assert_eq!(tsid.len(), 30);
    assert!(tsid.bytes().all(|byte| byte.is_ascii_alphanumeric()));

    let store = program.store().await;
    let identifier = tokens::identifier(tsid).expect("it is long enough");
    let kept = store.tokens_by_id(&[identifier.to_owned()]).await.expect("the store answers").remove(0);
    assert_eq!(kept.account, AccountId(1));
    assert_eq!((kept.hash, kept.key_id), (tokens::hash(tsid), None));
    store.close().await;

    let listed = program.run("token list --json");
    assert!(listed.stdout.contains(identifier) && !listed.stdout.contains(tsid), "{}", listed.stdout);
}

#[test]
fn output_says_that_a_token_is_shown_once() {
    let ran = Program::new().run("account add --name Example");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("only this once"), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().last().map(str::len), Some(30), "the token stands alone in the last line");
}

#[test]
fn lists_accounts_and_their_tokens() {
    let program = Program::new();
    program.json("account add --name One");
    program.json("account add --name Two");
    let token = program.json("token add --account 2");
    assert_eq!(token["cdcs_id"], 2);

    let accounts = program.json("account list");
    assert_eq!(accounts["accounts"][1]["cdcs_name"], "Two");
    assert_eq!(accounts["accounts"][1]["cdcs_active"], true);
    let tokens = program.json("token list");
    let of_two = tokens["tokens"].as_array().expect("a list").iter().filter(|token| token["cdcs_id"] == 2);
    assert_eq!(of_two.count(), 2);
    let table = program.run("account list").stdout;
    assert!(table.starts_with("CDCS_ID") && table.contains("Two"), "{table}");
}

#[test]
fn revoked_token_is_listed_and_not_revoked_again() {
    let program = Program::new();
    let tsid = program.json("account add --name Example")["tsid"].as_str().expect("a text").to_owned();
    let revoke = format!("token revoke {}", &tsid[..10]);
    let ran = program.run(&revoke);
    assert!(ran.code == 0 && ran.stdout.contains("within 10 seconds"), "{}", ran.everything());
    assert!(program.json("token list")["tokens"][0]["revoked_at"].is_string());
    assert!(program.run(&revoke).error().contains(&tsid[..10]));
}

#[test]
fn revoke_refuses_and_hides_a_whole_token() {
    let program = Program::new();
    let tsid = program.json("account add --name Example")["tsid"].as_str().expect("a text").to_owned();
    let ran = program.run(&format!("token revoke {tsid}"));
    assert!(ran.error().contains("first 10 characters"));
    assert!(!ran.everything().contains(&tsid));
}

#[test]
fn token_for_an_unknown_account_is_an_error() {
    Program::new().run("token add --account 7").error();
}

#[test]
fn blank_name_and_wrong_id_are_wrong_usage() {
    let program = Program::new();
    for arguments in ["account add --name=", "token add --account 0", "token add --account x", "account"] {
        assert_eq!(program.run(arguments).code, 2, "{arguments}");
    }
}

#[test]
fn maps_lists_and_unmaps_a_broker_user() {
    let program = Program::new();
    program.json("account add --name Example");
    let mapped = program.json("account map-user --account 1 --user shop");
    assert_eq!(mapped, serde_json::json!({"broker_user": "shop", "cdcs_id": 1}));
    let again = program.run("account map-user --account 1 --user shop");
    assert!(again.error().contains("account unmap-user --user shop"));
    let with_queue = program.json("account map-user --account 1 --user shop --queue");
    assert_eq!(with_queue["exchange"], "cdls.submit.shop", "a mapped user may be given one");
    assert!(
        program.run("account map-user --account 1 --user shop --queue").error().contains("mapped already")
    );
    let listed = program.json("account list-users");
    assert_eq!(listed["broker_users"][0]["submit_queue"], true);
    assert_eq!(listed["broker_users"][0]["broker_user"], "shop");
    assert!(program.run("account list-users").stdout.contains("shop"));
    assert!(program.run("account unmap-user --user shop").stdout.contains("within 10 seconds"));
    assert!(program.run("account unmap-user --user shop").error().contains("shop"));
    assert!(program.run("account map-user --account 7 --user shop").error().contains('7'));
}

#[test]
fn name_too_long_for_a_queue_is_refused() {
    let program = Program::new();
    program.json("account add --name Example");
    let user = "x".repeat(242);
    let refused = program.run(&format!("account map-user --account 1 --user {user} --queue"));
    assert!(refused.error().contains("at most 241 bytes"));
    program.json(&format!("account map-user --account 1 --user {user}"));
}

#[test]
fn grants_of_a_user_are_printed() {
    let program = Program::new().with("BROKER__URL", "amqp://guest:guest@127.0.0.1:1/prod");
    program.json("account add --name Example");
    program.json("account map-user --account 1 --user shop --queue");
    let all = program.run("broker grants").stdout;
    for user in ["meta-dispatch-ingest", "meta-dispatch-worker", "shop", "listener-1"] {
        assert!(all.contains(&format!("rabbitmqctl set_permissions -p prod {user} ")), "{user}: {all}");
    }
    let one = program.json("broker grants --user shop");
    assert_eq!(one["grants"][0]["write"], r"^cdls\.submit\.shop$");
    assert_eq!(one["grants"][1]["topics"][0]["exchange"], "cdls.events.1");
    assert!(program.run("broker grants --user clinic").error().contains("account map-user --user clinic"));
}

#[test]
fn embedded_queue_has_no_grants() {
    let program = Program::new();
    program.json("account add --name Example");
    assert!(program.run("broker grants").error().contains("broker.url"));
}
