//! The way of sending commands to a running process: over HTTP, as for any caller.
//!
//! The token comes from `META_DISPATCH_TSID` or a file, never from an argument, where other users of the
//! machine would see it. The token goes into a header, never into a URL.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::{Host, Url};

use super::check::explain;
use super::output::Refused;
use super::parse::wrapping;
use crate::text::trimmed;

const VARIABLE: &str = "META_DISPATCH_TSID";
/// Longer than the longest `wait`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The URL of the process, and the caller's token.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// URL on which meta-dispatch listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Url,
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
        let client = Client::builder().timeout(TIMEOUT);
        let client = if takes_proxies(&self.url) { client } else { client.no_proxy() }.build()?;
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
        let token = trimmed(&text);
        if let Some(wrapping) = wrapping(token) {
            bail!("the API token has {wrapping}: give the token alone");
        }
        ensure!(
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "the API token in {} is blank or holds characters no token has",
            self.tsid_file.as_ref().map_or(VARIABLE.to_owned(), |path| path.display().to_string())
        );
        Ok(SecretString::from(token))
    }
}

/// Whether a proxy of the environment may be used. Over plain HTTP it would see the token, and it cannot know
/// an address of this machine or of its network.
fn takes_proxies(url: &Url) -> bool {
    let is_near = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Some(Host::Ipv6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        None => true,
    };
    url.scheme() == "https" && !is_near
}

impl Remote {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(self.tsid.expose_secret())
    }

    /// Return the JSON answer; a refusal is an error with the text of the answer.
    pub async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let answer = request.send().await.map_err(explain).context(self.base.clone())?;
        let answer = accepted(answer).await?;
        answer.json().await.map_err(explain).context("the answer is no JSON")
    }
}

/// Return the answer, unless it is a refusal.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::plain("http://messages.example", false)]
    #[case::plain_on_this_machine("http://127.0.0.1:8080", false)]
    #[case::this_machine("https://localhost", false)]
    #[case::loopback("https://[::1]:8080", false)]
    #[case::private("https://10.1.2.3", false)]
    #[case::far("https://messages.example", true)]
    #[case::a_public_address("https://198.51.100.7", true)]
    fn proxies_of_the_environment_see_no_token(#[case] url: Url, #[case] may_stand_between: bool) {
        assert_eq!(takes_proxies(&url), may_stand_between);
    }
}
