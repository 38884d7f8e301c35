//! The body of `POST /me/messages` (Meta, "Send API Reference").

use secrecy::SecretString;
use serde::Serialize;

use crate::message::{Class, MessageKind};

/// One message to be sent.
pub struct Call<'a> {
    pub class: Class,
    pub kind: MessageKind,
    pub dest: &'a str,
    /// The text, or the URL of the asset.
    pub mdata: &'a str,
    pub page_token: &'a SecretString,
}

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
#[serde(rename_all = "lowercase")]
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

impl Call<'_> {
    /// The JSON to be posted. RESPONSE is sent on both classes, and a tag on none: outside the 24-hour window Graph
    /// refuses, and the message ends as ERROR.
    pub fn body(&self, appsecret_proof: Option<&str>) -> Vec<u8> {
        let message = match self.kind {
            MessageKind::Text => Message::Text(self.mdata),
            kind => Message::Attachment { kind, payload: Payload { url: self.mdata } },
        };
        let body = Body {
            recipient: Recipient { id: self.dest },
            messaging_type: "RESPONSE",
            message,
            appsecret_proof,
        };
        serde_json::to_vec(&body).expect("texts and words are always JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: MessageKind, mdata: &str, proof: Option<&str>) -> String {
        let page_token = SecretString::from("EAA");
        let call = Call { class: Class::Messenger, kind, dest: "2531", mdata, page_token: &page_token };
        String::from_utf8(call.body(proof)).expect("JSON is UTF-8")
    }

    #[test]
    fn a_text_is_posted_exactly_as_documented() {
        assert_eq!(
            body(MessageKind::Text, "Olá \"Ann\"\n", None),
            r#"{"recipient":{"id":"2531"},"messaging_type":"RESPONSE","message":{"text":"Olá \"Ann\"\n"}}"#
        );
    }

    #[test]
    fn media_is_posted_exactly_as_documented() {
        for kind in [MessageKind::Image, MessageKind::Audio, MessageKind::Video, MessageKind::File] {
            let expected = format!(
                r#"{{"recipient":{{"id":"2531"}},"messaging_type":"RESPONSE","message":{{"attachment":{{"type":"{kind}","payload":{{"url":"https://e.com/a?b=c"}}}}}}}}"#
            );
            assert_eq!(body(kind, "https://e.com/a?b=c", None), expected);
        }
    }

    #[test]
    fn the_secrets_proof_stands_in_the_body() {
        assert!(
            body(MessageKind::Text, "hi", Some("abc"))
                .ends_with(r#""message":{"text":"hi"},"appsecret_proof":"abc"}"#)
        );
    }
}
