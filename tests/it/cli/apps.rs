//! `app`, and the secrets of apps in `key` and `check`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;

use super::program::Program;

const SECRET: &str = "0011223344556677";
const VERIFY_TOKEN: &str = "a-verify-token-of-the-app";

/// Where no Graph is.
const NO_GRAPH: &str = "http://127.0.0.1:1/v25.0";

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// Add an app whose secret comes from standard input.
fn add(program: &Program) -> serde_json::Value {
    let file = program.file("verify-token.txt", &format!("{VERIFY_TOKEN}\n"));
    let arguments =
        format!("--json app add --id 77 --name Shop --verify-token-file {} --secret-stdin", file.display());
    program.run_with_input(&arguments, &format!("{SECRET}\n")).json()
}

#[tokio::test]
async fn app_is_sealed_listed_and_removed() {
    let program = Program::new().with("SECURITY__APP_KEY", &key(1)).with("GRAPH__BASE_URL", NO_GRAPH);
    program.json("account add --name Example");
    assert_eq!(add(&program), serde_json::json!({"meta_app_id": "77", "is_new": true, "is_sealed": true}));
    assert_eq!(add(&program)["is_new"], false);
    let store = program.store().await;
    let stored = store.apps().await.expect("the store answers").remove(0);
    let secret = stored.secret.expect("a secret").expose_secret().to_owned();
    assert!(secret.starts_with("enc:v1:") && !secret.contains(SECRET), "{secret}");
    store.close().await;
    for command in ["app list", "--json app list", "check", "--json check"] {
        let ran = program.run(command).everything();
        assert!(!ran.contains(SECRET) && !ran.contains(VERIFY_TOKEN), "{command}: {ran}");
    }
    let listed = program.json("app list");
    assert_eq!(
        (&listed["apps"][0]["name"], &listed["apps"][0]["secret"]),
        (&"Shop".into(), &"sealed".into())
    );
    assert_eq!(program.json("app remove 77")["removed"], "77");
    assert_ne!(program.run("app remove 77").code, 0);
}

#[tokio::test]
async fn line_belongs_to_an_app() {
    let program = Program::new();
    program.json("account add --name Example");
    let line = program.add_line("EAAtoken");
    let refused = program.run(&format!("line set {line} --app 77"));
    assert!(refused.code != 0 && refused.stderr.contains("there is no app 77"), "{}", refused.stderr);
    assert_eq!(add(&program)["is_sealed"], false);
    assert_eq!(program.json(&format!("line set {line} --app 77"))["v8l_meta_app"], "77");
    let refused = program.run("app remove 77");
    assert!(refused.code != 0 && refused.stderr.contains("--app none"), "{}", refused.stderr);
    assert_eq!(program.json(&format!("line set {line} --app none"))["v8l_meta_app"], serde_json::Value::Null);
}

#[tokio::test]
async fn secrets_are_sealed_and_sealed_anew() {
    let plain = Program::new().with("GRAPH__BASE_URL", NO_GRAPH);
    plain.json("account add --name Example");
    add(&plain);
    let first = plain.with("SECURITY__APP_KEY", &key(1));
    let sealed = first.json("key seal");
    assert_eq!(sealed["apps"], serde_json::json!({"sealed": 2, "already": 0, "failed": []}));
    let both = first.with("SECURITY__APP_KEY", &format!("{},{}", key(2), key(1)));
    assert_eq!(both.json("key rotate")["apps"]["sealed"], 2);
    let second = both.with("SECURITY__APP_KEY", &key(2));
    assert_eq!(second.json("key rotate")["apps"]["already"], 2);
    let wrong = second.with("SECURITY__APP_KEY", &key(3));
    let checked = wrong.run("check").everything();
    assert!(checked.contains("a secret of app 77 cannot be opened"), "{checked}");
}
