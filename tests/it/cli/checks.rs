//! `migrate`, `check`, `health`, and what settings have to say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::Program;
use crate::support::rabbitmq;

/// An address of this machine where nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address")
}

/// A server that answers every request so, or never.
fn server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            match answer {
                Some(status) => {
                    let _ = write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                }
                None => unanswered.push(connection),
            }
        }
    });
    address
}

#[test]
fn migrating_a_current_schema_applies_nothing() {
    let program = Program::new();
    program.json("account add --name Example");
    assert_eq!(program.json("migrate"), json!({"applied": 0, "schema": "current"}));
    assert!(program.run("migrate").stdout.contains("the schema is current"));
}

#[test]
fn check_hides_secrets_and_shows_who_answers() {
    let graph = server(Some("400 Bad Request"));
    let program = Program::new()
        .with("GRAPH__BASE_URL", &format!("http://{graph}/v25.0"))
        .with("GRAPH__APP_SECRET", "hunter2");
    program.json("migrate");
    let report = program.json("check");
    assert_eq!(report["settings"]["graph"]["app_secret"], "[set]");
    assert_eq!(report["settings"]["webhooks"]["verify_token"], "[not set]");
    assert_eq!(report["database"]["ok"], true);
    assert_eq!(report["database"]["schema"], "current");
    assert_eq!((&report["broker"]["ok"], &report["broker"]["kind"]), (&json!(true), &json!("embedded")));
    assert_eq!((&report["graph"]["ok"], &report["graph"]["http_status"]), (&json!(true), &json!(400)));
    assert_eq!(report["unknown_rows"], 0);
    let text = program.run("check");
    assert!(text.code == 0 && text.stdout.contains("graph.base_url") && text.stdout.contains("[set]"));
    assert!(!text.everything().contains("hunter2"));
}

#[test]
fn check_names_lines_that_do_not_send() {
    let program = Program::new().with("GRAPH__BASE_URL", &format!("http://{}/v25.0", nobody()));
    let line = program.add_line("EAAtoken");
    assert_eq!(program.json("check")["stopped_lines"], json!([]));
    assert!(program.run("check").stdout.contains("Every line that is switched on sends."));
    program.json(&format!("line pause {line} --reason stock-taking"));
    let stopped = &program.json("check")["stopped_lines"][0];
    assert_eq!((&stopped["v8l_id"], &stopped["state"]), (&json!(line), &json!("paused")));
    assert_eq!((&stopped["reason"], &stopped["until"]), (&json!("stock-taking"), &Value::Null));
    assert!(stopped["action"].as_str().is_some_and(|action| action.contains("`line resume`")), "{stopped}");
    let text = program.run("check").stdout;
    assert!(text.contains(&format!("line {line}: paused (stock-taking): ")), "{text}");
}

#[test]
fn only_the_proxy_of_the_settings_is_used() {
    let (graph, proxy) = (server(Some("400 Bad Request")), server(Some("403 Forbidden")));
    let away = format!("http://{}", nobody());
    let program = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .into_iter()
        .fold(Program::new(), |program, name| program.with_variable(name, &away));
    let program = program.with("GRAPH__BASE_URL", &format!("http://{graph}/v25.0"));
    program.json("migrate");
    assert_eq!(program.json("check")["graph"]["http_status"], 400, "the environment's is not used");

    let program = program.with("GRAPH__PROXY", &format!("http://worker:hunter2@{proxy}"));
    let report = program.json("check");
    assert_eq!(report["graph"]["http_status"], 403);
    assert_eq!(report["settings"]["graph"]["proxy"], format!("http://worker:***@{proxy}/"));
    assert_eq!(program.with("GRAPH__PROXY", &away).json("check")["graph"]["ok"], false);
}

#[rstest::rstest]
fn wrong_proxy_is_refused_by_its_key(#[values("check", "serve")] command: &str) {
    let program = Program::new().with("GRAPH__PROXY", "socks5://worker:hunter2@proxy.example:1080");
    let ran = program.run(command);
    assert!(ran.error().starts_with("setting graph.proxy: must be http://"), "{}", ran.stderr);
    assert!(!ran.everything().contains("hunter2"), "{}", ran.everything());
}

#[test]
fn check_fails_without_broker_but_not_without_graph() {
    let graph = format!("http://{}/v25.0", nobody());
    let program = Program::new().with("GRAPH__BASE_URL", &graph);
    program.json("migrate");
    let report = program.json("check");
    assert_eq!(report["graph"]["ok"], false);
    assert!(report["graph"]["error"].as_str().is_some_and(|error| !error.is_empty()));

    let program = program.with("BROKER__URL", &format!("amqp://user:hunter2@{}/%2f", nobody()));
    let ran = program.run("check --json");
    assert!(ran.error().contains("broker"));
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!((&report["broker"]["ok"], &report["database"]["ok"]), (&json!(false), &json!(true)));
    assert!(!ran.everything().contains("hunter2"), "{}", ran.everything());
}

#[test]
fn check_fails_without_a_database() {
    let program = Program::new()
        .with("GRAPH__BASE_URL", &format!("http://{}", nobody()))
        .with("DATABASE__URL", &format!("postgres://user:hunter2@{}/log", nobody()));
    let ran = program.run("check --json");
    assert!(ran.error().contains("database"));
    let report: Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!((&report["database"]["ok"], &report["unknown_rows"]), (&json!(false), &Value::Null));
    assert!(!ran.everything().contains("hunter2"), "{}", ran.everything());
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn check_passes_a_broker_that_answers() {
    let program = Program::new()
        .with("GRAPH__BASE_URL", &format!("http://{}", nobody()))
        .with("BROKER__URL", rabbitmq::server().as_str());
    program.json("migrate");
    let report = program.json("check");
    assert_eq!((&report["broker"]["ok"], &report["broker"]["kind"]), (&json!(true), &json!("rabbitmq")));
}

#[test]
fn health_is_the_answer_of_readyz() {
    let ready = Program::new().with("ADMIN__LISTEN", &server(Some("200 OK")).to_string());
    assert_eq!(ready.json("health"), json!({"ready": true, "http_status": 200}));
    let unready = Program::new().with("ADMIN__LISTEN", &server(Some("503 Service Unavailable")).to_string());
    assert!(unready.run("health").error().contains("not ready (HTTP 503)"));
    let away = Program::new().with("ADMIN__LISTEN", &nobody().to_string());
    assert!(away.run("health").error().contains("/readyz"));
}

#[test]
fn health_waits_two_seconds_at_most() {
    let program = Program::new().with("ADMIN__LISTEN", &server(None).to_string());
    let begun = Instant::now();
    assert!(program.run("health").error().contains("no answer in time"));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn every_command_names_the_wrong_setting() {
    let program = Program::new().with("GRAPH__TIMEOUT", "soon");
    assert!(program.run("account list").error().starts_with("setting graph.timeout: "));
    let program = Program::new();
    let file = program.file("settings.toml", "[graph]\ntimeouts = \"1s\"\n");
    let ran = program.run(&format!("--config {} health", file.display()));
    assert!(ran.error().contains("graph.timeouts"), "{}", ran.stderr);
    assert!(Program::new().with("LOG__FILTER", "a=[").run("health").error().contains("log.filter"));
}

#[test]
fn help_names_sources_and_needs_no_database() {
    let program = Program::new().with("DATABASE__URL", "nonsense");
    let ran = program.run("--help");
    assert_eq!(ran.code, 0);
    for part in ["META_DISPATCH__", "--config", "Watch and mend:"] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
}
