//! Secrets at rest: a secret is sealed before it is stored, and opened where it is used.
//!
//! A sealed secret reads `enc:v1:KEY_ID:DATA`. DATA is nonce, ciphertext and tag of AES-256-GCM in base64 (for
//! URLs, without padding); the associated data bind it to its purpose, so that a text that was copied to
//! another place does not open. Never here: where keys and secrets are kept, and the treatment of a secret
//! that does not open.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::LineId;

/// The length of a key in bytes.
pub const KEY_LENGTH: usize = 32;

/// The beginning of each sealed text, of any version. No token of Meta begins so.
const SEALED: &str = "enc:";

/// The beginning of the form that this version writes and opens.
const VERSION_1: &str = "enc:v1:";

/// Hashed before a key for its id, so that the id is no plain hash of the key.
const KEY_ID_LABEL: &[u8] = b"meta-dispatch/key-id/v1";

/// Bytes of the hash that make a key's id; eight hexadecimal digits.
const KEY_ID_BYTES: usize = 4;

/// The use of a secret, which its sealed text is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// The page access token of a line. The account is left out: a line may change hands with its token.
    PageToken(LineId),
    /// The secret of an app of Meta, by its id.
    AppSecret(&'a str),
    /// The token with which Meta verifies the webhook of an app, by the app's id.
    VerifyToken(&'a str),
}

impl Purpose<'_> {
    fn associated_data(self) -> String {
        match self {
            Purpose::PageToken(line) => format!("pat/v1{}", line.0),
            Purpose::AppSecret(app) => format!("app-secret/v1{app}"),
            Purpose::VerifyToken(app) => format!("verify-token/v1{app}"),
        }
    }
}

/// The reason why a sealed text does not open. The texts hold no part of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("key {0} is not in security.key")]
    UnknownKey(String),
    #[error("this version does not know its form")]
    UnknownForm,
    #[error("the sealed text is damaged, or was sealed for another line")]
    Refused,
}

impl OpenError {
    /// Return the reason for a secret of an app, whose keys are those of another setting.
    pub fn of_app(&self) -> String {
        match self {
            OpenError::UnknownKey(id) => format!("key {id} is not in security.app_key"),
            OpenError::UnknownForm => self.to_string(),
            OpenError::Refused => "the sealed text is damaged, or was sealed for another app".to_owned(),
        }
    }
}

/// A key that seals and opens.
#[derive(Debug)]
pub struct Key {
    id: String,
    aead: LessSafeKey,
}

impl Key {
    fn new(bytes: &[u8; KEY_LENGTH]) -> Key {
        let mut context = Context::new(&SHA256);
        context.update(KEY_ID_LABEL);
        context.update(bytes);
        let id = hex::encode(&context.finish().as_ref()[..KEY_ID_BYTES]);
        let aead = UnboundKey::new(&AES_256_GCM, bytes).expect("the key has the algorithm's length");
        Key { id, aead: LessSafeKey::new(aead) }
    }

    /// Return the key's id, which is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seal a secret for its purpose.
    pub fn seal(&self, secret: &SecretString, purpose: Purpose<'_>) -> SecretString {
        let text = secret.expose_secret().as_bytes();
        let mut nonce = [0_u8; NONCE_LEN];
        fill(&mut nonce);
        // In its full length from the start: a buffer that grows leaves copies of the secret.
        let mut data = Zeroizing::new(Vec::<u8>::with_capacity(NONCE_LEN + text.len() + MAX_TAG_LEN));
        data.extend_from_slice(&nonce);
        data.extend_from_slice(text);
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.associated_data()),
                &mut data[NONCE_LEN..],
            )
            .expect("a secret is far shorter than the algorithm's bound");
        data.extend_from_slice(tag.as_ref());
        format!("{VERSION_1}{}:{}", self.id, URL_SAFE_NO_PAD.encode(&data[..])).into()
    }

    /// Open the data of a text that names this key.
    fn open(&self, data: &str, purpose: Purpose<'_>) -> Result<SecretString, OpenError> {
        let mut data = Zeroizing::new(URL_SAFE_NO_PAD.decode(data).map_err(|_| OpenError::Refused)?);
        let (nonce, sealed) = data.split_at_mut_checked(NONCE_LEN).ok_or(OpenError::Refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Refused)?;
        let opened = self
            .aead
            .open_in_place(nonce, Aad::from(purpose.associated_data()), sealed)
            .map_err(|_| OpenError::Refused)?;
        let text = std::str::from_utf8(opened).map_err(|_| OpenError::Refused)?;
        Ok(SecretString::from(text))
    }
}

/// The keys of this process: the first seals, all of them open.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8; KEY_LENGTH]>) -> KeyRing {
        KeyRing { keys: keys.into_iter().map(Key::new).collect() }
    }

    /// Return the key that seals, if there is one.
    pub fn first(&self) -> Option<&Key> {
        self.keys.first()
    }

    /// Open a stored text. A text that is not sealed is the secret itself.
    pub fn open(&self, stored: &SecretString, purpose: Purpose<'_>) -> Result<SecretString, OpenError> {
        let text = stored.expose_secret();
        if !is_sealed(text) {
            return Ok(stored.clone());
        }
        let (id, data) = parts(text)?;
        let key = self.keys.iter().find(|key| key.id == id);
        key.ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?.open(data, purpose)
    }
}

/// Whether a stored text is sealed, in whatever form. Such a text is never a secret itself: a version that
/// cannot open it would send ciphertext in its place.
pub fn is_sealed(text: &str) -> bool {
    text.get(..SEALED.len()).is_some_and(|start| start.eq_ignore_ascii_case(SEALED))
}

/// Return the id of the key that sealed a text, if it has the form that this version writes.
pub fn key_id(text: &str) -> Option<&str> {
    parts(text).ok().map(|(id, _)| id)
}

/// Make a new key, in base64.
pub fn generate() -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; KEY_LENGTH]);
    fill(&mut bytes[..]);
    STANDARD.encode(&bytes[..]).into()
}

/// Return key id and data of a sealed text.
fn parts(text: &str) -> Result<(&str, &str), OpenError> {
    let rest = text.strip_prefix(VERSION_1).ok_or(OpenError::UnknownForm)?;
    rest.split_once(':').filter(|(id, _)| is_key_id(id)).ok_or(OpenError::Refused)
}

fn is_key_id(text: &str) -> bool {
    text.len() == KEY_ID_BYTES * 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn fill(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the system's random generator works");
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LINE: Purpose<'static> = Purpose::PageToken(LineId(12));
    const TOKEN: &str = "EAAverysecretpagetoken";

    fn ring(keys: &[u8]) -> KeyRing {
        let keys: Vec<[u8; KEY_LENGTH]> = keys.iter().map(|key| [*key; KEY_LENGTH]).collect();
        KeyRing::new(&keys)
    }

    fn sealed_by(key: u8) -> SecretString {
        ring(&[key]).first().unwrap().seal(&TOKEN.into(), LINE)
    }

    fn opened(ring: &KeyRing, text: &str) -> Result<String, OpenError> {
        ring.open(&text.into(), LINE).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn sealed_secret_opens_and_hides_its_text() {
        let sealed = sealed_by(1);
        let text = sealed.expose_secret();
        let id = ring(&[1]).first().unwrap().id().to_owned();
        assert!(text.starts_with(&format!("enc:v1:{id}:")) && is_sealed(text), "{text}");
        assert_eq!(key_id(text), Some(id.as_str()));
        assert!(!text.contains(TOKEN) && !text.contains('='), "{text}");
        assert_eq!(opened(&ring(&[1]), text).as_deref(), Ok(TOKEN));
        assert_ne!(text, sealed_by(1).expose_secret(), "each has a nonce of its own");
    }

    #[test]
    fn key_id_is_eight_digits_of_a_labelled_hash() {
        let mut labelled = KEY_ID_LABEL.to_vec();
        labelled.extend_from_slice(&[1; KEY_LENGTH]);
        let hash = hex::encode(ring::digest::digest(&SHA256, &labelled));
        assert_eq!(ring(&[1]).first().unwrap().id(), &hash[..8]);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealed = sealed_by(1);
        let text = sealed.expose_secret();
        let keys = ring(&[1]);
        // A text that no longer begins with `enc:` is a plain one, whatever it holds.
        for place in SEALED.len()..text.len() {
            for bit in 0..7 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[place] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(opened(&keys, &changed).is_err(), "bit {bit} of {place}: {changed}");
            }
        }
        let (start, data) = text.rsplit_once(':').unwrap();
        let data = URL_SAFE_NO_PAD.decode(data).unwrap();
        for bit in 0..data.len() * 8 {
            let mut changed = data.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = format!("{start}:{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(opened(&keys, &changed), Err(OpenError::Refused), "bit {bit}");
        }
    }

    #[test]
    fn shortened_text_is_refused() {
        let sealed = sealed_by(1);
        let text = sealed.expose_secret();
        for length in SEALED.len()..text.len() {
            assert!(opened(&ring(&[1]), &text[..length]).is_err(), "{length} characters");
        }
    }

    #[test]
    fn texts_of_two_lines_do_not_open_when_swapped() {
        let keys = ring(&[1]);
        // Written one after the other, label and id of both are the same digits.
        for (one, other) in [(12, 13), (1, 11)].map(|(one, other)| (LineId(one), LineId(other))) {
            let sealed = keys.first().unwrap().seal(&TOKEN.into(), Purpose::PageToken(one));
            let moved = keys.open(&sealed, Purpose::PageToken(other));
            assert_eq!(moved.map(|_| ()), Err(OpenError::Refused));
        }
    }

    #[test]
    fn secrets_of_an_app_open_for_their_purpose_alone() {
        let keys = ring(&[1]);
        let sealed = keys.first().unwrap().seal(&TOKEN.into(), Purpose::AppSecret("12"));
        assert!(keys.open(&sealed, Purpose::AppSecret("12")).is_ok());
        for other in [Purpose::AppSecret("13"), Purpose::VerifyToken("12"), Purpose::PageToken(LineId(12))] {
            assert_eq!(keys.open(&sealed, other).map(|_| ()), Err(OpenError::Refused), "{other:?}");
        }
        let error = ring(&[2]).open(&sealed, Purpose::AppSecret("12")).map(|_| ()).unwrap_err();
        assert!(error.of_app().ends_with("is not in security.app_key"), "{}", error.of_app());
    }

    #[test]
    fn first_key_seals_and_all_open() {
        let keys = ring(&[2, 1]);
        let old = sealed_by(1);
        assert_eq!(opened(&keys, old.expose_secret()).as_deref(), Ok(TOKEN));
        let new = keys.first().unwrap().seal(&TOKEN.into(), LINE);
        assert_eq!(opened(&ring(&[2]), new.expose_secret()).as_deref(), Ok(TOKEN));
        assert!(opened(&ring(&[1]), new.expose_secret()).is_err());
    }

    #[rstest]
    #[case::another_key(&[2])]
    #[case::no_key(&[])]
    fn unknown_key_is_named(#[case] keys: &[u8]) {
        let id = ring(&[1]).first().unwrap().id().to_owned();
        let error = opened(&ring(keys), sealed_by(1).expose_secret()).unwrap_err();
        assert_eq!(error, OpenError::UnknownKey(id.clone()));
        assert_eq!(error.to_string(), format!("key {id} is not in security.key"));
    }

    #[rstest]
    #[case::a_later_version("enc:v9:0011aabb:AAAA")]
    #[case::another_case("ENC:v1:0011aabb:AAAA")]
    #[case::nothing_else("enc:")]
    fn unknown_form_is_sealed_and_does_not_open(#[case] text: &str) {
        assert!(is_sealed(text));
        assert_eq!((opened(&ring(&[1]), text), key_id(text)), (Err(OpenError::UnknownForm), None));
    }

    #[rstest]
    #[case::no_data("enc:v1:0011aabb")]
    #[case::no_id("enc:v1::AAAA")]
    #[case::an_id_in_capitals("enc:v1:0011AABB:AAAA")]
    #[case::a_long_id("enc:v1:0011aabbc:AAAA")]
    fn malformed_text_is_refused(#[case] text: &str) {
        assert_eq!(opened(&ring(&[1]), text), Err(OpenError::Refused));
    }

    #[rstest]
    #[case::a_token("EAAtoken")]
    #[case::a_short_one("enc")]
    #[case::letters_outside_ascii("énc:v1")]
    #[case::an_empty_one("")]
    fn plain_text_is_the_secret_itself(#[case] text: &str) {
        assert!(!is_sealed(text));
        assert_eq!(opened(&ring(&[]), text).as_deref(), Ok(text));
    }

    #[test]
    fn generated_keys_are_32_random_bytes() {
        let (one, other) = (generate(), generate());
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(STANDARD.decode(one.expose_secret()).unwrap().len(), KEY_LENGTH);
    }

    #[test]
    fn debug_output_hides_the_key() {
        let shown = format!("{:?}", ring(&[7]));
        assert!(shown.contains(ring(&[7]).first().unwrap().id()) && !shown.contains("7, 7"), "{shown}");
    }
}
