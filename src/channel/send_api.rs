//! The request body of Meta's Send API, which Messenger and Instagram share (contract: "What goes to Graph").

use serde::Serialize;

use super::kind::MessageKind;

/// The content of a request to Graph.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    pub kind: MessageKind,
    /// The recipient's PSID or IGSID.
    pub dest: &'a str,
    /// The text, or the URL of the asset.
    pub mdata: &'a str,
    /// Present where the app has a secret.
    pub appsecret_proof: Option<&'a str>,
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

/// Return the JSON body. `messaging_type` is `RESPONSE`: Instagram takes no other, and Messenger requires a
/// type.
pub fn body(content: &Content<'_>) -> Vec<u8> {
    let message = match content.kind {
        MessageKind::Text => Message::Text(content.mdata),
        kind => Message::Attachment { kind, payload: Payload { url: content.mdata } },
    };
    let body = Body {
        recipient: Recipient { id: content.dest },
        messaging_type: "RESPONSE",
        message,
        appsecret_proof: content.appsecret_proof,
    };
    serde_json::to_vec(&body).expect("texts and words always serialise")
}
