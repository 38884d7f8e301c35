//! The way of sending commands to a running process: over HTTP, as for any caller.
//!
//! The token comes from `META_DISPATCH_TSID` or a file, never from an argument, where other users of the
//! machine would see it. The token goes into a header, never into a URL, and to the process that `--url` names alone:
//! no proxy of the environment and no redirect is followed, and plain http leads to private networks only.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, Proxy, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::check::explain;
use super::output::Refused;
use super::parse::wrapping;
use crate::graph::CheckedNames;
use crate::settings::{ExposedFile, Plaintext, authorities};
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
    /// File of certificate authorities (PEM) that are trusted besides those of the system
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Proxy to go through; proxies of the environment are never used
    #[arg(long, value_name = "URL")]
    proxy: Option<Url>,
    /// Send the token over plain http beyond this machine and private networks too
    #[arg(long)]
    plain: bool,
}

/// A running process, asked as one account.
pub struct Remote {
    client: Client,
    base: String,
    tsid: SecretString,
}

impl RemoteArgs {
    pub fn connect(&self) -> anyhow::Result<Remote> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            // A redirect would take the message to a process that nobody has named.
            .redirect(Policy::none())
            .referer(false);
        let mut client = self.guarded(client)?;
        if let Some(file) = &self.ca_file {
            let pem =
                authorities(file).map_err(|reason| anyhow!("--ca-file {}: {reason}", file.display()))?;
            client = client.tls_certs_merge(Certificate::from_pem_bundle(pem.as_bytes()).map_err(explain)?);
        }
        if let Some(proxy) = &self.proxy {
            client = client.proxy(Proxy::all(proxy.clone()).map_err(explain).context("--proxy")?);
        }
        let base = format!("{}/api/v2", self.url.as_str().trim_end_matches('/'));
        Ok(Remote { client: client.build().map_err(explain)?, base, tsid: self.tsid()? })
    }

    /// Keep the token off public networks in plain text.
    fn guarded(&self, client: ClientBuilder) -> anyhow::Result<ClientBuilder> {
        ensure!(
            matches!(self.url.scheme(), "http" | "https") && self.url.has_host(),
            "--url: must be an http:// or https:// URL"
        );
        if self.plain || self.url.scheme() == "https" {
            return Ok(client);
        }
        ensure!(
            self.proxy.is_none(),
            "--proxy: the proxy would see the token over plain http; use https:// in --url, or --plain"
        );
        let rule = Plaintext::Private;
        let host = self.url.host_str().unwrap_or_default();
        if rule.check_host(host).is_err() {
            bail!("--url: plain http would show the token on public networks; use https://, or --plain");
        }
        Ok(match rule.needs_addresses(host) {
            true => client.dns_resolver(CheckedNames::new(vec![host.to_owned()], rule)),
            false => client,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the sender's token is no setting of a server")]
    fn tsid(&self) -> anyhow::Result<SecretString> {
        let text = match &self.tsid_file {
            Some(path) => {
                ExposedFile::look("--tsid-file", path).iter().for_each(ExposedFile::warn);
                std::fs::read_to_string(path)
                    .with_context(|| format!("--tsid-file {}: cannot be read", path.display()))?
            }
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

impl Remote {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/{path}", self.base)).bearer_auth(self.tsid.expose_secret())
    }

    /// Return the JSON answer, an object with this field; a refusal is an error with the text of the answer.
    pub async fn ask(&self, request: RequestBuilder, field: &str) -> anyhow::Result<Value> {
        let answer = request.send().await.map_err(explain).context(self.base.clone())?;
        let answer = accepted(answer).await?;
        let answer: Value = answer.json().await.map_err(explain).context("the answer is no JSON")?;
        ensure!(!answer[field].is_null(), "{}: {NOT_OURS}", self.base);
        Ok(answer)
    }

    /// Submit a message; return the `return` of the answer's envelope.
    pub async fn submit(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let mut answer = self.ask(request, "return").await?;
        ensure!(is_envelope(&answer["return"]), "{}: {NOT_OURS}", self.base);
        Ok(answer["return"].take())
    }
}

/// The error of an answer that another program gave.
pub const NOT_OURS: &str = "another program answered: nothing is known to be accepted; check --url";

/// Whether an answer tells the outcome of a submission (contract: "HTTP: the two send endpoints").
fn is_envelope(answer: &Value) -> bool {
    answer["status"].is_string()
        && answer["status_code"].is_i64()
        && answer["messageId"].is_string()
        && answer["cdls_id"].as_i64().is_some_and(|id| id > 0)
}

/// Return the answer, unless it is a refusal.
pub async fn accepted(answer: Response) -> anyhow::Result<Response> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let http_status = answer.status().as_u16();
    ensure!(
        !answer.status().is_redirection(),
        "redirected with HTTP {http_status}, which is not followed; name the process itself in --url"
    );
    let said: Value = answer.json().await.unwrap_or_default();
    let said = &said["return"];
    ensure!(said["status"].is_string() && said["status_code"].is_i64(), "refused with HTTP {http_status}");
    Err(Refused(said.clone()).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        remote: RemoteArgs,
    }

    fn guarded(arguments: &str) -> anyhow::Result<()> {
        let line = Line::try_parse_from(format!("send {arguments}").split_whitespace()).expect("well formed");
        line.remote.guarded(Client::builder()).map(drop)
    }

    #[rstest]
    #[case::this_machine("--url http://127.0.0.1:8080")]
    #[case::this_machine_in_ipv6("--url http://[::1]:8080")]
    #[case::private("--url http://10.1.2.3")]
    #[case::a_name("--url http://messages.internal")]
    #[case::with_tls("--url https://198.51.100.7")]
    #[case::with_tls_through_a_proxy("--url https://198.51.100.7 --proxy http://proxy.example:3128")]
    #[case::as_asked("--url http://198.51.100.7 --plain")]
    #[case::as_asked_through_a_proxy("--url http://198.51.100.7 --plain --proxy http://proxy.example:3128")]
    fn takes_ways_that_hide_the_token(#[case] arguments: &str) {
        guarded(arguments).expect("it is taken");
    }

    #[rstest]
    #[case::public("--url http://198.51.100.7", "--plain")]
    #[case::public_in_ipv6("--url http://[2001:db8::1]", "--plain")]
    #[case::a_proxy("--url http://127.0.0.1:8080 --proxy http://proxy.example:3128", "--proxy")]
    #[case::another_scheme("--url ftp://127.0.0.1", "--url")]
    fn refuses_ways_that_show_the_token(#[case] arguments: &str, #[case] named: &str) {
        let refused = guarded(arguments).expect_err("it is refused").to_string();
        assert!(refused.contains(named), "{refused}");
    }

    #[test]
    fn envelope_has_a_row() {
        let envelope = json!({"status": "OK", "status_code": 0, "messageId": "", "cdls_id": 7});
        assert!(is_envelope(&envelope));
        for field in ["status", "status_code", "messageId", "cdls_id"] {
            let mut other = envelope.clone();
            other[field] = Value::Null;
            assert!(!is_envelope(&other), "{field}");
        }
        assert!(!is_envelope(&json!({})) && !is_envelope(&json!("OK")));
    }
}
