//! Sends a Messenger message over HTTP, waits up to ten seconds for its outcome and prints the answer:
//! `META_DISPATCH_TSID=… cargo run --example send -- LINE DEST TEXT [KEY]`.
//!
//! META_DISPATCH_URL names another address than http://127.0.0.1:8080. The KEY is an idempotency key: a call that
//! repeats it logs no second message. An error answer, and any other failure, ends with exit code 1.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

#[expect(clippy::disallowed_methods, reason = "an example has no settings of its own")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (message, key) = arguments.split_at(arguments.len().min(3));
    let ([line, dest, text], [] | [_]) = (message, key) else { bail!("usage: send LINE DEST TEXT [KEY]") };
    let url = std::env::var("META_DISPATCH_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".into());
    let tsid = std::env::var("META_DISPATCH_TSID").context("META_DISPATCH_TSID holds no token")?;

    // As in the program: reqwest is built without a TLS library of its own choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut request = reqwest::Client::new()
        .post(format!("{url}/api/v2/MakeMessenger.php"))
        .timeout(Duration::from_secs(40))
        .bearer_auth(tsid)
        .json(&json!({"app_id": line, "dest": dest, "mdata": text, "wait": 10}));
    if let [key] = key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = request.send().await.context("no answer")?;
    let accepted = answer.status().is_success();
    println!("{}", answer.text().await?);
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
