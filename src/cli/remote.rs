//! How commands that send reach a running process: over HTTP, as any sender does.
//!
//! The token comes from `META_DISPATCH_TSID` or a file, never from an argument, where other users of the machine would
//! see it. It stands in a header, never in a URL.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::check::explain;
use super::output::Refused;

const VARIABLE: &str = "META_DISPATCH_TSID";
/// Longer than the longest `wait`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The URL of the process, and the caller's token.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// URL on which meta-dispatch listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: url::Url,
    /// File that holds the API token (default: the environment variable META_DISPATCH_TSID)
    #[arg(long, value_name = "FILE")]
    tsid_file: Option<PathBuf>,
}

/// A running process, asked as one account.
pub struct Remote {
    client: Client,
    base: String,
    tsid: SecretString,
}

impl RemoteArgs {
    pub fn connect(&self) -> anyhow::Result<Remote> {
        let client = Client::builder().timeout(TIMEOUT).build()?;
        let base = format!("{}/api/v2", self.url.as_str().trim_end_matches('/'));
        Ok(Remote { client, base, tsid: self.tsid()? })
    }

    #[expect(clippy::disallowed_methods, reason = "the sender's token is no setting of a server")]
    fn tsid(&self) -> anyhow::Result<SecretString> {
        let text = match &self.tsid_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("--tsid-file {}: cannot be read", path.display()))?,
            None => match std::env::var(VARIABLE) {
                Ok(token) => token,
                Err(_) => bail!("no API token: set {VARIABLE}, or name a file with --tsid-file"),
            },
        };
        let token = text.trim();
        ensure!(
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "the API token in {} is blank or holds characters no token has",
            self.tsid_file.as_ref().map_or(VARIABLE.to_owned(), |path| path.display().to_string())
        );
        Ok(SecretString::from(token))
    }
}

impl Remote {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(self.tsid.expose_secret())
    }

    /// The JSON answer; a refusal is an error that says what the answer said.
    pub async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let answer = request.send().await.map_err(explain).context(self.base.clone())?;
        let answer = accepted(answer).await?;
        answer.json().await.map_err(explain).context("the answer is no JSON")
    }
}

/// The answer, unless it is a refusal.
pub async fn accepted(answer: Response) -> anyhow::Result<Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let http_status = answer.status().as_u16();
    let said: Value = answer.json().await.unwrap_or_default();
    let said = &said["return"];
    ensure!(said["status"].is_string() && said["status_code"].is_i64(), "refused with HTTP {http_status}");
    Err(Refused(said.clone()).into())
}
