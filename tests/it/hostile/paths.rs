//! Paths and queries of `/api`, as bytes, because clients tidy them up: each leads to the account's own rows, or
//! nowhere.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::support::without_detail;

/// Labels that need escapes in a path.
const LABELS: [&str; 2] = ["a/b?c#d%", "../../x"];

/// A path, and the status of its answer.
const PATHS: &[(&str, &str, u16)] = &[
    ("a row", "/api/v2/messages/1", 200),
    ("an escaped digit", "/api/v2/messages/%31", 200),
    ("a leading zero", "/api/v2/messages/01", 200),
    ("an escaped blank before", "/api/v2/messages/%201", 200),
    ("no id", "/api/v2/messages/", 404),
    ("two dots for an id", "/api/v2/messages/..", 404),
    ("a NUL", "/api/v2/messages/%00", 404),
    ("a NUL behind an id", "/api/v2/messages/1%00", 404),
    ("an escaped slash", "/api/v2/messages/1%2f2", 404),
    ("a path behind an id", "/api/v2/messages/1/2", 404),
    ("a parameter of a path", "/api/v2/messages/1;x=1", 404),
    ("an id with a point", "/api/v2/messages/1.0", 404),
    ("an id in hexadecimal", "/api/v2/messages/0x1", 404),
    ("a full-width digit", "/api/v2/messages/%EF%BC%91", 404),
    ("-2^63", "/api/v2/messages/-9223372036854775808", 404),
    ("2^63 - 1", "/api/v2/messages/9223372036854775807", 404),
    ("2^63", "/api/v2/messages/9223372036854775808", 404),
    ("no UTF-8", "/api/v2/messages/%ff", 404),
    ("SQL behind an id", "/api/v2/messages/1%20or%201=1", 404),
    ("capitals", "/API/v2/messages/1", 404),
    ("two dots", "/api/v2/../v2/messages/1", 404),
    ("escaped dots", "/api/%2e%2e/api/v2/messages/1", 404),
    ("two slashes before", "//api/v2/messages/1", 404),
    ("two slashes within", "/api//v2/messages/1", 404),
    ("a line", "/api/v2/lines/1", 200),
    ("a line's id below zero", "/api/v2/lines/-1", 404),
    ("a NUL behind a line's id", "/api/v2/lines/1%00", 404),
    ("a recipient", "/api/v2/recipients/1/nobody", 200),
    ("a recipient with separators", "/api/v2/recipients/1/a%2Fb%3Fc%23d%25", 200),
    ("a recipient of a line of nobody", "/api/v2/recipients/999999/nobody", 404),
    ("a blank recipient", "/api/v2/recipients/1/%20", 404),
    ("a recipient with a NUL", "/api/v2/recipients/1/x%00", 404),
    ("a recipient that is no UTF-8", "/api/v2/recipients/1/%C3%28", 404),
    ("a recipient that is SQL", "/api/v2/recipients/1/'%20or%20'1'='1", 200),
    ("a label with separators", "/api/v2/campaigns/a%2Fb%3Fc%23d%25", 200),
    ("a label that is a path", "/api/v2/campaigns/%2e%2e%2f%2e%2e%2fx", 200),
    ("the same as a path", "/api/v2/campaigns/../../x", 404),
    ("a label that is a pattern", "/api/v2/campaigns/%25", 404),
    ("a label that is SQL", "/api/v2/campaigns/'%20or%20'1'='1", 404),
    ("a label with a NUL", "/api/v2/campaigns/x%00", 404),
    ("a label that is no UTF-8", "/api/v2/campaigns/%C3%28", 404),
    ("readiness, of the other listener", "/readyz", 404),
    ("documents of the other listener", "/openapi.json", 404),
    ("documents of RabbitMQ", "/asyncapi.json", 404),
    ("webhooks that are off", "/webhooks/meta", 404),
    ("a path behind the webhook", "/webhooks/meta/x", 404),
    ("the simulator's calls", "/simulator/calls", 404),
    ("a file of the system", "/../../../../etc/passwd", 404),
    ("an escaped file of the system", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 404),
    ("a file of a repository", "/.git/config", 404),
];

/// A query of the list, and the name of the parameter that is refused; none where it finds nothing.
const QUERIES: &[(&str, &str, Option<&str>)] = &[
    ("a pattern for a recipient", "dest=%25", None),
    ("a pattern for a reference", "msg_id=%25", None),
    ("a pattern for a label", "cp_id=_", None),
    ("SQL for a recipient", "dest='%20or%201=1%20--", None),
    ("SQL for a reference", "msg_id=x'%20union%20select%201--", None),
    ("a blank token beside a good one", "tsid=&dest=nobody", None),
    ("SQL for a status", "status=OK'%20or%20'1'='1", Some("status")),
    ("SQL for a line", "app_id=1%20or%201=1", Some("app_id")),
    ("a line beyond all", "app_id=9223372036854775808", Some("app_id")),
    ("a limit beyond all", "limit=99999999999999999999", Some("limit")),
    ("a header behind a limit", "limit=1%0d%0aX-Injected:%201", Some("limit")),
    ("a code beyond all", "error_code=99999999999", Some("error_code")),
    ("a cursor of another version", "after=AgAAAAAAAAAB", Some("after")),
    ("a cursor of row 0", "after=AQAAAAAAAAAA", Some("after")),
    ("a cursor that is too long", "after=AQAAAAAAAAABAA", Some("after")),
    ("a recipient with a NUL", "dest=a%00", Some("dest")),
    ("a time beyond the calendar in UTC", "since=9999-12-31T23:59:59-23:59", Some("since")),
    ("another one", "until=9999-12-31T23:59:59-00:01", Some("until")),
    ("a time before the calendar in UTC", "since=0001-01-01T00:00:00%2B23:59", Some("since")),
    ("a time of 20 digits", "until=99999999999999999999", Some("until")),
    ("an unknown name", "colour=red", Some("colour")),
    ("an unknown name that is a script", "%3Cscript%3E=1", Some("<script>")),
    ("an unknown name with a header", "x%0d%0aX-Injected:1=1", Some("x  X-Injected:1")),
];

/// Ask for a target, as the account; return the head of the answer, in small letters, its status and its body.
async fn ask(scene: &Scene, case: &str, target: &str) -> (String, u16, Value, Vec<u8>) {
    let tsid = &scene.serve.tsid;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tsid}\r\nConnection: close\r\n\r\n"
    );
    let answer = scene.exchange(case, request.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (head.to_ascii_lowercase(), status, serde_json::from_str(body).unwrap_or_default(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_to_own_rows_or_nowhere() {
    let mut scene = Scene::start().await;
    for (n, label) in (1..).zip(LABELS) {
        let parameters = json!({"app_id": 1, "dest": format!("d{n}"), "mdata": "hello", "cp_id": label});
        let id = scene.serve.post(parameters).await.expect("it is accepted");
        scene.settle(label, b"", 1).await;
        scene.expect(label, id.0, n);
    }
    for (case, path, expected) in PATHS {
        let (_, status, body, answer) = ask(&scene, case, path).await;
        scene.expect(case, status, *expected);
        let row = body["cdls_id"].clone();
        let is_row = path.starts_with("/api/v2/messages/") && status == 200;
        scene.expect(case, row, if is_row { json!(1) } else { Value::Null });
        scene.settle(case, &answer, 0).await;
    }
    for (label, path) in LABELS.into_iter().zip(["a%2Fb%3Fc%23d%25", "%2e%2e%2f%2e%2e%2fx"]) {
        let (_, _, body, _) = ask(&scene, label, &format!("/api/v2/campaigns/{path}")).await;
        scene.expect(label, body["cp_id"].clone(), json!(label));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_find_what_they_name_or_are_refused() {
    let mut scene = Scene::start().await;
    scene.serve.submit("somebody").await;
    scene.settle("a row to be found", b"", 1).await;
    let many = format!("msg_id={}", vec!["m"; 101].join(","));
    let mut cases: Vec<(&str, &str, Option<&str>)> = QUERIES.to_vec();
    cases.push(("101 references", &many, Some("msg_id")));
    for (case, query, refused) in cases {
        for path in ["messages", "messages/export"] {
            let case = format!("{case} ({path})");
            let of_list_alone = ["after=", "limit="].iter().any(|name| query.starts_with(name));
            if path == "messages/export" && of_list_alone {
                continue;
            }
            let (head, status, body, answer) = ask(&scene, &case, &format!("/api/v2/{path}?{query}")).await;
            match refused {
                Some(name) => {
                    scene.judge_detail(&case, &body["return"]["detail"]);
                    let expected = json!({"return": {
                        "status": format!("Invalid parameter: {name}"), "status_code": 229, "messageId": "", "cdls_id": 0,
                    }});
                    scene.expect(&case, (status, without_detail(body)), (400, expected));
                }
                None => {
                    scene.expect(&case, status, 200);
                    let finds = String::from_utf8_lossy(&answer).contains("somebody");
                    scene.expect(&case, finds, false);
                }
            }
            scene.expect(&case, head.contains("\r\nx-injected"), false);
            scene.expect(&case, head.contains("\r\nx-content-type-options: nosniff"), true);
            scene.settle(&case, &answer, 0).await;
        }
    }
    let (_, status, _, answer) = ask(&scene, "the row", "/api/v2/messages?dest=somebody").await;
    let finds = String::from_utf8_lossy(&answer).contains("somebody");
    scene.expect("the row", (status, finds), (200, true));
    scene.end().await;
}
