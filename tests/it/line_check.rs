//! `line check` and `line subscribe`, against the simulator: the real program, and Meta's answers about its tokens.

use meta_dispatch::simulator::{Simulator, SimulatorOptions};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cli::program::Program;

const PAT: &str = "EAAverysecretpagetoken";
const IGAA: &str = "IGAAverysecretaccounttoken";
const ACCOUNT: &str = "17841400000000017";

/// The program and the simulator that plays Meta.
struct Scene {
    program: Program,
    simulator: Simulator,
}

impl Scene {
    /// Start the simulator, and add the Messenger line 1 of the Page 99.
    async fn start() -> Scene {
        let scene = Scene::empty();
        assert_eq!(scene.program.add_line(PAT), 1);
        scene.identify(json!({ PAT: {"page_id": "99"} })).await;
        scene
    }

    fn empty() -> Scene {
        crate::support::install_crypto();
        let simulator = Simulator::start(SimulatorOptions::default()).expect("the simulator finds a port");
        let program = Program::new()
            .with("GRAPH__BASE_URL", &simulator.base_url())
            .with("GRAPH__INSTAGRAM_BASE_URL", &simulator.base_url());
        Scene { program, simulator }
    }

    async fn put(&self, what: &str, value: Value) {
        let url = format!("{}/simulator/{what}", self.simulator.origin());
        let answer =
            reqwest::Client::new().put(url).json(&value).send().await.expect("the simulator answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn identify(&self, identities: Value) {
        self.put("pages", identities).await;
    }

    /// Check all lines; return the exit code and the first line.
    fn check(&self) -> (i32, Value) {
        let ran = self.program.run("--json line check");
        assert!(!ran.everything().contains("verysecret"), "{}{}", ran.stdout, ran.stderr);
        let mut answer: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
        (ran.code, answer["lines"][0].take())
    }

    fn add_instagram_line(&self) -> i64 {
        self.program.json("account add --name Example");
        let add =
            format!("--json line add --account 1 --class instagram --ig-account-id {ACCOUNT} --pat-stdin");
        self.program.run_with_input(&add, IGAA).json()["v8l_id"].as_i64().expect("an id")
    }
}

fn codes(line: &Value) -> Vec<&str> {
    let findings = line["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["code"].as_str().expect("a word")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn good_line_has_its_facts_and_no_finding() {
    let scene = Scene::start().await;
    let (code, line) = scene.check();
    assert_eq!((code, codes(&line)), (0, vec![]), "{line}");
    let facts = json!({
        "ok": line["ok"], "graph": line["graph"], "valid": line["valid"], "page": line["page"]["id"],
        "expires_at": line["expires_at"], "missing": line["missing_permissions"], "subscribed": line["subscribed"],
    });
    let expected = json!({
        "ok": true, "graph": "facebook", "valid": true, "page": "99", "expires_at": "never", "missing": [],
        "subscribed": true,
    });
    assert_eq!(facts, expected);
    let text = scene.program.run("line check 1");
    assert!(text.code == 0 && text.stdout.contains("All is well."), "{}{}", text.stdout, text.stderr);
}

#[rstest]
#[case::of_another_page(json!({"page_id": "98"}), "other_page", 1)]
#[case::revoked(json!({"page_id": "99", "valid": false}), "token_invalid", 1)]
#[case::without_a_permission(json!({"page_id": "99", "scopes": ["pages_show_list"]}), "permission_missing", 1)]
#[case::not_subscribed(json!({"page_id": "99", "subscribed": []}), "not_subscribed", 0)]
#[case::without_receipts(json!({"page_id": "99", "subscribed": ["messages"]}), "fields_missing", 0)]
#[tokio::test(flavor = "multi_thread")]
async fn finding_has_a_remedy_and_decides_the_exit_code(
    #[case] identity: Value,
    #[case] finding: &str,
    #[case] expected: i32,
) {
    let scene = Scene::start().await;
    scene.identify(json!({ PAT: identity })).await;
    let (code, line) = scene.check();
    assert!(codes(&line).contains(&finding), "{line}");
    assert_eq!((code, line["ok"].as_bool()), (expected, Some(expected == 0)), "{line}");
    let text = scene.program.run("line check");
    let remedy = line["findings"][0]["remedy"].as_str().expect("a text");
    assert!(text.stdout.contains("line 1: ") && text.stdout.contains(remedy), "{}", text.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_a_token_is_noted_and_told() {
    let scene = Scene::start().await;
    let end = OffsetDateTime::now_utc().unix_timestamp() + 10 * 86_400;
    scene.identify(json!({ PAT: {"page_id": "99", "expires_at": end} })).await;
    let (code, line) = scene.check();
    assert_eq!((code, codes(&line)), (0, vec!["token_ends_soon"]), "{line}");
    let listed = scene.program.json("line list");
    assert_eq!(listed["lines"][0]["v8l_pat_expires_at"], line["expires_at"]);
    let list = scene.program.run("line list").stdout;
    assert!(list.contains("line 1: its token ends at "), "{list}");
    let report = scene.program.run("--json check");
    let report: Value = serde_json::from_str(&report.stdout).expect("one JSON object");
    assert_eq!(report["ending_tokens"][0]["alarm"], "soon", "{report}");
    // A new token has another end.
    scene.program.run_with_input("line set-pat 1 --pat-stdin", "EAAanothertoken");
    assert_eq!(scene.program.json("line list")["lines"][0]["v8l_pat_expires_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_chooses_the_fields_that_receipts_need() {
    let scene = Scene::start().await;
    scene.identify(json!({ PAT: {"page_id": "99", "subscribed": []} })).await;
    let subscribed = scene.program.json("line subscribe 1");
    let fields = subscribed["subscribed_fields"].as_array().expect("a list");
    assert!(
        fields.contains(&json!("message_echoes")) && fields.contains(&json!("message_reads")),
        "{subscribed}"
    );
    let (code, line) = scene.check();
    assert_eq!((code, codes(&line)), (0, vec![]), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn account_of_instagram_login_is_checked_at_its_host() {
    let scene = Scene::empty();
    let id = scene.add_instagram_line();
    scene.identify(json!({ IGAA: {"ig_id": ACCOUNT, "ig_username": "shop"} })).await;
    let (code, line) = scene.check();
    assert_eq!((code, &line["graph"]), (0, &json!("instagram")), "{line}");
    assert_eq!(line["instagram_account"], json!({"id": ACCOUNT, "name": "shop"}));
    scene.identify(json!({ IGAA: {"ig_id": "17841400000000018"} })).await;
    let (code, line) = scene.check();
    assert_eq!((code, codes(&line)), (1, vec!["other_account"]), "{line}");
    scene.program.json(&format!("line set {id} --ig-account-id 17841400000000018"));
    assert_eq!(scene.check().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn app_that_demands_a_proof_is_named() {
    let scene = Scene::start().await;
    scene.identify(json!({ PAT: {"page_id": "99", "app_id": "501"} })).await;
    scene.put("apps", json!({"501": {"secret": "the-secret", "require_proof": true}})).await;
    let (code, line) = scene.check();
    assert!(code == 1 && codes(&line).contains(&"proof_refused"), "{line}");
    let Scene { program, simulator } = scene;
    let scene = Scene { program: program.with("GRAPH__APP_SECRET", "the-secret"), simulator };
    let (code, line) = scene.check();
    assert_eq!((code, &line["proof_demanded"]), (0, &json!(true)), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_lines_and_missing_tokens_are_named() {
    let scene = Scene::empty();
    scene.program.json("migrate");
    assert!(scene.program.run("line check 9").error().contains("no line 9"));
    assert!(scene.program.run("line subscribe 9").error().contains("no line 9"));
    scene.program.json("account add --name Example");
    let add = "line add --account 1 --class instagram --graph unified --pat-stdin";
    assert!(scene.program.run_with_input(add, PAT).error().contains("--ig-account-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn way_is_chosen_and_left_to_the_token_again() {
    let scene = Scene::start().await;
    for (choice, shown) in
        [("instagram", json!("instagram")), ("unified", json!("unified")), ("auto", Value::Null)]
    {
        let line = scene.program.json(&format!("line set 1 --graph {choice}"));
        assert_eq!(line["v8l_graph"], shown);
    }
    assert_eq!(scene.program.run("line set 1 --graph meta").code, 2);
}
