//! A secret, which is the first line, and changes of its sealed text: triples of a kind, a place and a byte. The first
//! line is also opened as it is.
//!
//! Properties: a sealed secret opens for its line alone, and under its key alone; a changed text is refused, or no sealed
//! text any more; a text that is not sealed is the secret itself; no text of any kind causes a panic.

use meta_dispatch::domain::LineId;
use meta_dispatch::seal::{KeyRing, OpenError, Purpose, is_sealed, key_id};
use secrecy::{ExposeSecret, SecretString};

use crate::shape::note;
use crate::source::first_line;

pub const WORDS: &[&str] = &[
    "enc:",
    "enc:v1:",
    "ENC:v1:",
    "enc:v2:",
    "enc:v1:0011aabb:",
    "enc:v1:0011aabb:AAAA",
    "EAAtoken",
    ":",
    "AAAAAAAAAAAAAAAAAAAA",
    "=",
    "-",
    "_",
    "é",
];

const LINE: Purpose = Purpose::PageToken(LineId(12));

pub fn target(input: &[u8]) {
    let (secret, changes) = first_line(input);
    let secret = String::from_utf8_lossy(secret).into_owned();
    let keys = KeyRing::new(&[[7; 32], [8; 32]]);
    any_text_opens_or_is_refused(&keys, &secret);
    let sealing = keys.first().expect("there are two");
    let sealed = sealing.seal(&SecretString::from(secret.as_str()), LINE);
    let text = sealed.expose_secret();
    assert!(is_sealed(text) && key_id(text) == Some(sealing.id()));
    let data = text.rsplit(':').next().unwrap_or_default();
    assert!(secret.len() < 8 || !data.contains(&secret), "{text}");
    assert_eq!(opened(&keys, text, LINE).as_deref(), Ok(secret.as_str()));
    let other_line = Purpose::PageToken(LineId(13));
    assert_eq!(opened(&keys, text, other_line), Err(OpenError::Refused));
    let other_keys = KeyRing::new(&[[9; 32]]);
    assert_eq!(opened(&other_keys, text, LINE), Err(OpenError::UnknownKey(sealing.id().to_owned())));
    if let Ok(changed) = String::from_utf8(changed(text.as_bytes(), changes))
        && changed != text
    {
        let result = opened(&keys, &changed, LINE);
        note((is_sealed(&changed), result.as_ref().err().map(std::mem::discriminant)));
        if is_sealed(&changed) {
            assert!(result.is_err(), "{changed} of {text}");
        } else {
            assert_eq!(result.as_deref(), Ok(changed.as_str()));
        }
    }
}

fn any_text_opens_or_is_refused(keys: &KeyRing, text: &str) {
    let result = opened(keys, text, LINE);
    note((is_sealed(text), key_id(text).is_some(), result.as_ref().err().map(std::mem::discriminant)));
    match is_sealed(text) {
        // No text is validly sealed by chance.
        true => assert!(result.is_err(), "{text}"),
        false => assert_eq!(result.as_deref(), Ok(text)),
    }
}

fn opened(keys: &KeyRing, text: &str, purpose: Purpose) -> Result<String, OpenError> {
    keys.open(&SecretString::from(text), purpose).map(|secret| secret.expose_secret().to_owned())
}

/// Change a byte, remove one, put one in, or cut the text.
fn changed(text: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for change in changes.chunks_exact(3).take(8) {
        let &[kind, place, byte] = change else { break };
        let place = usize::from(place) % text.len().max(1);
        match kind % 4 {
            0 => text.iter_mut().skip(place).take(1).for_each(|old| *old = byte),
            1 if place < text.len() => {
                text.remove(place);
            }
            2 => text.insert(place.min(text.len()), byte),
            _ => text.truncate(place),
        }
    }
    text
}
