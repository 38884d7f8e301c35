//! The examples that stand in the document, and when an answer is what an example shows.

use std::mem::discriminant;

use reqwest::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::operations;

/// What differs from run to run; of these an example shows whether there is one at all.
const VARYING: &[&str] = &[
    "cdls_id",
    "messageId",
    "message_id",
    "fbtrace_id",
    "dest",
    "cp_id",
    "next",
    "expires_at",
    "created_at",
    "sent_at",
    "done_at",
    "eta",
    "total",
    "touched",
    "app_id",
    "last_inbound_at",
    "window_until",
];
/// What may be zero or not, as the moment has it.
const MOMENTARY: &[&str] =
    &["waiting", "rate", "PENDING", "SENDING", "RETRY", "OK", "ERROR", "UNKNOWN", "CANCELLED"];

/// Fields that are present or not, as the moment has it.
const PASSING: &[&str] = &["oldest_waiting_at"];

/// An example of an answer.
pub struct Example {
    pub operation: String,
    pub method: Method,
    pub path: String,
    pub http_status: u16,
    pub content_type: String,
    /// Headers that the answer has.
    pub headers: Vec<String>,
    pub name: String,
    pub value: Value,
}

/// An example of a request.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: String,
    /// With its type.
    pub body: Option<(String, String)>,
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("references lead somewhere"),
        None => value,
    }
}

pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

pub fn answers(document: &Value) -> Vec<Example> {
    let mut found = Vec::new();
    for (path, method, operation) in operations(document) {
        for (status, response) in entries(&operation["responses"]) {
            let response = resolved(document, response);
            for (content_type, content) in entries(&response["content"]) {
                let of_content = entries(&content["examples"]).map(|(name, example)| Example {
                    operation: operation["operationId"].as_str().expect("each has one").to_owned(),
                    method: method.to_uppercase().parse().expect("a method"),
                    path: path.to_owned(),
                    http_status: status.parse().expect("a status"),
                    content_type: content_type.clone(),
                    headers: entries(&response["headers"]).map(|(name, _)| name.clone()).collect(),
                    name: name.clone(),
                    value: example["value"].clone(),
                });
                let before = found.len();
                found.extend(of_content);
                assert!(found.len() > before, "{method} {path} has no example of {status}");
            }
        }
    }
    found
}

pub fn pairs(parameters: &Value) -> String {
    let given = entries(parameters).filter(|(_, value)| !value.is_null());
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given.map(|(name, v)| (name, text(v))))
        .finish()
}

pub fn requests(document: &Value) -> Vec<Request> {
    let mut found = Vec::new();
    for (path, method, operation) in operations(document) {
        let (mut path, mut query) = (path.to_owned(), json!({}));
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, example) = (parameter["name"].as_str().expect("a name"), &parameter["example"]);
            if parameter["in"] == "path" {
                let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
                path = path.replace(&format!("{{{name}}}"), &text);
            } else {
                query[name] = example.clone();
            }
        }
        let mut bodies = Vec::new();
        for (content_type, content) in entries(&operation["requestBody"]["content"]) {
            for (_, example) in entries(&content["examples"]) {
                let value = &example["value"];
                let body = match value.as_str() {
                    Some(text) => text.to_owned(),
                    None if content_type == "application/x-www-form-urlencoded" => pairs(value),
                    None => value.to_string(),
                };
                bodies.push(Some((content_type.clone(), body)));
            }
        }
        assert_eq!(
            bodies.is_empty(),
            operation["requestBody"].is_null(),
            "{path} has an example of its body"
        );
        if bodies.is_empty() {
            bodies.push(None);
        }
        let method: Method = method.to_uppercase().parse().expect("a method");
        found.extend(bodies.into_iter().map(|body| Request {
            method: method.clone(),
            path: path.clone(),
            query: pairs(&query),
            body,
        }));
    }
    found
}

/// Whether an answer is what an example shows.
pub fn alike(answered: &Value, documented: &Value, name: &str) -> bool {
    match (answered, documented) {
        (Value::Object(answered), Value::Object(documented)) => {
            answered.len() == documented.len()
                && documented.iter().all(|(name, documented)| {
                    answered.get(name).is_some_and(|answered| alike(answered, documented, name))
                })
        }
        (Value::Array(answered), Value::Array(documented)) => {
            answered.len() == documented.len()
                && answered
                    .iter()
                    .zip(documented)
                    .all(|(answered, documented)| alike(answered, documented, name))
        }
        _ if PASSING.contains(&name) => true,
        _ if MOMENTARY.contains(&name) => discriminant(answered) == discriminant(documented),
        _ if VARYING.contains(&name) => {
            let is_none = |value: &Value| value.as_str() == Some("") || value.as_i64() == Some(0);
            discriminant(answered) == discriminant(documented) && is_none(answered) == is_none(documented)
        }
        _ => answered == documented,
    }
}

/// The content of a body: one value, or a value a line; of a table its columns, and how many rows it has.
pub fn values(content_type: &str, text: &str) -> Vec<Value> {
    if content_type == "text/csv" {
        return vec![json!(text.lines().next()), json!(text.lines().count())];
    }
    let read = |text: &str| serde_json::from_str(text).expect("answers are JSON");
    if content_type == "application/x-ndjson" { text.lines().map(read).collect() } else { vec![read(text)] }
}

#[test]
fn answers_may_differ_only_in_values_that_vary() {
    let documented =
        json!({"status": "OK", "status_code": 200, "messageId": "m_1", "cdls_id": 7, "counts": {"OK": 1}});
    let other = |name: &str, value: Value| {
        let mut answered = documented.clone();
        answered[name] = value;
        alike(&answered, &documented, "")
    };
    for (name, value) in [("messageId", json!("m_2")), ("cdls_id", json!(8)), ("counts", json!({"OK": 0}))] {
        assert!(other(name, value), "{name}");
    }
    for (name, value) in [
        ("status", json!("ERROR")),
        ("status_code", json!(0)),
        ("messageId", json!("")),
        ("messageId", json!(null)),
        ("cdls_id", json!(0)),
        ("counts", json!({})),
        ("more", json!(1)),
    ] {
        assert!(!other(name, value.clone()), "{name} {value}");
    }
    assert!(!alike(&json!([documented]), &json!([]), ""));
}
