//! The signature of a body: `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA-256 over the bytes as they came.
//!
//! Meta escapes letters outside ASCII as `\u00e9`, and signs that text: a body that was read and written anew has another
//! signature. Never here: a body's meaning.

use ring::hmac;

use super::apps::AppSecrets;

/// The header with the signature.
pub const HEADER: &str = "x-hub-signature-256";
const ALGORITHM: &str = "sha256=";
const TAG_BYTES: usize = 32;

/// A signature as a request gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; TAG_BYTES]);

impl Signature {
    /// Read the signature of a request by the values of its header; `None` without one, with several that differ, or with a
    /// malformed one.
    pub fn of<'v>(mut values: impl Iterator<Item = &'v [u8]>) -> Option<Signature> {
        let first = values.next()?;
        if values.any(|value| value != first) {
            return None;
        }
        let tag = str::from_utf8(first).ok()?.trim().strip_prefix(ALGORITHM)?;
        let mut bytes = [0; TAG_BYTES];
        hex::decode_to_slice(tag, &mut bytes).ok()?;
        Some(Signature(bytes))
    }

    /// Return the app whose secret has signed the body; an app without an id is that of the settings. The comparison takes
    /// the same time for each tag.
    pub fn signer<'s>(&self, body: &[u8], secrets: &'s [AppSecrets]) -> Option<&'s AppSecrets> {
        secrets.iter().find(|secrets| {
            let key = secrets.signs.as_ref();
            key.is_some_and(|key| hmac::verify(key, body, &self.0).is_ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BODY: &[u8] = br#"{"object":"page","entry":[{"messaging":[{"message":{"text":"caf\u00e9"}}]}]}"#;

    fn app(id: Option<&str>, secret: &str) -> AppSecrets {
        let signs = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        AppSecrets { id: id.map(str::to_owned), signs: Some(signs), verify_token: None }
    }

    fn read(values: &[&str]) -> Option<Signature> {
        Signature::of(values.iter().map(|value| value.as_bytes()))
    }

    fn signed_by(secret: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        format!("{ALGORITHM}{}", hex::encode(hmac::sign(&key, BODY)))
    }

    fn signer(value: &str, body: &[u8]) -> Option<Option<String>> {
        let apps = [
            AppSecrets { id: None, signs: None, verify_token: None },
            app(Some("1"), "first"),
            app(Some("2"), "second"),
        ];
        read(&[value])?.signer(body, &apps).map(|app| app.id.clone())
    }

    #[test]
    fn body_is_signed_by_one_of_several_apps() {
        assert_eq!(signer(&signed_by("second"), BODY), Some(Some("2".to_owned())));
        assert_eq!(signer(&signed_by("third"), BODY), None);
        assert!(signer(&signed_by("second").to_uppercase().replace("SHA", "sha"), BODY).is_some());
    }

    #[test]
    fn raw_bytes_count() {
        let unescaped = String::from_utf8_lossy(BODY).replace("\\u00e9", "é");
        assert_eq!(signer(&signed_by("first"), unescaped.as_bytes()), None);
        assert_eq!(signer(&signed_by("first"), &BODY[..BODY.len() - 1]), None);
    }

    #[test]
    fn signature_is_that_of_rfc_4231() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let value = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let signature = read(&[value]).unwrap();
        let app = AppSecrets { id: None, signs: Some(key), verify_token: None };
        assert!(signature.signer(b"what do ya want for nothing?", &[app]).is_some());
    }

    #[rstest]
    #[case::none(&[])]
    #[case::sha1(&["sha1=0011"])]
    #[case::no_algorithm(&["5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"])]
    #[case::short(&["sha256=5bdcc146"])]
    #[case::no_hex(&["sha256=zzdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"])]
    #[case::two_that_differ(&[
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "sha256=00dcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ])]
    fn malformed_signature_is_none(#[case] values: &[&str]) {
        assert_eq!(read(values), None);
    }
}
