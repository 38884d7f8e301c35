//! What goes to Graph for one message (contract: "What goes to Graph").

use aws_lc_rs::hmac;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::message::{Class, MessageKind};

/// One message to be sent. Printing it shows no token.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Both classes have the same body; Instagram takes `RESPONSE` only, and Messenger requires a type.
    pub class: Class,
    pub kind: MessageKind,
    /// The recipient's PSID or IGSID.
    pub dest: &'a str,
    /// The text, or the URL of the asset.
    pub mdata: &'a str,
    /// The line's page access token, in plain.
    pub page_token: &'a SecretString,
}

/// Keys in the order that the contract prints.
#[derive(Serialize)]
struct Body<'a> {
    recipient: Recipient<'a>,
    messaging_type: &'static str,
    message: Message<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    appsecret_proof: Option<&'a str>,
}

#[derive(Serialize)]
struct Recipient<'a> {
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Message<'a> {
    Text(&'a str),
    Attachment {
        #[serde(rename = "type")]
        kind: MessageKind,
        payload: Payload<'a>,
    },
}

#[derive(Serialize)]
struct Payload<'a> {
    url: &'a str,
}

/// The JSON body of a call; with `appsecret_proof` if the app has a secret.
pub(super) fn body(call: &Call<'_>, app_secret: Option<&hmac::Key>) -> Vec<u8> {
    let proof = app_secret.map(|key| appsecret_proof(key, call.page_token));
    let message = match call.kind {
        MessageKind::Text => Message::Text(call.mdata),
        kind => Message::Attachment { kind, payload: Payload { url: call.mdata } },
    };
    let body = Body {
        recipient: Recipient { id: call.dest },
        messaging_type: "RESPONSE",
        message,
        appsecret_proof: proof.as_deref(),
    };
    serde_json::to_vec(&body).expect("texts and words always serialise")
}

/// Hex HMAC-SHA256 of the token, keyed with the app's secret (Meta, Graph API, "Secure Requests").
fn appsecret_proof(key: &hmac::Key, page_token: &SecretString) -> String {
    hex::encode(hmac::sign(key, page_token.expose_secret().as_bytes()))
}

/// The `Authorization` header of a line's calls; `None` for a token that fits no header, or is none at all.
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

    #[rstest]
    fn a_text_is_sent_exactly_so_on_both_classes(#[values(Class::Messenger, Class::Instagram)] class: Class) {
        let token = SecretString::from("EAAtoken");
        let call =
            Call {
                class, kind: MessageKind::Text, dest: "2531", mdata: "Olá \"x\"\n😀", page_token: &token
            };
        assert_eq!(
            text(body(&call, None)),
            r#"{"recipient":{"id":"2531"},"messaging_type":"RESPONSE","message":{"text":"Olá \"x\"\n😀"}}"#
        );
    }

    #[rstest]
    #[case(MessageKind::Image, "image")]
    #[case(MessageKind::Audio, "audio")]
    #[case(MessageKind::Video, "video")]
    #[case(MessageKind::File, "file")]
    fn media_is_sent_exactly_so_on_both_classes(
        #[case] kind: MessageKind,
        #[case] word: &str,
        #[values(Class::Messenger, Class::Instagram)] class: Class,
    ) {
        let token = SecretString::from("EAAtoken");
        let mdata = "https://cdn.example/a?b=1&c=%20";
        let call = Call { class, kind, dest: "1784", mdata, page_token: &token };
        let expected = format!(
            r#"{{"recipient":{{"id":"1784"}},"messaging_type":"RESPONSE","message":{{"attachment":{{"type":"{word}","payload":{{"url":"{mdata}"}}}}}}}}"#
        );
        assert_eq!(text(body(&call, None)), expected);
    }

    #[test]
    fn with_an_app_secret_the_body_carries_the_proof() {
        // Test case 2 of RFC 4231: key "Jefe", data "what do ya want for nothing?".
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let token = SecretString::from("what do ya want for nothing?");
        let call = Call {
            class: Class::Messenger,
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
