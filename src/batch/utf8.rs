//! A file as UTF-8: without byte order marks, and converted if it is UTF-16. Values of other encodings stay
//! unchanged: the server decodes each value by itself.

use std::io::{BufRead, Read, Result};

use crate::text::{Charset, Utf8Body};

/// A reader of a file as UTF-8.
pub struct Utf8Reader<R> {
    file: R,
    body: Utf8Body,
    /// Converted bytes that have not been taken yet.
    ready: Vec<u8>,
    taken: usize,
    bytes_read: u64,
    has_ended: bool,
}

impl<R: BufRead> Utf8Reader<R> {
    pub fn new(file: R) -> Utf8Reader<R> {
        let body = Utf8Body::new(Charset::default());
        Utf8Reader { file, body, ready: Vec::new(), taken: 0, bytes_read: 0, has_ended: false }
    }

    /// Return how many bytes of the file have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    fn read_on(&mut self) -> Result<()> {
        let piece = self.file.fill_buf()?;
        let length = piece.len();
        self.has_ended = length == 0;
        self.ready = if self.has_ended { self.body.finish() } else { self.body.feed(piece).into_owned() };
        self.taken = 0;
        self.file.consume(length);
        self.bytes_read += length as u64;
        Ok(())
    }
}

impl<R: BufRead> Read for Utf8Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.taken == self.ready.len() && !self.has_ended {
            self.read_on()?;
        }
        let rest = &self.ready[self.taken..];
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn any_mark_is_read_as_utf_8() {
        let text = "dest,mdata\n253,Olá 😀\n";
        let marked = format!("\u{feff}{text}");
        let utf16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for file in [text.as_bytes(), marked.as_bytes(), &utf16] {
            for capacity in [1, 3, 8_192] {
                let mut reader = Utf8Reader::new(BufReader::with_capacity(capacity, file));
                let mut read = String::new();
                reader.read_to_string(&mut read).expect("it can be read");
                assert_eq!((read.as_str(), reader.bytes_read()), (text, file.len() as u64), "{capacity}");
            }
        }
    }

    #[test]
    fn bytes_of_other_encodings_stay() {
        let mut read = Vec::new();
        Utf8Reader::new(&b"ol\xe1"[..]).read_to_end(&mut read).expect("it can be read");
        assert_eq!(read, b"ol\xe1");
    }
}
