//! Questions to Meta about a token: its facts (`debug_token`), and its successor (`refresh_access_token`).
//!
//! Meta takes the token in question as a parameter of the URL alone. These URLs are never logged, and never part of an
//! error.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::client::no_token;
use super::endpoint::{Host, with_path};
use super::request::authorization;
use super::{Caller, GraphClient};
use crate::policy::classify::CallResult;

/// The app that asks about a token: its id, and the access token `id|secret`.
#[derive(Debug, Clone, Copy)]
pub struct AskingApp<'a> {
    pub id: &'a str,
    pub secret: &'a SecretString,
}

impl GraphClient {
    /// Ask for the facts about a line's token. The app asks, if its id and secret are known, else the token itself.
    pub async fn debug_token(&self, caller: &Caller<'_>, app: Option<AskingApp<'_>>) -> CallResult {
        let mut url = self.url(Host::Facebook, &["debug_token"]);
        url.query_pairs_mut().append_pair("input_token", caller.page_token.expose_secret());
        let app_token =
            app.map(|app| SecretString::from(format!("{}|{}", app.id, app.secret.expose_secret())));
        let request = match &app_token {
            Some(token) => authorization(token)
                .map(|header| self.plain_request(Method::GET, url).header(AUTHORIZATION, header)),
            None => self.request(Method::GET, url, caller),
        };
        let Some(request) = request else { return no_token() };
        let secrets: Vec<&SecretString> =
            [Some(caller.page_token), app_token.as_ref()].into_iter().flatten().collect();
        self.ask(request, self.short_timeout(), &secrets).await
    }

    /// Ask for the successor of a token of Instagram Login. The body of the answer holds a token: it must not be
    /// logged.
    pub async fn refresh_token(&self, token: &SecretString) -> CallResult {
        let mut url = with_path(&unversioned(&self.url(Host::Instagram, &[])), &["refresh_access_token"]);
        url.query_pairs_mut()
            .append_pair("grant_type", "ig_refresh_token")
            .append_pair("access_token", token.expose_secret());
        // The successor may be the same text, which is not to be removed from the answer.
        self.ask(self.plain_request(Method::GET, url), self.short_timeout(), &[]).await
    }
}

/// Return a base URL without the version at its end: the call has none.
fn unversioned(base: &Url) -> Url {
    let mut url = base.clone();
    let last = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_version = last.strip_prefix('v').is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    });
    if is_version && let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().pop();
    }
    url
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://graph.instagram.com/v25.0", "https://graph.instagram.com/refresh_access_token")]
    #[case("https://graph.instagram.com/v25.0/", "https://graph.instagram.com/refresh_access_token")]
    #[case("https://graph.instagram.com", "https://graph.instagram.com/refresh_access_token")]
    #[case("https://gate.example/ig/v25.0", "https://gate.example/ig/refresh_access_token")]
    #[case("https://gate.example/video", "https://gate.example/video/refresh_access_token")]
    fn version_is_left_out(#[case] base: &str, #[case] expected: &str) {
        let url = with_path(&unversioned(&base.parse().expect("a URL")), &["refresh_access_token"]);
        assert_eq!(url.as_str(), expected);
    }
}
