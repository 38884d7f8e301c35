//! The place of a line's calls: the host that its token belongs to, and the object in the path.

use std::sync::Arc;

use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::channel::Login;
use crate::text::is_blank;

/// A host of Meta's Graph API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Host {
    /// `graph.base_url`: graph.facebook.com.
    #[default]
    Facebook,
    /// `graph.instagram_base_url`: graph.instagram.com.
    Instagram,
}

impl Host {
    pub const ALL: [Host; 2] = [Host::Facebook, Host::Instagram];

    /// Return the setting of the host.
    pub const fn key(self) -> &'static str {
        match self {
            Host::Facebook => "graph.base_url",
            Host::Instagram => "graph.instagram_base_url",
        }
    }
}

/// The place of a line's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `me` at graph.facebook.com: the Page of the token.
    Facebook,
    /// `me` at graph.instagram.com: the account of the token.
    Instagram,
    /// An Instagram account by its id, at graph.facebook.com: `me` is a system user there.
    Unified { account: Arc<str> },
}

impl Endpoint {
    /// Return the place of a line that is connected in this way; `None` where an id is missing.
    pub fn of(login: Login, instagram_account_id: Option<&str>) -> Option<Endpoint> {
        match login {
            Login::Facebook => Some(Endpoint::Facebook),
            Login::Instagram => Some(Endpoint::Instagram),
            Login::Unified => {
                let account = instagram_account_id.filter(|id| !is_blank(id))?;
                Some(Endpoint::Unified { account: account.into() })
            }
        }
    }

    pub fn host(&self) -> Host {
        match self {
            Endpoint::Facebook | Endpoint::Unified { .. } => Host::Facebook,
            Endpoint::Instagram => Host::Instagram,
        }
    }

    /// Return the object of the path.
    pub fn object(&self) -> &str {
        match self {
            Endpoint::Facebook | Endpoint::Instagram => "me",
            Endpoint::Unified { account } => account,
        }
    }
}

/// The secret of a Meta app, which proves that a call comes from the app. `Debug` does not print it.
#[derive(Debug, Clone)]
pub struct AppSecret(hmac::Key);

impl AppSecret {
    /// Return the key of a secret; `None` for an empty one.
    pub fn of(secret: &SecretString) -> Option<AppSecret> {
        let secret = secret.expose_secret();
        (!secret.is_empty()).then(|| AppSecret(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// Return `appsecret_proof`: the hex HMAC-SHA256 of the token, keyed with the secret (Meta, Graph API, "Secure
    /// Requests").
    pub fn proof(&self, token: &SecretString) -> String {
        hex::encode(hmac::sign(&self.0, token.expose_secret().as_bytes()))
    }
}

/// Return `{base}/{path}`, whether or not the base ends in a slash. Segments are percent-encoded.
pub(super) fn with_path(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    // The base was checked when the client was built: an http(s) URL has segments.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_page(Login::Facebook, Some("17"), Some("https://f.example/v25.0/me/messages"))]
    #[case::an_instagram_account(Login::Instagram, None, Some("https://i.example/v25.0/me/messages"))]
    #[case::a_system_user(Login::Unified, Some("17"), Some("https://f.example/v25.0/17/messages"))]
    #[case::an_id_with_a_slash(Login::Unified, Some("1/7"), Some("https://f.example/v25.0/1%2F7/messages"))]
    #[case::a_system_user_without_an_id(Login::Unified, None, None)]
    #[case::a_system_user_with_a_blank_id(Login::Unified, Some(" "), None)]
    fn way_decides_host_and_path(
        #[case] login: Login,
        #[case] id: Option<&str>,
        #[case] expected: Option<&str>,
    ) {
        let url = Endpoint::of(login, id).map(|endpoint| {
            let base = match endpoint.host() {
                Host::Facebook => "https://f.example/v25.0/",
                Host::Instagram => "https://i.example/v25.0",
            };
            with_path(&base.parse().expect("a URL"), &[endpoint.object(), "messages"])
        });
        assert_eq!(url.as_ref().map(Url::as_str), expected);
    }

    #[test]
    fn proof_is_that_of_the_standard() {
        // Test case 2 of RFC 4231: key "Jefe", data "what do ya want for nothing?".
        let secret = AppSecret::of(&"Jefe".into()).expect("a secret");
        assert_eq!(
            secret.proof(&"what do ya want for nothing?".into()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(AppSecret::of(&"".into()).is_none() && !format!("{secret:?}").contains("Jefe"));
    }
}
