//! A call, read as Graph reads it: token, proof, content type, body shape. The body shape is the contract's,
//! exactly: a name that Graph would ignore is refused here, and a test notices it.

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::outcome::{EXPIRED_TOKEN, NO_TOKEN, PlayedError, WRONG_PROOF, wrong_parameter};

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

/// Return the recipient of a call, if token, proof, content type and body are valid for Graph.
pub(super) fn recipient<'a>(
    headers: &HeaderMap,
    query: &str,
    token: &str,
    app_secret: Option<&SecretString>,
    body: &'a [u8],
) -> Result<Cow<'a, str>, PlayedError> {
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
    if let Some(secret) = app_secret {
        check_proof(secret, token, query, call.appsecret_proof.as_deref())?;
    }
    call.check()?;
    Ok(call.recipient.id)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Check `appsecret_proof`: the hex HMAC-SHA256 of the token under the app secret (Meta, "Securing Graph API
/// Requests").
fn check_proof(
    secret: &SecretString,
    token: &str,
    query: &str,
    in_body: Option<&str>,
) -> Result<(), PlayedError> {
    use ring::hmac;
    let in_query = url::form_urlencoded::parse(query.as_bytes())
        .find_map(|(name, value)| (name == "appsecret_proof").then_some(value));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    in_query
        .as_deref()
        .or(in_body)
        .and_then(|proof| hex::decode(proof).ok())
        .filter(|proof| hmac::verify(&key, token.as_bytes(), proof).is_ok())
        .map(drop)
        .ok_or(WRONG_PROOF)
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
    #[serde(borrow)]
    url: Cow<'a, str>,
}

impl SendCall<'_> {
    fn check(&self) -> Result<(), PlayedError> {
        let wrong = if self.recipient.id.trim().is_empty() {
            "(#100) Param recipient[id] must be a valid ID string (e.g., \"123\")"
        } else if self.messaging_type != "RESPONSE" {
            "(#100) Param messaging_type must be RESPONSE: the simulator takes no other"
        } else if self.message.metadata.as_ref().is_some_and(|data| data.chars().count() >= 1000) {
            "(#100) Length of param message[metadata] must be less than 1000"
        } else {
            match (&self.message.text, &self.message.attachment) {
                (Some(text), None) if text.is_empty() => {
                    "(#100) Param message[text] must be a non-empty UTF-8 encoded string"
                }
                (Some(text), None) if text.chars().count() > 2000 => {
                    "(#100) Length of param message[text] must be less than or equal to 2000"
                }
                (Some(_), None) => return Ok(()),
                (None, Some(attachment)) => return attachment.check(),
                _ => "(#100) Param message must have either text or attachment",
            }
        };
        Err(wrong_parameter(wrong))
    }
}

impl CallAttachment<'_> {
    fn check(&self) -> Result<(), PlayedError> {
        let (CallAttachment::Image(payload)
        | CallAttachment::Audio(payload)
        | CallAttachment::Video(payload)
        | CallAttachment::File(payload)) = self;
        url::Url::parse(&payload.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .map(drop)
            .ok_or(wrong_parameter("(#100) Param message[attachment][payload][url] must be a valid URL"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<String, (u32, &'static str)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        recipient(&headers, "", "PAT", None, body.as_bytes())
            .map(Cow::into_owned)
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
        assert_eq!(check_proof(&secret, "PAT", &query("PAT"), None), Ok(()));
        assert_eq!(check_proof(&secret, "PAT", &query("other"), None), Err(WRONG_PROOF));
        assert_eq!(check_proof(&secret, "PAT", "", None), Err(WRONG_PROOF));
    }

    #[test]
    fn tag_reveals_nothing_of_its_token() {
        let tag = token_tag("EAAG1234");
        assert_eq!(tag.len(), 16);
        assert_ne!(tag, token_tag("EAAG1235"));
        assert!(!tag.contains("1234"));
    }
}
