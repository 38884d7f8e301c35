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
    /// The id of the uploaded asset, which is then sent in place of its URL.
    pub attachment_id: Option<&'a str>,
    /// A text that comes back with the message's echo.
    pub metadata: Option<&'a str>,
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
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment: Option<Attachment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
}

#[derive(Serialize)]
struct Attachment<'a> {
    #[serde(rename = "type")]
    kind: MessageKind,
    payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Payload<'a> {
    Url(&'a str),
    AttachmentId(&'a str),
}

/// Return the JSON body. `messaging_type` is `RESPONSE`: Instagram takes no other, and Messenger requires a
/// type.
pub fn body(content: &Content<'_>) -> Vec<u8> {
    let is_text = content.kind == MessageKind::Text;
    let message = Message {
        text: is_text.then_some(content.mdata),
        attachment: (!is_text).then(|| Attachment { kind: content.kind, payload: payload(content) }),
        metadata: content.metadata,
    };
    let body = Body {
        recipient: Recipient { id: content.dest },
        messaging_type: "RESPONSE",
        message,
        appsecret_proof: content.appsecret_proof,
    };
    serde_json::to_vec(&body).expect("texts and words always serialise")
}

fn payload<'a>(content: &Content<'a>) -> Payload<'a> {
    content.attachment_id.map_or(Payload::Url(content.mdata), Payload::AttachmentId)
}

/// The content of a request that uploads an asset.
#[derive(Debug, Clone, Copy)]
pub struct Asset<'a> {
    pub kind: MessageKind,
    pub url: &'a str,
    /// As in [`Channel::upload_platform`](super::Channel::upload_platform).
    pub platform: Option<&'a str>,
    /// Present where the app has a secret.
    pub appsecret_proof: Option<&'a str>,
}

#[derive(Serialize)]
struct UploadBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    message: UploadMessage<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    appsecret_proof: Option<&'a str>,
}

#[derive(Serialize)]
struct UploadMessage<'a> {
    attachment: UploadAttachment<'a>,
}

#[derive(Serialize)]
struct UploadAttachment<'a> {
    #[serde(rename = "type")]
    kind: MessageKind,
    payload: UploadPayload<'a>,
}

#[derive(Serialize)]
struct UploadPayload<'a> {
    url: &'a str,
    is_reusable: bool,
}

/// Return the JSON body of an upload (Meta, Messenger Platform, "Saving Assets").
pub fn upload_body(asset: &Asset<'_>) -> Vec<u8> {
    let Asset { kind, url, platform, appsecret_proof } = *asset;
    let attachment = UploadAttachment { kind, payload: UploadPayload { url, is_reusable: true } };
    let body = UploadBody { platform, message: UploadMessage { attachment }, appsecret_proof };
    serde_json::to_vec(&body).expect("texts and words always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploaded_asset_is_sent_by_its_id() {
        let content = Content {
            kind: MessageKind::Image,
            dest: "1",
            mdata: "https://example.com/a.png",
            attachment_id: Some("77"),
            metadata: None,
            appsecret_proof: None,
        };
        assert_eq!(
            String::from_utf8(body(&content)).expect("JSON is UTF-8"),
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"attachment":{"type":"image","payload":{"attachment_id":"77"}}}}"#
        );
    }

    #[test]
    fn upload_names_the_platform_where_one_is_due() {
        let asset = Asset {
            kind: MessageKind::Image,
            url: "https://example.com/a.png",
            platform: Some("instagram"),
            appsecret_proof: None,
        };
        let written = |asset: &Asset<'_>| String::from_utf8(upload_body(asset)).expect("JSON is UTF-8");
        assert_eq!(
            written(&asset),
            r#"{"platform":"instagram","message":{"attachment":{"type":"image","payload":{"url":"https://example.com/a.png","is_reusable":true}}}}"#
        );
        let asset = Asset { platform: None, appsecret_proof: Some("ab"), ..asset };
        assert_eq!(
            written(&asset),
            r#"{"message":{"attachment":{"type":"image","payload":{"url":"https://example.com/a.png","is_reusable":true}}},"appsecret_proof":"ab"}"#
        );
    }
}
