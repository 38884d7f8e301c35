//! API tokens (tsid): how a token is made, and which parts are kept.
//!
//! A token is 30 base62 characters. The first ten identify it in lists and logs; the database holds them and
//! the SHA-256 of the whole. The other twenty carry about 119 bits of chance, which makes a fast hash without
//! salt safe. Never here: a token in clear beyond the moment of its creation.

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;

/// Length of a token that this program makes, in characters. Callers' tokens may have 10 to 64.
pub const TOKEN_CHARS: usize = 30;

/// Characters at a token's beginning that identify it.
pub const IDENTIFIER_CHARS: usize = 10;

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

/// Return the characters that identify a token; `None` if the token is shorter.
pub fn identifier(token: &str) -> Option<&str> {
    let end = token.char_indices().map(|(at, letter)| at + letter.len_utf8()).nth(IDENTIFIER_CHARS - 1)?;
    Some(&token[..end])
}

/// Return the stored form of a token: the SHA-256 of the whole, 32 bytes.
pub fn hash(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn minted_tokens_are_base62_and_unique() {
        let tokens: HashSet<String> = (0..500).map(|_| mint().expose_secret().to_owned()).collect();
        assert_eq!(tokens.len(), 500);
        assert!(tokens.iter().all(|token| token.len() == 30 && token.bytes().all(|b| ALPHABET.contains(&b))));
        let letters: HashSet<char> = tokens.iter().flat_map(|token| token.chars()).collect();
        assert_eq!(letters.len(), 62, "every letter occurs among 15,000");
    }

    #[test]
    fn first_ten_characters_identify_a_token() {
        assert_eq!(identifier("abcdefghijKLMNOPQRST"), Some("abcdefghij"));
        assert_eq!(identifier("abcdefghij"), Some("abcdefghij"));
        assert_eq!(identifier("abcdefghi"), None);
        assert_eq!(identifier("éééééééééééé"), Some("éééééééééé"));
    }

    #[test]
    fn hash_is_sha_256_of_the_whole_token() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(hash("abc")), abc);
    }
}
