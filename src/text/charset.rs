//! The decoding of callers' bytes: UTF-8 with or without a byte order mark, UTF-16 as a whole, and
//! windows-1252 for each value that is not UTF-8.
//!
//! Values are decoded one by one, never by body or file: one cell of another encoding must not spoil the
//! others.

use std::borrow::Cow;

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// The supported encodings, in words.
pub const CHARSETS: &str = "utf-8, windows-1252, iso-8859-1 and utf-16";

const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF_16BE_MARK: &[u8] = b"\xfe\xff";
const UTF_16LE_MARK: &[u8] = b"\xff\xfe";

/// A character encoding that a caller names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Charset {
    /// UTF-8; other values are read as windows-1252.
    #[default]
    Utf8,
    Windows1252,
    Utf16Be,
    Utf16Le,
}

impl Charset {
    /// Return the encoding of a label, as WHATWG reads it: ISO-8859-1 is windows-1252. `None` for an
    /// unsupported one.
    pub fn of_label(label: &str) -> Option<Charset> {
        let label = label.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        // Many clients call UTF-8 ASCII, and ASCII is the same in both.
        if ["", "us-ascii", "ascii"].iter().any(|utf8| utf8.eq_ignore_ascii_case(label)) {
            return Some(Charset::Utf8);
        }
        let encoding = Encoding::for_label(label.as_bytes())?;
        let known = [
            (UTF_8, Charset::Utf8),
            (WINDOWS_1252, Charset::Windows1252),
            (UTF_16BE, Charset::Utf16Be),
            (UTF_16LE, Charset::Utf16Le),
        ];
        known.into_iter().find(|(known, _)| *known == encoding).map(|(_, charset)| charset)
    }

    fn utf16_decoder(self) -> Option<Decoder> {
        match self {
            Charset::Utf16Be => Some(UTF_16BE.new_decoder_without_bom_handling()),
            Charset::Utf16Le => Some(UTF_16LE.new_decoder_without_bom_handling()),
            Charset::Utf8 | Charset::Windows1252 => None,
        }
    }
}

/// A value as a text, without C1 control characters, which no customer should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    pub text: String,
    /// The value should have been UTF-8 and is not: it was read as windows-1252, or lost a last character
    /// that was cut.
    pub is_guessed: bool,
}

/// Return the text of a value. UTF-16 has been converted before: see [`Utf8Body`].
pub fn decoded(value: &[u8], charset: Charset) -> Decoded {
    if charset == Charset::Windows1252 {
        return Decoded { text: windows_1252(value), is_guessed: false };
    }
    match str::from_utf8(value) {
        Ok(text) => Decoded { text: without_c1(text).into_owned(), is_guessed: false },
        Err(error) => {
            let (valid, rest) = value.split_at(error.valid_up_to());
            let is_cut = error.error_len().is_none() && is_cut(valid, rest);
            let text = match str::from_utf8(valid) {
                Ok(whole) if is_cut => without_c1(whole).into_owned(),
                _ => windows_1252(value),
            };
            Decoded { text, is_guessed: true }
        }
    }
}

/// Whether the bytes at the end of a value are a character that a byte limit cut off, and not a letter of
/// windows-1252: `olá` ends with such a byte there. A text that has whole characters of UTF-8 before was cut;
/// otherwise only an emoji, or a capital behind a small letter, which no language writes.
fn is_cut(valid: &[u8], rest: &[u8]) -> bool {
    let is_capital_behind_small =
        matches!(rest, [0xc2 | 0xc3]) && valid.last().is_some_and(u8::is_ascii_lowercase);
    !valid.is_ascii() || rest.starts_with(b"\xf0\x9f") || is_capital_behind_small
}

/// Decode windows-1252. The five bytes that it does not define become C1 control characters, and are dropped
/// with the others.
fn windows_1252(value: &[u8]) -> String {
    without_c1(&WINDOWS_1252.decode_without_bom_handling(value).0).into_owned()
}

/// Return a text without the control characters U+0080 to U+009F.
pub fn without_c1(text: &str) -> Cow<'_, str> {
    let is_c1 = |character: char| ('\u{80}'..='\u{9f}').contains(&character);
    if text.contains(is_c1) { text.replace(is_c1, "").into() } else { text.into() }
}

/// A converter of a body to UTF-8, however the body is cut into pieces: byte order marks at its beginning are
/// dropped, and UTF-16 becomes UTF-8. Other bytes stay as they are, for [`decoded`].
pub struct Utf8Body {
    declared: Charset,
    /// The first bytes, while they may still be a byte order mark.
    start: Option<Vec<u8>>,
    decoder: Option<Decoder>,
    is_marked: bool,
}

/// The beginning of a body.
enum Start {
    /// Not known yet: more bytes have to come.
    Open,
    /// A byte order mark, and its length in bytes.
    Mark(Charset, usize),
    Unmarked,
}

impl Utf8Body {
    pub fn new(declared: Charset) -> Utf8Body {
        Utf8Body { declared, start: Some(Vec::new()), decoder: None, is_marked: false }
    }

    /// Return the encoding of the values, once the beginning has been read: a byte order mark takes
    /// precedence over a label.
    pub fn charset(&self) -> Charset {
        if self.is_marked || self.declared.utf16_decoder().is_some() { Charset::Utf8 } else { self.declared }
    }

    /// Return the converted bytes of this piece.
    pub fn feed<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        match self.start.take() {
            None => match &mut self.decoder {
                Some(decoder) => transcode(decoder, piece, false).into(),
                None => piece.into(),
            },
            Some(mut start) => {
                start.extend_from_slice(piece);
                self.feed_start(start, false).into()
            }
        }
    }

    /// Return the rest at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut rest = match self.start.take() {
            Some(start) => self.feed_start(start, true),
            None => Vec::new(),
        };
        if let Some(mut decoder) = self.decoder.take() {
            rest.extend(transcode(&mut decoder, b"", true));
        }
        rest
    }

    fn feed_start(&mut self, mut start: Vec<u8>, is_all: bool) -> Vec<u8> {
        loop {
            match Start::of(&start) {
                Start::Open if !is_all => {
                    self.start = Some(start);
                    return Vec::new();
                }
                Start::Mark(charset, length) => {
                    self.is_marked = true;
                    start.drain(..length);
                    self.decoder = charset.utf16_decoder();
                    // Some tools add a mark to a file that has one; UTF-16 has only one.
                    if self.decoder.is_none() {
                        continue;
                    }
                }
                Start::Open | Start::Unmarked => {
                    if !self.is_marked {
                        self.decoder = self.declared.utf16_decoder();
                    }
                }
            }
            return match &mut self.decoder {
                Some(decoder) => transcode(decoder, &start, false),
                None => start,
            };
        }
    }
}

impl Start {
    fn of(bytes: &[u8]) -> Start {
        let marks = [
            (UTF_8_MARK, Charset::Utf8),
            (UTF_16BE_MARK, Charset::Utf16Be),
            (UTF_16LE_MARK, Charset::Utf16Le),
        ];
        for (mark, charset) in marks {
            if bytes.starts_with(mark) {
                return Start::Mark(charset, mark.len());
            }
        }
        if marks.iter().any(|(mark, _)| mark.starts_with(bytes)) { Start::Open } else { Start::Unmarked }
    }
}

fn transcode(decoder: &mut Decoder, bytes: &[u8], is_last: bool) -> Vec<u8> {
    let most = decoder.max_utf8_buffer_length(bytes.len()).unwrap_or_default();
    let mut text = String::with_capacity(most);
    // The buffer has room for the whole text.
    let _ = decoder.decode_to_string(bytes, &mut text, is_last);
    text.into_bytes()
}

/// Return a whole body in UTF-8, and the encoding of its values.
pub fn utf8_body(body: &[u8], declared: Charset) -> (Cow<'_, [u8]>, Charset) {
    let is_plain = declared.utf16_decoder().is_none() && matches!(Start::of(body), Start::Unmarked);
    if is_plain {
        return (body.into(), declared);
    }
    let mut whole = Utf8Body::new(declared);
    let mut bytes = whole.feed(body).into_owned();
    bytes.extend(whole.finish());
    (bytes.into(), whole.charset())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[rstest]
    #[case::utf_8("Olá 😀".as_bytes(), "Olá 😀", false)]
    #[case::letters(b"ol\xe1", "olá", true)]
    #[case::quotes_dash_and_euro(b"\x93Oferta\x94 \x96 10 \x80 \x99", "“Oferta” – 10 € ™", true)]
    #[case::undefined_bytes(b"a\x81\x8d\x8f\x90\x9db", "ab", true)]
    #[case::cut_emoji("Olá João 😀".as_bytes().split_last().expect("bytes").1, "Olá João ", true)]
    #[case::cut_emoji_behind_ascii(b"Oi \xf0\x9f\x98", "Oi ", true)]
    #[case::cut_letter_behind_ascii(b"Ol\xc3", "Ol", true)]
    #[case::capitals_of_windows(b"MANH\xc3", "MANHÃ", true)]
    #[case::ellipsis_of_windows(b"caf\xe9\x85", "café…", true)]
    #[case::c1_in_utf_8("a\u{93}b\u{85}c".as_bytes(), "abc", false)]
    fn value_is_utf_8_or_windows_1252(#[case] bytes: &[u8], #[case] text: &str, #[case] is_guessed: bool) {
        assert_eq!(decoded(bytes, Charset::Utf8), Decoded { text: text.to_owned(), is_guessed });
    }

    #[test]
    fn declared_windows_1252_is_no_guess() {
        let read = decoded(b"ol\xc3\xa1", Charset::Windows1252);
        assert_eq!(read, Decoded { text: "olÃ¡".to_owned(), is_guessed: false });
    }

    #[rstest]
    #[case("utf-8", Some(Charset::Utf8))]
    #[case("\"UTF8\"", Some(Charset::Utf8))]
    #[case("us-ascii", Some(Charset::Utf8))]
    #[case("ISO-8859-1", Some(Charset::Windows1252))]
    #[case("latin1", Some(Charset::Windows1252))]
    #[case("windows-1252", Some(Charset::Windows1252))]
    #[case("utf-16", Some(Charset::Utf16Le))]
    #[case("utf-16be", Some(Charset::Utf16Be))]
    #[case("shift_jis", None)]
    #[case("klingon", None)]
    fn labels_are_read_as_whatwg_reads_them(#[case] label: &str, #[case] charset: Option<Charset>) {
        assert_eq!(Charset::of_label(label), charset);
    }

    #[test]
    fn body_becomes_utf_8_in_any_pieces() {
        let text = "dest,mdata\n253,Olá 😀\n";
        let marked = format!("\u{feff}{text}");
        let twice = format!("\u{feff}{marked}");
        for (bytes, declared) in [
            (text.as_bytes().to_vec(), Charset::Utf8),
            (marked.as_bytes().to_vec(), Charset::Utf8),
            (marked.as_bytes().to_vec(), Charset::Windows1252),
            (twice.as_bytes().to_vec(), Charset::Utf8),
            (utf16(&marked, u16::to_le_bytes), Charset::Utf8),
            (utf16(&marked, u16::to_be_bytes), Charset::Utf16Le),
            (utf16(text, u16::to_le_bytes), Charset::Utf16Le),
        ] {
            for piece in [1, 2, 3, 7, 1_000] {
                let mut body = Utf8Body::new(declared);
                let mut read: Vec<u8> = Vec::new();
                for piece in bytes.chunks(piece) {
                    read.extend_from_slice(&body.feed(piece));
                }
                read.extend(body.finish());
                assert_eq!(str::from_utf8(&read), Ok(text), "{declared:?} in pieces of {piece}");
                assert_eq!(body.charset(), Charset::Utf8);
            }
            assert_eq!(utf8_body(&bytes, declared), (text.as_bytes().into(), Charset::Utf8));
        }
    }

    #[test]
    fn unmarked_body_is_unchanged() {
        for short in [&b""[..], b"\xef", b"\xff", b"\xe1b"] {
            assert_eq!(utf8_body(short, Charset::Windows1252), (short.into(), Charset::Windows1252));
        }
    }
}
