//! API tokens (tsid): how a token is made, and which parts are kept.
//!
//! A token that this program makes is 30 base62 characters. The first ten identify it in lists and logs; the database
//! holds them and a hash of the whole: HMAC-SHA-256 under a key of `security.token_key`, or SHA-256 without one. The
//! other twenty carry about 119 bits of chance, which makes even that one safe; a token of another program may carry
//! less, and its hash is safe by the key alone. Never here: a token in clear beyond the moment of its creation.

use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use crate::store::TokenRecord;

/// Length of a token that this program makes, in characters. Callers' tokens may have 10 to 64.
pub const TOKEN_CHARS: usize = 30;

/// Characters of an identifier.
pub const IDENTIFIER_CHARS: usize = 10;

/// A token of at least this length is identified by its beginning: enough of it remains secret.
const IDENTIFIED_BY_BEGINNING: usize = 20;

/// The bytes that are hashed before a key for its id, so that the id is no plain hash of the key.
const KEY_ID_LABEL: &[u8] = b"meta-dispatch/token-key-id/v1";

/// Bytes of the hash that make a key's id; eight hexadecimal digits.
const KEY_ID_BYTES: usize = 4;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Make a new token, to be shown once.
pub fn mint() -> SecretString {
    // The largest multiple of 62 below 256: bytes from there on would favour the first letters.
    const FAIR: u8 = 248;
    let mut token = String::with_capacity(TOKEN_CHARS);
    while token.len() < TOKEN_CHARS {
        let mut bytes = [0; TOKEN_CHARS];
        SystemRandom::new().fill(&mut bytes).expect("the system's random generator works");
        let wanted = TOKEN_CHARS - token.len();
        let letters = bytes.iter().filter(|&&byte| byte < FAIR).take(wanted);
        token.extend(letters.map(|byte| char::from(ALPHABET[usize::from(byte % 62)])));
    }
    SecretString::from(token)
}

/// Return the characters at the beginning of a token that identify it; `None` for a short token.
pub fn identifier(token: &str) -> Option<&str> {
    beginning(token).filter(|_| token.chars().nth(IDENTIFIED_BY_BEGINNING - 1).is_some())
}

fn beginning(token: &str) -> Option<&str> {
    let end = token.char_indices().map(|(at, letter)| at + letter.len_utf8()).nth(IDENTIFIER_CHARS - 1)?;
    Some(&token[..end])
}

/// Return the stored form of a token without a key: the SHA-256 of the whole, 32 bytes.
pub fn hash(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

/// The keys of the hashes: the first is for new tokens, tokens of all are known.
#[derive(Debug, Default)]
pub struct TokenKeys {
    keys: Vec<TokenKey>,
}

#[derive(Debug)]
struct TokenKey {
    id: String,
    hmac: hmac::Key,
}

/// A hash of a token, as it may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash {
    /// `None`: a hash without a key.
    pub key_id: Option<String>,
    pub hash: Vec<u8>,
}

impl TokenKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8; 32]>) -> TokenKeys {
        TokenKeys { keys: keys.into_iter().map(TokenKey::new).collect() }
    }

    /// Whether a hash under the key with this id can be made.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Return every hash under which a token may be stored; the first is for a new token.
    pub fn hashes(&self, token: &str) -> Vec<TokenHash> {
        let keyed = self.keys.iter().map(|key| TokenHash {
            key_id: Some(key.id.clone()),
            hash: hmac::sign(&key.hmac, token.as_bytes()).as_ref().to_vec(),
        });
        keyed.chain([TokenHash { key_id: None, hash: hash(token) }]).collect()
    }
}

impl TokenKey {
    fn new(bytes: &[u8; 32]) -> TokenKey {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(KEY_ID_LABEL);
        context.update(bytes);
        let id = hex::encode(&context.finish().as_ref()[..KEY_ID_BYTES]);
        TokenKey { id, hmac: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }
}

impl TokenHash {
    /// Return the identifier of the token with this hash: characters of the token, or of the hash of a short one.
    pub fn identifier(&self, token: &str) -> String {
        let of_hash = || hex::encode(&self.hash[..IDENTIFIER_CHARS / 2]);
        identifier(token).map_or_else(of_hash, str::to_owned)
    }
}

/// Return the identifiers under which a token with these hashes may be stored. A short token may have been stored under
/// its own beginning, by other programs.
pub fn identifiers(token: &str, hashes: &[TokenHash]) -> Vec<String> {
    match identifier(token) {
        Some(identifier) => vec![identifier.to_owned()],
        None => {
            let of_hashes = hashes.iter().map(|hash| hash.identifier(token));
            of_hashes.chain(beginning(token).map(str::to_owned)).collect()
        }
    }
}

/// Return the record of the token with these hashes, if it is among them. Where there is none, zeros are compared in its
/// place: the time taken does not distinguish an absent token from a wrong one.
pub fn matching<'r>(records: &'r [TokenRecord], hashes: &[TokenHash]) -> Option<&'r TokenRecord> {
    if records.is_empty() {
        std::hint::black_box(hashes.iter().any(|hash| is_equal(&hash.hash, &[0; 32])));
    }
    records.iter().find(|record| {
        let hash = hashes.iter().find(|hash| hash.key_id == record.key_id);
        hash.is_some_and(|hash| is_equal(&hash.hash, &record.hash))
    })
}

fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::domain::{AccountId, TokenScopes};

    #[test]
    fn minted_tokens_are_base62_and_unique() {
        let tokens: HashSet<String> = (0..500).map(|_| mint().expose_secret().to_owned()).collect();
        assert_eq!(tokens.len(), 500);
        assert!(tokens.iter().all(|token| token.len() == 30 && token.bytes().all(|b| ALPHABET.contains(&b))));
        let letters: HashSet<char> = tokens.iter().flat_map(|token| token.chars()).collect();
        assert_eq!(letters.len(), 62, "every letter occurs among 15,000");
    }

    fn keys(bytes: &[u8]) -> TokenKeys {
        let keys: Vec<[u8; 32]> = bytes.iter().map(|byte| [*byte; 32]).collect();
        TokenKeys::new(&keys)
    }

    fn record(token_id: &str, hash: &TokenHash) -> TokenRecord {
        TokenRecord {
            token_id: token_id.into(),
            account: AccountId(1),
            account_active: true,
            hash: hash.hash.clone(),
            key_id: hash.key_id.clone(),
            scopes: TokenScopes::ALL,
            networks: None,
        }
    }

    #[test]
    fn beginning_identifies_a_long_token() {
        assert_eq!(identifier("abcdefghijKLMNOPQRST"), Some("abcdefghij"));
        assert_eq!(identifier("abcdefghijKLMNOPQRS"), None);
        assert_eq!(identifier("éééééééééééééééééééé"), Some("éééééééééé"));
        let hashes = keys(&[1, 2]).hashes("abcdefghijKLMNOPQRST");
        assert_eq!(identifiers("abcdefghijKLMNOPQRST", &hashes), ["abcdefghij"]);
    }

    #[test]
    fn hash_identifies_a_short_token() {
        let token = "abcdefghijKLMNOPQRS";
        let hashes = keys(&[1]).hashes(token);
        let named = identifiers(token, &hashes);
        let of_hashes: Vec<String> =
            hashes.iter().map(|hash| hex::encode(&hash.hash)[..10].to_owned()).collect();
        assert_eq!(named[..2], of_hashes[..]);
        assert_eq!(named[2], "abcdefghij", "as other programs stored it");
        assert!(hashes.iter().all(|hash| !token.contains(&hash.identifier(token))));
    }

    #[test]
    fn first_key_makes_the_hash_and_all_are_known() {
        let token = "abcdefghijKLMNOPQRSTUVWXYZ0123";
        let (one, both) = (keys(&[1]), keys(&[2, 1]));
        assert_ne!(both.hashes(token)[0], one.hashes(token)[0]);
        for made in [&one.hashes(token)[0], &both.hashes(token)[0], &keys(&[]).hashes(token)[0]] {
            let stored = [record("abcdefghij", made)];
            assert!(matching(&stored, &both.hashes(token)).is_some(), "{:?}", made.key_id);
            assert!(matching(&stored, &both.hashes("abcdefghijKLMNOPQRSTUVWXYZ0124")).is_none());
        }
        let unknown = [record("abcdefghij", &both.hashes(token)[0])];
        assert!(matching(&unknown, &one.hashes(token)).is_none(), "its key is missing");
        assert!(matching(&[], &one.hashes(token)).is_none());
    }

    #[test]
    fn keyed_hash_is_hmac_sha_256() {
        // RFC 4231 has no key of 32 bytes: as computed by `openssl dgst -sha256 -mac HMAC -macopt hexkey:0b…0b`.
        let hashes = keys(&[0x0b]).hashes("Hi There");
        let id = hashes[0].key_id.as_deref().expect("a key");
        assert!(id.len() == 8 && keys(&[0x0b]).has(id) && !keys(&[1]).has(id), "{id}");
        assert_eq!(
            hex::encode(&hashes[0].hash),
            "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7"
        );
    }

    #[test]
    fn hash_is_sha_256_of_the_whole_token() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(hash("abc")), abc);
    }
}
