//! The recipients that the messages of a file name, one message after the other.
//!
//! Never here: the messages themselves.

use std::io::{BufRead, BufReader, Result};

use super::records::{Format, Named, Records};
use super::utf8::Utf8Reader;

/// A reader that returns recipient after recipient.
pub struct Addressed<R> {
    records: Records<BufReader<Utf8Reader<R>>>,
    format: Format,
    is_begun: bool,
}

impl<R: BufRead> Addressed<R> {
    pub fn new(file: R, format: Format) -> Addressed<R> {
        Addressed {
            records: Records::new(BufReader::new(Utf8Reader::new(file)), format),
            format,
            is_begun: false,
        }
    }

    /// Return the recipient of the next message, or none if the message names none; `None` at the end.
    pub fn next_recipient(&mut self) -> Result<Option<Option<Named>>> {
        if self.format == Format::Csv && !self.is_begun {
            self.records.header()?;
        }
        self.is_begun = true;
        while let Some(record) = self.records.next()? {
            if !record.is_empty {
                return Ok(Some(self.records.named(&record)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_a_place() {
        let text = "dest;app_id\n253;7\n;\n;8\n254;\n";
        let mut addressed = Addressed::new(text.as_bytes(), Format::Csv);
        let mut found = Vec::new();
        while let Some(named) = addressed.next_recipient().expect("it can be read") {
            found.push(named.map(|named| (named.line, named.dest)));
        }
        let of = |line: &str, dest: &str| Some((line.to_owned(), dest.to_owned()));
        assert_eq!(found, [of("7", "253"), None, of("", "254")]);
    }
}
