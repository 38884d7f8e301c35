//! Inflates answers that gateways compress although the request does not ask for it.
//!
//! The result is bounded: a small body can hold a large one.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// Encodings of one body that are undone; a body with more is unreadable.
const MOST_ENCODINGS: usize = 3;

/// Return the body without its `Content-Encoding`; `None` for an unknown encoding, a broken body, and a body
/// longer than `at_most`.
pub(super) fn inflate<'a>(encoding: &str, body: &'a [u8], at_most: usize) -> Option<Cow<'a, [u8]>> {
    let encodings: Vec<&str> = encoding.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if encodings.len() > MOST_ENCODINGS {
        return None;
    }
    let mut plain = Cow::Borrowed(body);
    // The header names the encoding that was applied last at its end.
    for name in encodings.into_iter().rev() {
        let inflated = match name.to_ascii_lowercase().as_str() {
            "identity" => continue,
            // Some answers name an encoding and have no body.
            _ if plain.is_empty() => continue,
            "gzip" | "x-gzip" => read(GzDecoder::new(&*plain), at_most)?,
            // The standard's deflate is zlib's format; some servers send the raw one.
            "deflate" => {
                let with_header = read(ZlibDecoder::new(&*plain), at_most);
                with_header.or_else(|| read(DeflateDecoder::new(&*plain), at_most))?
            }
            _ => return None,
        };
        plain = Cow::Owned(inflated);
    }
    Some(plain)
}

fn read(from: impl Read, at_most: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    from.take(at_most as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= at_most).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use rstest::rstest;

    use super::*;

    const TEXT: &[u8] = br#"{"error":{"code":190}}"#;
    const AT_MOST: usize = 1_000;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn bare(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    #[rstest]
    #[case::gzip("gzip", gzip(TEXT))]
    #[case::its_old_name("X-Gzip", gzip(TEXT))]
    #[case::deflate("deflate", zlib(TEXT))]
    #[case::deflate_without_a_header("deflate", bare(TEXT))]
    #[case::nothing("identity", TEXT.to_vec())]
    #[case::twice("gzip, gzip", gzip(&gzip(TEXT)))]
    #[case::one_after_the_other("deflate, gzip", gzip(&zlib(TEXT)))]
    fn body_in_a_known_encoding_is_read(#[case] encoding: &str, #[case] body: Vec<u8>) {
        assert_eq!(inflate(encoding, &body, AT_MOST).as_deref(), Some(TEXT));
    }

    #[rstest]
    #[case::unknown("br", TEXT.to_vec())]
    #[case::broken("gzip", TEXT.to_vec())]
    #[case::cut("gzip", gzip(TEXT)[..15].to_vec())]
    #[case::too_long("gzip", gzip(&[b'x'; AT_MOST + 1]))]
    #[case::too_often("gzip, gzip, gzip, gzip", gzip(&gzip(&gzip(&gzip(TEXT)))))]
    fn unreadable_body_is_left_out(#[case] encoding: &str, #[case] body: Vec<u8>) {
        assert_eq!(inflate(encoding, &body, AT_MOST), None);
    }

    #[test]
    fn empty_body_stays_empty() {
        assert_eq!(inflate("gzip", b"", AT_MOST).as_deref(), Some(&b""[..]));
    }
}
