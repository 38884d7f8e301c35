//! Cuts a file of messages, CSV or NDJSON, into parts of whole lines, so that a file of any length is sent in bounded
//! memory and a part whose answer was lost is sent again alone.
//!
//! Knows only where records end; what stands in them is the server's to read.

use std::io::{BufRead, Error, Result};

/// Lines of a part.
const LINES: u64 = 2_000;
/// A part ends here, whatever the length of its lines.
const BYTES: usize = 4 * 1024 * 1024;
/// Longer lines are no messages: the file is something else.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
}

/// Some lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What is sent; in a CSV part the file's header goes first.
    pub body: Vec<u8>,
    /// Lines of the file before this part; the part's own header does not count.
    pub lines_before: u64,
    /// Records in it.
    pub lines: u64,
    /// How many bytes of the file it is.
    pub bytes: u64,
}

/// Reads part after part.
pub struct Parts<R> {
    file: R,
    format: Format,
    header: Vec<u8>,
    lines_read: u64,
}

impl<R: BufRead> Parts<R> {
    pub fn new(file: R, format: Format) -> Parts<R> {
        Parts { file, format, header: Vec::new(), lines_read: 0 }
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Part>> {
        let mut bytes = 0;
        if self.format == Format::Csv && self.header.is_empty() {
            bytes += self.record()?.map_or(0, |header| {
                let length = header.len() as u64;
                self.header = header;
                length
            });
        }
        let mut part = Part { body: self.header.clone(), lines_before: self.lines_read, lines: 0, bytes };
        while part.lines < LINES && part.body.len() < BYTES {
            let Some(record) = self.record()? else { break };
            part.bytes += record.len() as u64;
            part.lines += 1;
            part.body.extend(record);
        }
        self.lines_read += part.lines;
        Ok((part.lines > 0).then_some(part))
    }

    /// The next line, or in CSV the next record: a line end between quotes does not end it.
    fn record(&mut self) -> Result<Option<Vec<u8>>> {
        let mut record = Vec::new();
        let mut open_quotes = false;
        loop {
            let begins = record.len();
            if self.file.read_until(b'\n', &mut record)? == 0 {
                break;
            }
            if record.len() > LONGEST_LINE {
                return Err(Error::other("a line is longer than 16 MiB"));
            }
            if self.format == Format::Csv {
                open_quotes ^= record[begins..].iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            }
            if !open_quotes {
                break;
            }
        }
        if record.is_empty() {
            return Ok(None);
        }
        if !record.ends_with(b"\n") {
            record.push(b'\n');
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, format: Format) -> Vec<Part> {
        let mut parts = Parts::new(text.as_bytes(), format);
        std::iter::from_fn(|| parts.next().expect("it can be read")).collect()
    }

    #[test]
    fn a_csv_part_begins_with_the_header_and_ends_with_a_whole_record() {
        let text = format!("dest,mdata\n{}", "1,\"two\nlines \"\"quoted\"\"\"\n".repeat(2_001));
        let parts = parts(&text, Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 1]);
        assert_eq!(parts[1].body, b"dest,mdata\n1,\"two\nlines \"\"quoted\"\"\"\n");
        assert_eq!(parts[1].lines_before, 2_000);
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn an_ndjson_part_is_lines_as_they_stand_and_a_last_line_end_may_be_missing() {
        let parts = parts("{\"a\":\"\\\"\"}\n\n{}", Format::Ndjson);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].lines, parts[0].body.as_slice()), (3, &b"{\"a\":\"\\\"\"}\n\n{}\n"[..]));
    }

    #[test]
    fn an_empty_file_has_no_part_and_nor_has_a_header_alone() {
        assert!(parts("", Format::Ndjson).is_empty());
        assert!(parts("", Format::Csv).is_empty());
        assert!(parts("dest,mdata\n", Format::Csv).is_empty());
    }
}
