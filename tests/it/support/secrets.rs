//! Secrets that a test plants, and the search for them: as text, as decimal bytes, in hexadecimal and in base64.
//!
//! Each half of a secret is looked for by itself: a text that is cut in the middle still leaks.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Half of a shorter secret could occur by chance.
const SHORTEST: usize = 16;

/// A secret, and the bytes by which it is found.
pub struct Secret {
    pub name: &'static str,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    pub fn new(name: &'static str, secret: impl AsRef<[u8]>) -> Secret {
        let secret = secret.as_ref();
        assert!(secret.len() >= SHORTEST, "{name} is too short to be looked for");
        let (first, second) = secret.split_at(secret.len() / 2);
        Secret { name, forms: [first, second].into_iter().flat_map(forms).collect() }
    }

    /// Return the form in which these bytes hold the secret, or a half of it.
    pub fn form_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| holds(bytes, form)).map(|(name, _)| *name)
    }

    /// Whether these bytes hold the secret, or a half of it, as it is.
    pub fn is_plain_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|(name, form)| *name == TEXT && holds(bytes, form))
    }
}

/// Return the secrets that these bytes hold, each with its form.
pub fn leaks(secrets: &[Secret], bytes: &[u8]) -> Vec<String> {
    let leak = |secret: &Secret| Some(format!("{} as {}", secret.name, secret.form_in(bytes)?));
    secrets.iter().filter_map(leak).collect()
}

const TEXT: &str = "text";

/// Return the ways in which programs write bytes.
fn forms(part: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let lower = hex::encode(part);
    let mut forms = vec![
        (TEXT, part.to_vec()),
        ("decimal bytes", listed(part, ", ").into_bytes()),
        ("decimal bytes of JSON", listed(part, ",").into_bytes()),
        ("upper hexadecimal", lower.to_uppercase().into_bytes()),
        ("hexadecimal", lower.into_bytes()),
    ];
    for before in 0..3 {
        forms.push(("base64", within_base64(&STANDARD_NO_PAD, part, before)));
        forms.push(("base64 of URLs", within_base64(&URL_SAFE_NO_PAD, part, before)));
    }
    forms
}

fn listed(bytes: &[u8], separator: &str) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let between = if text.is_empty() { "" } else { separator };
        write!(text, "{between}{byte}").expect("a text takes everything");
        text
    })
}

/// Return the letters of base64 that depend on these bytes alone, where `before` other bytes stand before them,
/// counted in threes, and any behind them.
fn within_base64(engine: &impl Engine, part: &[u8], before: usize) -> Vec<u8> {
    let bytes = [&vec![0; before][..], part].concat();
    // A letter is six bits: the first ones also hold bits of what stands before, the last one of what follows.
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    engine.encode(&bytes).as_bytes()[first..end].to_vec()
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    bytes.iter().enumerate().any(|(at, byte)| byte == first && bytes[at + 1..].starts_with(rest))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use rstest::rstest;

    use super::*;

    /// With letters of base64 that its two alphabets write differently.
    const SECRET: &[u8] = b"k7Jp2mQ9xWb4\xfb\xff\xfeTsV1nR8c>>?";

    fn secret() -> Secret {
        Secret::new("secret", SECRET)
    }

    fn around(planted: &str) -> Vec<u8> {
        format!("2026-11-28T14:00:00Z TRACE before {planted} behind").into_bytes()
    }

    #[rstest]
    #[case::decimal_bytes(format!("{SECRET:?}"))]
    #[case::decimal_bytes_between_others(format!("{:?}", [&b"0"[..], SECRET, b"9"].concat()))]
    #[case::decimal_bytes_of_json(serde_json::to_string(SECRET).expect("JSON"))]
    #[case::hexadecimal(hex::encode(SECRET))]
    #[case::upper_hexadecimal(hex::encode_upper(SECRET))]
    #[case::base64(STANDARD.encode(SECRET))]
    #[case::base64_behind_one_byte(STANDARD.encode([&b"a"[..], SECRET, b"b"].concat()))]
    #[case::base64_behind_two_bytes(STANDARD.encode([&b"ab"[..], SECRET, b"c"].concat()))]
    #[case::base64_behind_three_bytes(STANDARD.encode([&b"\0ab"[..], SECRET].concat()))]
    #[case::base64_of_urls(URL_SAFE.encode(SECRET))]
    #[case::base64_of_urls_behind_two_bytes(URL_SAFE_NO_PAD.encode([&b"ab"[..], SECRET, b"cd"].concat()))]
    fn planted_secret_is_found(#[case] planted: String) {
        assert_eq!(leaks(&[secret()], &around(&planted)).len(), 1, "{planted}");
        assert!(!secret().is_plain_in(&around(&planted)), "{planted}");
    }

    #[test]
    fn text_is_found_whole_and_cut() {
        for cut in [SECRET, &SECRET[..20], &SECRET[6..]] {
            let text = [&b"before "[..], cut, b" behind"].concat();
            assert_eq!(leaks(&[secret()], &text), ["secret as text"]);
            assert!(secret().is_plain_in(&text));
        }
    }

    #[test]
    fn other_bytes_are_no_secret() {
        let mut other = SECRET.to_vec();
        (other[0], other[SECRET.len() - 1]) = (b'x', b'x');
        for other in [&other[..], b"", b"k7Jp2m", &SECRET[8..16]] {
            let mut forms =
                vec![other.to_vec(), format!("{other:?}").into_bytes(), hex::encode(other).into_bytes()];
            forms.push(STANDARD.encode(other).into_bytes());
            for form in forms {
                assert_eq!(leaks(&[secret()], &form), [""; 0], "{}", String::from_utf8_lossy(&form));
            }
        }
    }

    #[test]
    fn each_secret_is_named() {
        let secrets = [secret(), Secret::new("other", [0xab; 32])];
        let text = format!("{} and {}", hex::encode([0xab; 32]), hex::encode(SECRET));
        assert_eq!(leaks(&secrets, text.as_bytes()), ["secret as hexadecimal", "other as hexadecimal"]);
        assert_eq!(leaks(&secrets[1..], hex::encode(SECRET).as_bytes()), [""; 0]);
    }
}
