//! The support of the tests: servers, fixtures and forwarders.

pub mod amqp_forwarder;
pub mod broker;
pub mod certificates;
pub mod database;
pub mod graph_host;
pub mod insert;
pub mod pipeline;
pub mod producer;
pub mod rabbitmq;
pub mod raw_graph;
pub mod secrets;
pub mod serve;
pub mod store;
pub mod tls_host;
pub mod unreadable;
pub mod vanishing;

/// Install the TLS provider that `main` installs in the program; tests call parts of the program directly.
pub fn install_crypto() {
    // Fails only if a test of this process has done it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Return a refusal, whole or a line of a batch, without its `detail`, which it must have; other answers as they are.
/// The texts of details are tested in `callers`.
pub fn without_detail(mut answer: serde_json::Value) -> serde_json::Value {
    let inner = if answer["return"].is_object() { &mut answer["return"] } else { &mut answer };
    let is_refusal = inner["status_code"].is_i64() && inner["cdls_id"].as_i64().unwrap_or(0) == 0;
    if is_refusal && let Some(fields) = inner.as_object_mut() {
        let detail = fields.remove("detail").expect("a refusal has a detail");
        assert!(detail.as_str().is_some_and(|detail| detail.ends_with(['.', '?'])), "{detail}");
    }
    answer
}

/// Fail a test that needs a server where none is named. `cargo test` leaves out the tests with the mark.
pub fn not_set(variable: &str, server: &str) -> ! {
    panic!(
        "{variable} is not set: mark the test #[ignore = \"needs {server}: run tests/run\"], or run tests/run"
    );
}
