//! The metadata of a Messenger message: names the row and its claim in a form that only this program can write.
//!
//! Meta returns the text with the echo of the message. The tag proves that the program wrote the text: another program
//! of the same Page may send any metadata. Never here: the settings from which the key is made, and what follows from
//! an echo.

use ring::hmac;
use subtle::ConstantTimeEq;

use super::RowId;

/// The beginning of the form that this version writes and reads.
const VERSION: &str = "md1";

/// Signed before the app secret, so that the key is used for nothing else.
const KEY_LABEL: &[u8] = b"meta-dispatch/metadata/v1";

/// Bytes of the signature that make the tag.
const TAG_BYTES: usize = 16;

/// Longer than any metadata of this version; Meta takes less than 1,000 characters.
const MAX_CHARS: usize = 80;

/// The key of tags. `Debug` does not print it.
#[derive(Debug, Clone)]
pub struct MetadataKey(hmac::Key);

impl MetadataKey {
    /// Derive the key from the secrets of the webhook; `None` without a verify token: webhooks are off.
    pub fn derive(verify_token: &str, app_secret: &str) -> Option<MetadataKey> {
        if verify_token.is_empty() {
            return None;
        }
        let outer = hmac::Key::new(hmac::HMAC_SHA256, verify_token.as_bytes());
        let mut context = hmac::Context::with_key(&outer);
        context.update(KEY_LABEL);
        context.update(app_secret.as_bytes());
        Some(MetadataKey(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())))
    }

    fn tag(&self, text: &str) -> String {
        hex::encode(&hmac::sign(&self.0, text.as_bytes()).as_ref()[..TAG_BYTES])
    }
}

/// The metadata of a message.
pub struct Metadata;

impl Metadata {
    /// Return the metadata of a row's call. `attempt` is the fence of the call's claim, which each claim of a row has
    /// for itself.
    pub fn write(key: &MetadataKey, row: RowId, attempt: i32) -> String {
        let text = format!("{VERSION}.{row}.{attempt}");
        let tag = key.tag(&text);
        format!("{text}.{tag}")
    }

    /// Read a text of an echo; `None` for one that this program did not write under this key.
    pub fn read(key: &MetadataKey, text: &str) -> Option<(RowId, i32)> {
        if text.len() > MAX_CHARS {
            return None;
        }
        let (signed, tag) = text.rsplit_once('.')?;
        let is_ours: bool = key.tag(signed).as_bytes().ct_eq(tag.as_bytes()).into();
        if !is_ours {
            return None;
        }
        let mut parts = signed.split('.');
        let (version, row, attempt) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = version == VERSION && parts.next().is_none();
        is_whole.then_some(())?;
        Some((row.parse().ok()?, attempt.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn key(verify_token: &str, app_secret: &str) -> MetadataKey {
        MetadataKey::derive(verify_token, app_secret).expect("webhooks are on")
    }

    #[rstest]
    #[case(RowId(1), 1)]
    #[case(RowId(0), 0)]
    #[case(RowId(i64::MAX), i32::MAX)]
    fn written_metadata_is_read(#[case] row: RowId, #[case] attempt: i32) {
        let key = key("verify", "secret");
        let text = Metadata::write(&key, row, attempt);
        assert!(text.len() <= MAX_CHARS && text.is_ascii(), "{text}");
        assert_eq!(Metadata::read(&key, &text), Some((row, attempt)));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = key("verify", "secret");
        let text = Metadata::write(&key, RowId(4711), 3);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(bytes).expect("it stays ASCII");
            assert_eq!(Metadata::read(&key, &changed), None, "{changed}");
        }
    }

    #[rstest]
    #[case("")]
    #[case("md1")]
    #[case("md1.7.1")]
    #[case("md1.7.1.")]
    #[case("md1.7.1.00000000000000000000000000000000")]
    #[case("order 4711")]
    #[case("....")]
    fn foreign_text_is_left_alone(#[case] text: &str) {
        assert_eq!(Metadata::read(&key("verify", "secret"), text), None);
        assert_eq!(Metadata::read(&key("verify", "secret"), &text.repeat(500)), None);
    }

    #[test]
    fn other_secrets_read_nothing() {
        let text = Metadata::write(&key("verify", "secret"), RowId(7), 1);
        for (verify_token, app_secret) in [("other", "secret"), ("verify", "other"), ("verifysecret", "")] {
            assert_eq!(Metadata::read(&key(verify_token, app_secret), &text), None);
        }
        assert!(MetadataKey::derive("", "secret").is_none(), "webhooks are off");
    }
}
