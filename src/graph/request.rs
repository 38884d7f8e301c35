//! The request to Graph for one message (contract: "What goes to Graph").

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::endpoint::{AppSecret, Endpoint};
use crate::channel::{Class, Content, MessageKind};

/// One message to send. `Debug` does not print the token.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Host and path of the line's calls.
    pub endpoint: &'a Endpoint,
    /// The secret of the line's own app, if it has one.
    pub app_secret: Option<&'a AppSecret>,
    pub class: Class,
    pub kind: MessageKind,
    /// The recipient's PSID or IGSID.
    pub dest: &'a str,
    /// The text, or the URL of the asset.
    pub mdata: &'a str,
    /// The id of the uploaded asset, which is then sent in place of its URL.
    pub attachment_id: Option<&'a str>,
    /// The text that comes back with the message's echo.
    pub metadata: Option<&'a str>,
    /// The line's page access token in clear.
    pub page_token: &'a SecretString,
}

/// The line in whose name a call is made that is no message. `Debug` does not print the token.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    pub endpoint: &'a Endpoint,
    pub app_secret: Option<&'a AppSecret>,
    pub page_token: &'a SecretString,
}

/// Return the JSON body of a call, with `appsecret_proof` if the app has a secret.
pub(super) fn body(call: &Call<'_>, app_secret: Option<&AppSecret>) -> Vec<u8> {
    let proof = app_secret.map(|secret| secret.proof(call.page_token));
    let content = Content {
        kind: call.kind,
        dest: call.dest,
        mdata: call.mdata,
        attachment_id: call.attachment_id,
        metadata: call.metadata,
        appsecret_proof: proof.as_deref(),
    };
    (call.class.body)(&content)
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
        let secret = AppSecret::of(&"Jefe".into()).expect("a secret");
        let token = SecretString::from("what do ya want for nothing?");
        let call = Call {
            endpoint: &Endpoint::Facebook,
            app_secret: None,
            class: Class::MESSENGER,
            kind: MessageKind::Text,
            dest: "1",
            mdata: "hi",
            attachment_id: None,
            metadata: None,
            page_token: &token,
        };
        assert_eq!(
            text(body(&call, Some(&secret))),
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
