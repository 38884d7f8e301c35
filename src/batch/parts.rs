//! Cut a file of messages, CSV or NDJSON, into parts of whole lines: a file of any length is sent in bounded
//! memory, and a part whose answer was lost is repeated alone.
//!
//! The server interprets the records. This module reads only the recipient of a record, because repeated
//! recipients may stand in different parts.

use std::io::{BufRead, BufReader, Result};

use super::Recipients;
use super::records::{FileRecord, Format, Records};
use super::utf8::Utf8Reader;

/// Lines of a part; a CSV record of several lines counts as one.
const LINES: u64 = 2_000;
/// A part ends at this size, whatever the length of its lines.
const BYTES: usize = 4 * 1024 * 1024;

/// Consecutive lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The bytes to send; a CSV part begins with the file's header.
    pub body: Vec<u8>,
    /// The offset from a line number in this part to the line number in the file, as an editor counts: a
    /// record of several lines counts as many. The part's own header does not count.
    pub lines_before: i64,
    /// Records of the part, and blank lines.
    pub lines: u64,
    /// Records that may be messages.
    pub messages: u64,
    /// How many bytes of the file the part covers.
    pub bytes: u64,
    /// Records whose recipient stands in an earlier record.
    pub repeated: u64,
    /// Lines of the file that were left out because their recipient is repeated.
    pub left_out: Vec<i64>,
}

/// A reader that returns part after part.
pub struct Parts<R> {
    records: Records<BufReader<Utf8Reader<R>>>,
    format: Format,
    header: Option<FileRecord>,
    recipients: Recipients,
    is_once_per_dest: bool,
    bytes_read: u64,
}

impl<R: BufRead> Parts<R> {
    pub fn new(file: R, format: Format) -> Parts<R> {
        Parts {
            records: Records::new(BufReader::new(Utf8Reader::new(file)), format),
            format,
            header: None,
            recipients: Recipients::default(),
            is_once_per_dest: false,
            bytes_read: 0,
        }
    }

    /// Leave out records whose recipient stands in an earlier record.
    pub fn once_per_dest(mut self, is_wanted: bool) -> Parts<R> {
        self.is_once_per_dest = is_wanted;
        self
    }

    /// Return the separator of a CSV, after a part has been read.
    pub fn separator(&self) -> Option<u8> {
        self.records.separator()
    }

    /// Return the next part; `None` at the end.
    pub fn next_part(&mut self) -> Result<Option<Part>> {
        if self.format == Format::Csv && self.header.is_none() {
            self.header = Some(self.records.header()?);
        }
        let (body, header_lines) =
            self.header.as_ref().map_or((Vec::new(), 0), |header| (header.text.clone(), header.lines));
        let lines_before = self.records.lines_read() - header_lines;
        let mut part = Part { body, lines_before, ..Part::default() };
        while part.lines < LINES && part.body.len() < BYTES {
            let Some(record) = self.records.next()? else { break };
            self.add(record, &mut part);
        }
        let bytes_read = self.records.file().get_ref().bytes_read();
        part.bytes = bytes_read - std::mem::replace(&mut self.bytes_read, bytes_read);
        Ok((part.lines > 0).then_some(part))
    }

    fn add(&mut self, record: FileRecord, part: &mut Part) {
        part.lines += 1;
        let is_repeated = !record.is_empty && self.is_repeated(&record);
        part.repeated += u64::from(is_repeated);
        if is_repeated && self.is_once_per_dest {
            part.left_out.push(record.line);
            // As many empty lines replace the record, to keep the numbers of the lines behind it. A line end
            // alone could merge with the previous line end.
            let blank = [self.separator().unwrap_or(b' '), b'\n'];
            part.body.extend(blank.repeat(usize::try_from(record.lines).unwrap_or(1)));
        } else {
            part.messages += u64::from(!record.is_empty);
            part.body.extend(record.text);
        }
    }

    fn is_repeated(&mut self, record: &FileRecord) -> bool {
        self.records.named(record).is_some_and(|named| {
            let recipient = self.recipients.recipient(&named.campaign, &named.line, &named.dest);
            self.recipients.remember(recipient)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, format: Format) -> Vec<Part> {
        let mut parts = Parts::new(text.as_bytes(), format);
        std::iter::from_fn(|| parts.next_part().expect("it can be read")).collect()
    }

    /// Return the file's line number for a line of the part.
    fn line_in_file(part: &Part, line: i64) -> i64 {
        part.lines_before + line
    }

    #[test]
    fn csv_part_has_the_header_and_whole_records() {
        let text = format!("dest,mdata\n{}", "1,\"two\nlines \"\"quoted\"\"\"\n".repeat(2_001));
        let parts = parts(&text, Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 1]);
        assert_eq!(parts[1].body, b"dest,mdata\n1,\"two\nlines \"\"quoted\"\"\"\n");
        assert_eq!(parts[1].lines_before, 4_000, "two lines each");
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), text.len() as u64);
    }

    #[test]
    fn ndjson_part_keeps_lines_as_written() {
        let parts = parts("{\"a\":\"\\\"\"}\n\n{}", Format::Ndjson);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].lines, parts[0].body.as_slice()), (3, &b"{\"a\":\"\\\"\"}\n\n{}\n"[..]));
    }

    #[test]
    fn empty_file_or_lone_header_has_no_part() {
        assert!(parts("", Format::Ndjson).is_empty());
        assert!(parts("", Format::Csv).is_empty());
        assert!(parts("dest,mdata\n", Format::Csv).is_empty());
    }

    #[test]
    fn inner_quote_leaves_records_whole() {
        let records = "1,5\" nail\n2,\"two\nlines\"\n".repeat(1_001);
        let parts = parts(&format!("dest,mdata\n{records}"), Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 2]);
        assert_eq!(parts[1].body, b"dest,mdata\n1,5\" nail\n2,\"two\nlines\"\n");
        assert_eq!(line_in_file(&parts[1], 2), 3_002);
    }

    #[test]
    fn broken_record_ends_as_on_the_server() {
        let broken = "1,\"Hi Ana\n2,\"Hi Bob\"\n";
        let text = format!("dest,mdata\n{broken}{}", "3,\"Hi Cid\"\n".repeat(2_000));
        let parts = parts(&text, Format::Csv);
        assert_eq!(parts.iter().map(|part| part.lines).collect::<Vec<_>>(), [2_000, 1]);
        assert_eq!(parts[1].body, b"dest,mdata\n3,\"Hi Cid\"\n");
        assert_eq!(line_in_file(&parts[1], 2), 2_003);
    }

    #[test]
    fn lines_are_counted_for_every_line_end() {
        for line_end in ["\n", "\r", "\r\n"] {
            let text = format!("\n\n\"dest\",\"mda\nta\"\n{}\n2,last", "1,\"a\n\nb\"\n".repeat(1_999));
            let text = format!("\u{feff}{}", text.replace('\n', line_end));
            for capacity in [3, 64, 8_192] {
                let file = std::io::BufReader::with_capacity(capacity, text.as_bytes());
                let mut parts = Parts::new(file, Format::Csv);
                let first = parts.next_part().expect("it can be read").expect("a full part");
                let second = parts.next_part().expect("it can be read").expect("the rest");
                let header = format!("\"dest\",\"mda{line_end}ta\"{line_end}");
                assert!(first.body.starts_with(header.as_bytes()), "the header, not what stands before it");
                assert_eq!((first.lines, line_in_file(&first, 3)), (2_000, 5), "{line_end:?} {capacity}");
                assert_eq!(second.body, format!("{header}2,last\n").into_bytes(), "{line_end:?} {capacity}");
                assert_eq!(line_in_file(&second, 3), 4 + 3 * 1_999 + 2, "{line_end:?} {capacity}");
                assert_eq!(first.bytes + second.bytes, text.len() as u64, "{line_end:?} {capacity}");
                assert_eq!(parts.next_part().expect("it can be read"), None);
            }
        }
    }

    #[test]
    fn unclosed_quote_in_the_header_is_an_error() {
        for text in ["\"dest,mdata\n1,Hi Ana\n", "\"dest,mdata\n1,\"Hi Ana\"\n"] {
            let error = Parts::new(text.as_bytes(), Format::Csv).next_part().expect_err("no header");
            assert!(error.to_string().contains("header"), "{error}");
        }
    }

    fn once_per_dest(text: &str, format: Format) -> Vec<Part> {
        let mut parts = Parts::new(text.as_bytes(), format).once_per_dest(true);
        std::iter::from_fn(|| parts.next_part().expect("it can be read")).collect()
    }

    #[test]
    fn repeated_recipient_is_found_across_parts() {
        let text = format!("dest,mdata\n1,a\n{}1,\"b\nc\"\n2,d\n", ",\n".repeat(2_000));
        let counted = parts(&text, Format::Csv);
        assert_eq!(counted.iter().map(|part| part.repeated).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(counted.iter().map(|part| part.messages).collect::<Vec<_>>(), [1, 2]);
        let once = once_per_dest(&text, Format::Csv);
        assert_eq!((once[1].messages, once[1].left_out.as_slice()), (1, &[2_003][..]));
        assert_eq!(once[1].body, b"dest,mdata\n,\n,\n,\n2,d\n");
        let ndjson = "{\"dest\":\"1\"}\n{\"dest\":1}\n{\"dest\":\"2\"}\n";
        assert_eq!(once_per_dest(ndjson, Format::Ndjson)[0].body, b"{\"dest\":\"1\"}\n \n{\"dest\":\"2\"}\n");
    }

    #[test]
    fn separator_line_is_left_out_and_counted() {
        let mut parts = Parts::new("sep=;\r\ndest;mdata\r\n1;\"a;b\nc\"\r\n".as_bytes(), Format::Csv);
        let part = parts.next_part().expect("it can be read").expect("a part");
        assert_eq!(part.body, b"dest;mdata\r\n1;\"a;b\nc\"\r\n");
        assert_eq!((parts.separator(), line_in_file(&part, 2)), (Some(b';'), 3));
    }

    #[test]
    fn rows_without_a_cell_are_no_messages() {
        let read = parts("dest,mdata\n,\n\n , \n", Format::Csv);
        assert_eq!((read[0].lines, read[0].messages), (3, 0));
    }

    #[test]
    fn utf_16_becomes_utf_8() {
        let bytes: Vec<u8> =
            "\u{feff}dest\tmdata\n1\tOlá\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let part =
            Parts::new(bytes.as_slice(), Format::Csv).next_part().expect("it can be read").expect("a part");
        assert_eq!(part.body, "dest\tmdata\n1\tOlá\n".as_bytes());
        assert_eq!(part.bytes, bytes.len() as u64);
    }
}
