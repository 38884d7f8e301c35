//! The lines of a batch as they arrive: NDJSON or CSV, cut into parameters. A line that cannot be read is one
//! refused line, and reading continues with the next. No more than one line is held in memory.

use super::super::parameters::Parameters;
use super::columns::too_long;
use super::csv::{Csv, CsvOptions};
use crate::batch::Format;
use crate::edge::Refused;
use crate::text::Charset;

/// Longest line (contract code 413).
pub const LONGEST_LINE: usize = 64 * 1024;
/// Most items of one chunk.
pub const MAX_CHUNK_ITEMS: usize = 500;

/// One line that is not blank. Lines are counted from 1 as an editor counts them: blank lines and a CSV's
/// header row count too.
#[derive(Debug)]
pub struct BatchInput {
    pub line: i64,
    pub given: Result<Parameters, Refused>,
}

/// A reader of a batch, piece by piece, without byte order marks and UTF-16.
pub struct Reader {
    charset: Charset,
    defaults: Parameters,
    items: ItemReader,
}

enum ItemReader {
    Ndjson(Ndjson),
    Csv(Box<Csv>),
}

impl Reader {
    pub fn new(format: Format, options: CsvOptions, defaults: Parameters) -> Reader {
        let items = match format {
            Format::Ndjson => ItemReader::Ndjson(Ndjson::default()),
            Format::Csv => ItemReader::Csv(Box::new(Csv::new(options))),
        };
        Reader { charset: Charset::default(), defaults, items }
    }

    /// Set the encoding of the values from here on.
    pub fn set_charset(&mut self, charset: Charset) {
        self.charset = charset;
    }

    /// Whether lines can follow: a CSV's header row has been read.
    pub fn is_ready(&self) -> bool {
        match &self.items {
            ItemReader::Ndjson(_) => true,
            ItemReader::Csv(csv) => csv.has_header(),
        }
    }

    /// Read bytes and return how many were taken: fewer than all when there are `MAX_CHUNK_ITEMS` items, or
    /// after a header row.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<BatchInput>) -> Result<usize, Refused> {
        match &mut self.items {
            ItemReader::Ndjson(items) => Ok(items.feed(bytes, self.charset, &self.defaults, out)),
            ItemReader::Csv(csv) => csv.feed(bytes, self.charset, &self.defaults, out),
        }
    }

    /// End the input: the last line needs no line end.
    pub fn finish(&mut self, out: &mut Vec<BatchInput>) -> Result<(), Refused> {
        match &mut self.items {
            ItemReader::Ndjson(items) => items.finish(self.charset, &self.defaults, out),
            ItemReader::Csv(csv) => csv.finish(self.charset, &self.defaults, out)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Ndjson {
    /// How many lines have ended.
    ended: i64,
    partial: Vec<u8>,
    is_too_long: bool,
}

impl Ndjson {
    fn feed(
        &mut self,
        bytes: &[u8],
        charset: Charset,
        defaults: &Parameters,
        out: &mut Vec<BatchInput>,
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() && out.len() < MAX_CHUNK_ITEMS {
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            self.push(&rest[..end.unwrap_or(rest.len())]);
            at += end.map_or(rest.len(), |end| end + 1);
            if end.is_some() {
                self.end_line(charset, defaults, out);
            }
        }
        at
    }

    fn push(&mut self, part: &[u8]) {
        if self.partial.len() + part.len() > LONGEST_LINE {
            self.is_too_long = true;
        }
        if !self.is_too_long {
            self.partial.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, charset: Charset, defaults: &Parameters, out: &mut Vec<BatchInput>) {
        self.ended += 1;
        let given = if self.is_too_long {
            Some(Err(too_long()))
        } else {
            let text = self.partial.trim_ascii();
            (!text.is_empty()).then(|| Parameters::line_of_json(text, charset, defaults))
        };
        if let Some(given) = given {
            out.push(BatchInput { line: self.ended, given });
        }
        self.partial.clear();
        self.is_too_long = false;
    }

    fn finish(&mut self, charset: Charset, defaults: &Parameters, out: &mut Vec<BatchInput>) {
        if self.is_too_long || !self.partial.is_empty() {
            self.end_line(charset, defaults, out);
        }
    }
}

#[cfg(test)]
mod tests;
