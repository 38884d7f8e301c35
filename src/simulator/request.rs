//! A call, read as Graph reads it: token, proof, content type, body shape. The body shape is the contract's,
//! exactly: a name that Graph would ignore is refused here, and a test notices it.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::refusal::{EXPIRED_TOKEN, NO_TOKEN, PlayedError, WRONG_PROOF, wrong_parameter};

/// Return the public form of a page token: the first 16 hex digits of its SHA-256. The tag distinguishes
/// lines, and holds no part of the token.
pub fn token_tag(token: &str) -> String {
    hex::encode(&ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref()[..8])
}

/// Return the bearer token, or Graph's answer to a call without one.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, PlayedError> {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
        .map(|(_, token)| token.trim())
        .ok_or(NO_TOKEN)
}

/// Return the token of a call that may carry it in its query, or Graph's answer to a call without one.
pub(super) fn token<'a>(headers: &'a HeaderMap, query: &'a str) -> Result<Cow<'a, str>, PlayedError> {
    match bearer(headers) {
        Ok(token) => Ok(Cow::Borrowed(token)),
        Err(error) => parameter(query, "access_token").filter(|token| !token.is_empty()).ok_or(error),
    }
}

/// Return a parameter of a query or a form.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query.as_bytes()).find_map(|(given, value)| (given == name).then_some(value))
}

/// A message that a call asks to send.
#[derive(Debug)]
pub(super) struct AskedMessage<'a> {
    pub dest: Cow<'a, str>,
    pub text: Option<Cow<'a, str>>,
    pub metadata: Option<Cow<'a, str>>,
    pub asset: Option<AskedAsset<'a>>,
}

/// The attachment of a message or an upload.
#[derive(Debug)]
pub(super) struct AskedAsset<'a> {
    /// `type`.
    pub kind: &'static str,
    pub source: AssetSource<'a>,
}

#[derive(Debug)]
pub(super) enum AssetSource<'a> {
    Url(Cow<'a, str>),
    /// `attachment_id` of an upload.
    Id(Cow<'a, str>),
}

/// The demand for `appsecret_proof`. A proof that is given is checked in any case.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProofRule<'a> {
    pub secret: Option<&'a SecretString>,
    pub is_required: bool,
}

/// Return the message of a call, if token, proof, content type and body are valid for Graph.
pub(super) fn message<'a>(
    headers: &HeaderMap,
    query: &str,
    token: &str,
    proof: ProofRule<'_>,
    body: &'a [u8],
) -> Result<AskedMessage<'a>, PlayedError> {
    if token.starts_with("EXPIRED") {
        return Err(EXPIRED_TOKEN);
    }
    // Graph sees no parameters at all in a body of another type.
    if !is_json(headers) {
        return Err(wrong_parameter("(#100) The parameter recipient is required"));
    }
    let call: SendCall<'a> = serde_json::from_slice(body).map_err(|_| {
        wrong_parameter("(#100) Invalid parameter: the body must be recipient, messaging_type and message")
    })?;
    proof.check(token, query, call.appsecret_proof.as_deref())?;
    call.check()
}

/// Return the asset of an upload, if content type, proof and body are valid for Graph.
pub(super) fn upload<'a>(
    headers: &HeaderMap,
    query: &str,
    token: &str,
    proof: ProofRule<'_>,
    body: &'a [u8],
) -> Result<AskedAsset<'a>, PlayedError> {
    if !is_json(headers) {
        return Err(wrong_parameter("(#100) The parameter message is required"));
    }
    let call: UploadCall<'a> = serde_json::from_slice(body).map_err(|_| {
        wrong_parameter("(#100) Invalid parameter: the body must be message with an attachment, and platform")
    })?;
    proof.check(token, query, call.appsecret_proof.as_deref())?;
    if call.platform.is_some_and(|platform| !["messenger", "instagram"].contains(&platform.as_ref())) {
        return Err(wrong_parameter("(#100) Param platform must be one of {MESSENGER, INSTAGRAM}"));
    }
    let asset = call.message.attachment.check()?;
    match asset.source {
        AssetSource::Url(_) => Ok(asset),
        AssetSource::Id(_) => {
            Err(wrong_parameter("(#100) Param message[attachment][payload][url] is required"))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

impl ProofRule<'_> {
    /// Check `appsecret_proof`: the hex HMAC-SHA256 of the token under the app secret (Meta, "Securing Graph
    /// API Requests").
    pub fn check(&self, token: &str, query: &str, in_body: Option<&str>) -> Result<(), PlayedError> {
        use ring::hmac;
        let Some(secret) = self.secret else { return Ok(()) };
        let in_query = parameter(query, "appsecret_proof");
        let Some(given) = in_query.as_deref().or(in_body) else {
            return if self.is_required { Err(WRONG_PROOF) } else { Ok(()) };
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let proof = hex::decode(given).map_err(|_| WRONG_PROOF)?;
        hmac::verify(&key, token.as_bytes(), &proof).map_err(|_| WRONG_PROOF)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendCall<'a> {
    #[serde(borrow)]
    recipient: CallRecipient<'a>,
    #[serde(borrow)]
    messaging_type: Cow<'a, str>,
    #[serde(borrow)]
    message: CallMessage<'a>,
    #[serde(borrow, default)]
    appsecret_proof: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadCall<'a> {
    #[serde(borrow)]
    message: UploadMessage<'a>,
    #[serde(borrow, default)]
    platform: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    appsecret_proof: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UploadMessage<'a> {
    #[serde(borrow)]
    attachment: CallAttachment<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallRecipient<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallMessage<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    attachment: Option<CallAttachment<'a>>,
    #[serde(borrow, default)]
    metadata: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "payload", rename_all = "lowercase", deny_unknown_fields)]
enum CallAttachment<'a> {
    #[serde(borrow)]
    Image(CallPayload<'a>),
    #[serde(borrow)]
    Audio(CallPayload<'a>),
    #[serde(borrow)]
    Video(CallPayload<'a>),
    #[serde(borrow)]
    File(CallPayload<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallPayload<'a> {
    #[serde(borrow, default)]
    url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    attachment_id: Option<Cow<'a, str>>,
    /// Graph then names an id beside the message's; the simulator does not, as no caller needs it.
    #[serde(default, rename = "is_reusable")]
    _is_reusable: Option<bool>,
}

impl<'a> SendCall<'a> {
    fn check(self) -> Result<AskedMessage<'a>, PlayedError> {
        let CallMessage { text, attachment, metadata } = self.message;
        let wrong = if self.recipient.id.trim().is_empty() {
            "(#100) Param recipient[id] must be a valid ID string (e.g., \"123\")"
        } else if self.messaging_type != "RESPONSE" {
            "(#100) Param messaging_type must be RESPONSE: the simulator takes no other"
        } else if metadata.as_ref().is_some_and(|data| data.chars().count() >= 1000) {
            "(#100) Length of param message[metadata] must be less than 1000"
        } else {
            let dest = self.recipient.id;
            match (text, attachment) {
                (Some(text), None) if text.is_empty() => {
                    "(#100) Param message[text] must be a non-empty UTF-8 encoded string"
                }
                (Some(text), None) if text.chars().count() > 2000 => {
                    "(#100) Length of param message[text] must be less than or equal to 2000"
                }
                (Some(text), None) => {
                    return Ok(AskedMessage { dest, text: Some(text), metadata, asset: None });
                }
                (None, Some(attachment)) => {
                    let asset = Some(attachment.check()?);
                    return Ok(AskedMessage { dest, text: None, metadata, asset });
                }
                _ => "(#100) Param message must have either text or attachment",
            }
        };
        Err(wrong_parameter(wrong))
    }
}

impl<'a> CallAttachment<'a> {
    fn check(self) -> Result<AskedAsset<'a>, PlayedError> {
        let (kind, payload) = match self {
            CallAttachment::Image(payload) => ("image", payload),
            CallAttachment::Audio(payload) => ("audio", payload),
            CallAttachment::Video(payload) => ("video", payload),
            CallAttachment::File(payload) => ("file", payload),
        };
        let source = match (payload.url, payload.attachment_id) {
            (Some(url), None) if is_http(&url) => AssetSource::Url(url),
            (None, Some(id)) if !id.is_empty() => AssetSource::Id(id),
            (None, _) => {
                return Err(wrong_parameter(
                    "(#100) Param message[attachment][payload] must have either url or attachment_id",
                ));
            }
            (Some(_), _) => {
                return Err(wrong_parameter(
                    "(#100) Param message[attachment][payload][url] must be a valid URL",
                ));
            }
        };
        Ok(AskedAsset { kind, source })
    }
}

fn is_http(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<String, (u32, &'static str)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        message(&headers, "", "PAT", ProofRule::default(), body.as_bytes())
            .map(|message| message.dest.into_owned())
            .map_err(|error| (error.code, error.message))
    }

    #[test]
    fn text_and_each_kind_of_media_are_taken() {
        let text = r#"{"recipient":{"id":"a\u00e9"},"messaging_type":"RESPONSE","message":{"text":"hi","metadata":"7:1"}}"#;
        assert_eq!(read(text).as_deref(), Ok("aé"));
        for kind in ["image", "audio", "video", "file"] {
            let media = format!(
                r#"{{"recipient":{{"id":"1"}},"messaging_type":"RESPONSE","message":{{"attachment":{{"type":"{kind}","payload":{{"url":"https://example.com/a"}}}}}}}}"#
            );
            assert_eq!(read(&media).as_deref(), Ok("1"), "{kind}");
            let by_id = media.replace(r#""url":"https://example.com/a""#, r#""attachment_id":"1857""#);
            assert_eq!(read(&by_id).as_deref(), Ok("1"), "{kind}");
        }
    }

    #[test]
    fn any_other_shape_is_code_100() {
        for body in [
            "",
            "{",
            "[]",
            r#"{"recipient":{"id":"1"},"message":{"text":"hi"}}"#,
            r#"{"recipient":{"id":1},"messaging_type":"RESPONSE","message":{"text":"hi"}}"#,
            r#"{"recipient":{"id":" "},"messaging_type":"RESPONSE","message":{"text":"hi"}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"UPDATE","message":{"text":"hi"}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","tag":"HUMAN_AGENT","message":{"text":"hi"}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"text":""}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"attachment":{"type":"sticker","payload":{"url":"https://example.com/a"}}}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"attachment":{"type":"image","payload":{"url":"/a"}}}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"attachment":{"type":"image","payload":{"url":"https://example.com/a","attachment_id":"1857"}}}}"#,
            r#"{"recipient":{"id":"1"},"messaging_type":"RESPONSE","message":{"attachment":{"type":"image","payload":{"is_reusable":true}}}}"#,
        ] {
            assert_eq!(read(body).unwrap_err().0, 100, "{body}");
        }
    }

    #[test]
    fn proof_of_another_token_is_refused() {
        use ring::hmac;
        let secret = SecretString::from("app secret");
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"app secret");
        let query = |token: &str| {
            format!("appsecret_proof={}", hex::encode(hmac::sign(&key, token.as_bytes()).as_ref()))
        };
        let required = ProofRule { secret: Some(&secret), is_required: true };
        assert_eq!(required.check("PAT", &query("PAT"), None), Ok(()));
        assert_eq!(required.check("PAT", &query("other"), None), Err(WRONG_PROOF));
        assert_eq!(required.check("PAT", "", None), Err(WRONG_PROOF));
        let optional = ProofRule { is_required: false, ..required };
        assert_eq!(optional.check("PAT", "", None), Ok(()));
        assert_eq!(optional.check("PAT", &query("other"), None), Err(WRONG_PROOF));
    }

    #[test]
    fn upload_takes_a_url_alone() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
        let read = |body: &str| {
            upload(&headers, "", "PAT", ProofRule::default(), body.as_bytes())
                .map(|asset| asset.kind)
                .map_err(|error| error.code)
        };
        let good = r#"{"message":{"attachment":{"type":"video","payload":{"url":"https://example.com/a","is_reusable":true}}},"platform":"instagram"}"#;
        assert_eq!(read(good), Ok("video"));
        assert_eq!(read(&good.replace("instagram", "myspace")), Err(100));
        let by_id = r#"{"message":{"attachment":{"type":"video","payload":{"attachment_id":"1"}}}}"#;
        assert_eq!(read(by_id), Err(100));
    }

    #[test]
    fn tag_reveals_nothing_of_its_token() {
        let tag = token_tag("EAAG1234");
        assert_eq!(tag.len(), 16);
        assert_ne!(tag, token_tag("EAAG1235"));
        assert!(!tag.contains("1234"));
    }
}
