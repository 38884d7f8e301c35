//! Cuts a file of messages, CSV or NDJSON, into parts of whole lines, so that a file of any length is sent in bounded
//! memory and a part whose answer was lost is sent again alone.
//!
//! Knows only where records end, as the server does; what stands in them is the server's to read.

use std::io::{BufRead, Error, Read, Result};

use crate::message::CsvRows;

/// Lines of a part; in CSV a record that takes several is one.
const LINES: u64 = 2_000;
/// A part ends here, whatever the length of its lines.
const BYTES: usize = 4 * 1024 * 1024;
/// Longer lines are no messages: the file is something else.
const LONGEST_LINE: usize = 16 * 1024 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// To be added to the number of a line in this part, for its number in the file: an editor's, so that a record
    /// which takes several lines counts as many. The part's own header does not count.
    pub lines_before: i64,
    /// Records in it, and blank lines.
    pub lines: u64,
    /// How many bytes of the file it is.
    pub bytes: u64,
}

/// Reads part after part.
pub struct Parts<R> {
    file: R,
    format: Format,
    rows: CsvRows,
    header: Option<Record>,
    /// Lines of the file that have been read, as an editor counts them.
    lines_read: i64,
    bytes_read: u64,
}

/// A record of a CSV, or a line of NDJSON; with its line end.
#[derive(Default)]
struct Record {
    text: Vec<u8>,
    /// How many lines it takes.
    lines: i64,
    is_blank: bool,
    is_broken: bool,
}

impl<R: BufRead> Parts<R> {
    pub fn new(file: R, format: Format) -> Parts<R> {
        Parts { file, format, rows: CsvRows::default(), header: None, lines_read: 0, bytes_read: 0 }
    }

    /// The next part; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Part>> {
        let bytes_before = self.bytes_read;
        if self.format == Format::Csv && self.header.is_none() {
            self.header = Some(self.read_header()?);
        }
        let (body, header_lines) =
            self.header.as_ref().map_or((Vec::new(), 0), |header| (header.text.clone(), header.lines));
        let mut part = Part { body, lines_before: self.lines_read - header_lines, ..Part::default() };
        while part.lines < LINES && part.body.len() < BYTES {
            let Some(record) = self.record()? else { break };
            part.lines += 1;
            part.body.extend(record.text);
        }
        part.bytes = self.bytes_read - bytes_before;
        Ok((part.lines > 0).then_some(part))
    }

    /// The first row that is not blank. One that is broken may be the whole file, of which nothing would be sent.
    fn read_header(&mut self) -> Result<Record> {
        if self.file.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.consume(BYTE_ORDER_MARK.len());
        }
        loop {
            match self.record()? {
                None => return Ok(Record::default()),
                Some(record) if record.is_blank => {}
                Some(record) if record.is_broken => {
                    return Err(Error::other(
                        "the header has a quote that is never closed, or closed before its field ends",
                    ));
                }
                Some(record) => return Ok(record),
            }
        }
    }

    fn record(&mut self) -> Result<Option<Record>> {
        let record = match self.format {
            Format::Csv => self.csv_record()?,
            Format::Ndjson => self.ndjson_line()?,
        };
        self.lines_read += record.as_ref().map_or(0, |record| record.lines);
        Ok(record)
    }

    fn ndjson_line(&mut self) -> Result<Option<Record>> {
        let mut text = Vec::new();
        let longest = LONGEST_LINE as u64 + 1;
        self.bytes_read += (&mut self.file).take(longest).read_until(b'\n', &mut text)? as u64;
        if text.len() > LONGEST_LINE {
            return Err(self.too_long(""));
        }
        if text.is_empty() {
            return Ok(None);
        }
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(Some(Record { text, lines: 1, ..Record::default() }))
    }

    fn csv_record(&mut self) -> Result<Option<Record>> {
        let mut text = Vec::new();
        let row = loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                break self.rows.finish();
            }
            let (taken, ended) = self.rows.read(bytes);
            text.extend_from_slice(&bytes[..taken]);
            self.consume(taken);
            if ended.is_some() {
                break ended;
            }
            if text.len() > LONGEST_LINE {
                return Err(self.too_long("; is a quote not closed?"));
            }
        };
        let Some(row) = row else { return Ok(None) };
        self.end_line(&mut text)?;
        Ok(Some(Record { text, lines: row.lines, is_blank: row.is_blank, is_broken: row.is_broken }))
    }

    /// The LF of a CRLF goes with its CR: the next part would count it as a line. The file's last line end may be
    /// missing.
    fn end_line(&mut self, text: &mut Vec<u8>) -> Result<()> {
        if text.ends_with(b"\r") && self.file.fill_buf()?.first() == Some(&b'\n') {
            self.rows.read(b"\n");
            self.consume(1);
            text.push(b'\n');
        } else if !text.ends_with(b"\r") && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(())
    }

    fn consume(&mut self, bytes: usize) {
        self.file.consume(bytes);
        self.bytes_read += bytes as u64;
    }

    fn too_long(&self, why: &str) -> Error {
        Error::other(format!("line {}: longer than 16 MiB{why}", self.lines_read + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, format: Format) -> Vec<Part> {
        let mut parts = Parts::new(text.as_bytes(), format);
        std::iter::from_fn(|| parts.next().expect("it can be read")).collect()
    }

    /// The line of the file that is this one of the part.
    fn line_in_file(part: &Part, line: i64) -> i64 {
        part.lines_before + line
    }

    #[test]
    fn a_csv_part_begins_with_the_header_and_ends_with_a_whole_record() {
        let text = format!("dest,mdata\n{}", "1,\"two\nlines \"\"quoted\"\"\"\n".repeat(2_001));
        let parts = parts(&text, Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 1]);
        assert_eq!(parts[1].body, b"dest,mdata\n1,\"two\nlines \"\"quoted\"\"\"\n");
        assert_eq!(parts[1].lines_before, 4_000, "two lines each");
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

    #[test]
    fn a_quote_inside_a_field_leaves_records_as_the_server_reads_them() {
        let records = "1,5\" nail\n2,\"two\nlines\"\n".repeat(1_001);
        let parts = parts(&format!("dest,mdata\n{records}"), Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 2]);
        assert_eq!(parts[1].body, b"dest,mdata\n1,5\" nail\n2,\"two\nlines\"\n");
        assert_eq!(line_in_file(&parts[1], 2), 3_002);
    }

    #[test]
    fn a_record_that_is_refused_for_its_quotes_ends_where_the_server_ends_it() {
        let broken = "1,\"Hi Ana\n2,\"Hi Bob\"\n";
        let text = format!("dest,mdata\n{broken}{}", "3,\"Hi Cid\"\n".repeat(2_000));
        let parts = parts(&text, Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 1]);
        assert_eq!(parts[1].body, b"dest,mdata\n3,\"Hi Cid\"\n");
        assert_eq!(line_in_file(&parts[1], 2), 2_003);
    }

    #[test]
    fn lines_of_the_file_are_counted_whatever_ends_them_and_however_it_is_read() {
        for line_end in ["\n", "\r", "\r\n"] {
            let text = format!("\n\n\"dest\",\"mda\nta\"\n{}\n2,last", "1,\"a\n\nb\"\n".repeat(1_999));
            let text = format!("\u{feff}{}", text.replace('\n', line_end));
            for capacity in [3, 64, 8_192] {
                let file = std::io::BufReader::with_capacity(capacity, text.as_bytes());
                let mut parts = Parts::new(file, Format::Csv);
                let first = parts.next().expect("it can be read").expect("a full part");
                let second = parts.next().expect("it can be read").expect("the rest");
                let header = format!("\"dest\",\"mda{line_end}ta\"{line_end}");
                assert!(first.body.starts_with(header.as_bytes()), "the header, not what stands before it");
                assert_eq!((first.lines, line_in_file(&first, 3)), (2_000, 5), "{line_end:?} {capacity}");
                assert_eq!(second.body, format!("{header}2,last\n").into_bytes(), "{line_end:?} {capacity}");
                assert_eq!(line_in_file(&second, 3), 4 + 3 * 1_999 + 2, "{line_end:?} {capacity}");
                assert_eq!(first.bytes + second.bytes, text.len() as u64, "{line_end:?} {capacity}");
                assert_eq!(parts.next().expect("it can be read"), None);
            }
        }
    }

    #[test]
    fn a_header_whose_quote_is_never_closed_is_told_before_anything_is_sent() {
        for text in ["\"dest,mdata\n1,Hi Ana\n", "\"dest,mdata\n1,\"Hi Ana\"\n"] {
            let error = Parts::new(text.as_bytes(), Format::Csv).next().expect_err("no header");
            assert!(error.to_string().contains("header"), "{error}");
        }
    }
}
