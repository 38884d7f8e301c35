//! The request to Graph for one message (contract: "What goes to Graph").

use reqwest::header::HeaderValue;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

use crate::channel::{Class, Content, MessageKind};

/// One message to send. `Debug` does not print the token.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub class: Class,
    pub kind: MessageKind,
    /// The recipient's PSID or IGSID.
    pub dest: &'a str,
    /// The text, or the URL of the asset.
    pub mdata: &'a str,
    /// The line's page access token in clear.
    pub page_token: &'a SecretString,
}

/// Return the JSON body of a call, with `appsecret_proof` if the app has a secret.
pub(super) fn body(call: &Call<'_>, app_secret: Option<&hmac::Key>) -> Vec<u8> {
    let proof = app_secret.map(|key| appsecret_proof(key, call.page_token));
    let content =
        Content { kind: call.kind, dest: call.dest, mdata: call.mdata, appsecret_proof: proof.as_deref() };
    (call.class.body)(&content)
}

/// Return the hex HMAC-SHA256 of the token, keyed with the app's secret (Meta, Graph API, "Secure Requests").
fn appsecret_proof(key: &hmac::Key, page_token: &SecretString) -> String {
    hex::encode(hmac::sign(key, page_token.expose_secret().as_bytes()))
}

/// Return the `Authorization` header of a line's calls; `None` for a token that fits no header, or is blank.
pub(super) fn authorization(page_token: &SecretString) -> Option<HeaderValue> {
    let token = page_token.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn text(body: Vec<u8>) -> String {
        String::from_utf8(body).expect("JSON is UTF-8")
    }

    #[test]
    fn with_an_app_secret_the_body_carries_the_proof() {
        // Test case 2 of RFC 4231: key "Jefe", data "what do ya want for nothing?".
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let token = SecretString::from("what do ya want for nothing?");
        let call = Call {
            class: Class::MESSENGER,
            kind: MessageKind::Text,
            dest: "1",
            mdata: "hi",
            page_token: &token,
        };
        assert_eq!(
            text(body(&call, Some(&key))),
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"text":"hi"},"appsecret_proof":"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"}"#
        );
    }

    #[rstest]
    #[case("")]
    #[case("  ")]
    #[case("EAA\ntoken")]
    #[case("EAA\0token")]
    #[case("EAA token")]
    #[case("EAA-tóken")]
    fn a_token_that_fits_no_header_is_refused(#[case] token: &str) {
        assert_eq!(authorization(&SecretString::from(token)), None);
    }

    #[test]
    fn the_authorization_header_hides_its_value() {
        let header = authorization(&SecretString::from("EAAtoken")).expect("a plain token fits");
        assert_eq!(header.as_bytes(), b"Bearer EAAtoken");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
