//! The records of a file of messages, one after the other: rows of a CSV, lines of NDJSON.
//!
//! This module ends records where the server does. A record's content is read only for its emptiness and its
//! recipient.

use std::io::{BufRead, Error, Read, Result};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::CsvRows;
use super::separator::{cells, separator_line, separator_of_header};
use crate::text::{Charset, decoded, is_blank, trimmed};

/// A longer line is no message: the file is something else.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
}

/// A record of a CSV, or a line of NDJSON; with its line end.
#[derive(Debug, Default)]
pub struct FileRecord {
    pub text: Vec<u8>,
    /// The line of the file on which the record begins, counted from 1.
    pub line: i64,
    /// How many lines the record takes.
    pub lines: i64,
    /// Not a message: nothing, or separators only.
    pub is_empty: bool,
    is_broken: bool,
}

/// The recipient that a record names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub campaign: String,
    pub line: String,
    pub dest: String,
}

/// A reader that returns record after record.
pub struct Records<R> {
    file: R,
    format: Format,
    rows: CsvRows,
    separator: Option<u8>,
    /// The names of a CSV's columns, in lower case.
    columns: Vec<String>,
    /// Lines of the file that have been read, as an editor counts them.
    lines_read: i64,
}

impl<R: BufRead> Records<R> {
    pub fn new(file: R, format: Format) -> Records<R> {
        Records {
            file,
            format,
            rows: CsvRows::default(),
            separator: None,
            columns: Vec::new(),
            lines_read: 0,
        }
    }

    pub fn file(&self) -> &R {
        &self.file
    }

    pub fn lines_read(&self) -> i64 {
        self.lines_read
    }

    /// Return the separator of a CSV, after its header has been read.
    pub fn separator(&self) -> Option<u8> {
        self.separator
    }

    /// Return the header of a CSV: the first row that is not empty, behind a line `sep=;`. A broken header is
    /// an error: the row may be the whole file, and nothing would be sent.
    pub fn header(&mut self) -> Result<FileRecord> {
        loop {
            let Some(record) = self.next()? else { return Ok(FileRecord::default()) };
            if record.is_broken {
                return Err(Error::other(
                    "the header has a quote that is never closed, or closed before its field ends",
                ));
            }
            if let Some(separator) = separator_line(&record.text) {
                // Of several such lines the first counts, as for the server.
                self.set_separator(self.separator.unwrap_or(separator));
                continue;
            }
            let separator = self.separator.unwrap_or_else(|| separator_of_header(&record.text));
            let names = texts(&record.text, separator);
            if names.iter().all(|name| is_blank(name)) {
                continue;
            }
            self.set_separator(separator);
            self.columns = names.iter().map(|name| trimmed(name).to_ascii_lowercase()).collect();
            return Ok(record);
        }
    }

    fn set_separator(&mut self, separator: u8) {
        self.separator = Some(separator);
        self.rows.set_separator(separator);
    }

    /// Return the next record; `None` at the end.
    pub fn next(&mut self) -> Result<Option<FileRecord>> {
        let record = match self.format {
            Format::Csv => self.csv_record()?,
            Format::Ndjson => self.ndjson_line()?,
        };
        self.lines_read += record.as_ref().map_or(0, |record| record.lines);
        Ok(record)
    }

    /// Return the recipient of a record, with its campaign and line where the record itself names them.
    pub fn named(&self, record: &FileRecord) -> Option<Named> {
        let named = match self.format {
            Format::Csv => self.named_in_cells(record),
            Format::Ndjson => named_in_json(&record.text)?,
        };
        (!named.dest.is_empty()).then_some(named)
    }

    fn named_in_cells(&self, record: &FileRecord) -> Named {
        let mut named = Named::default();
        let texts = texts(&record.text, self.separator.unwrap_or(b','));
        for (column, text) in self.columns.iter().zip(texts) {
            let text = trimmed(&text).to_owned();
            match column.as_str() {
                "dest" => named.dest = text,
                "app_id" | "v8l_id" if named.line.is_empty() => named.line = text,
                "cp_id" => named.campaign = text,
                _ => {}
            }
        }
        named
    }

    fn ndjson_line(&mut self) -> Result<Option<FileRecord>> {
        let mut text = Vec::new();
        let longest = LONGEST_LINE as u64 + 1;
        (&mut self.file).take(longest).read_until(b'\n', &mut text)?;
        if text.len() > LONGEST_LINE {
            return Err(self.too_long(""));
        }
        if text.is_empty() {
            return Ok(None);
        }
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let is_empty = text.trim_ascii().is_empty();
        Ok(Some(FileRecord { text, line: self.lines_read + 1, lines: 1, is_empty, is_broken: false }))
    }

    fn csv_record(&mut self) -> Result<Option<FileRecord>> {
        let mut text = Vec::new();
        let row = loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                break self.rows.finish();
            }
            let (taken, ended) = self.rows.read(bytes);
            text.extend_from_slice(&bytes[..taken]);
            self.file.consume(taken);
            if ended.is_some() {
                break ended;
            }
            if text.len() > LONGEST_LINE {
                return Err(self.too_long("; is a quote not closed?"));
            }
        };
        let Some(row) = row else { return Ok(None) };
        self.end_line(&mut text)?;
        let is_empty = row.is_blank || self.has_only_separators(&text);
        Ok(Some(FileRecord { text, line: row.line, lines: row.lines, is_empty, is_broken: row.is_broken }))
    }

    fn has_only_separators(&self, text: &[u8]) -> bool {
        let Some(separator) = self.separator else { return false };
        // The first bytes of nearly every row show that the row is not empty.
        let is_nothing = |byte: &u8| {
            matches!(*byte, b'"' | b' ' | b'\t' | b'\r' | b'\n') || *byte == separator || *byte >= 0x80
        };
        text.iter().all(is_nothing) && texts(text, separator).iter().all(|text| is_blank(text))
    }

    /// Complete a record's line end. The LF of a CRLF stays with its CR, or the next part would count the LF
    /// as a line. The file's last line end may be missing.
    fn end_line(&mut self, text: &mut Vec<u8>) -> Result<()> {
        if text.ends_with(b"\r") && self.file.fill_buf()?.first() == Some(&b'\n') {
            self.rows.read(b"\n");
            self.file.consume(1);
            text.push(b'\n');
        } else if !text.ends_with(b"\r") && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        Ok(())
    }

    fn too_long(&self, why: &str) -> Error {
        Error::other(format!("line {}: longer than 16 MiB{why}", self.lines_read + 1))
    }
}

/// Return the cells of a record as texts.
fn texts(record: &[u8], separator: u8) -> Vec<String> {
    cells(record, separator).iter().map(|cell| decoded(cell, Charset::Utf8).text).collect()
}

/// Return the recipient that a line of NDJSON names. Values stay as they are written: an id of any length
/// keeps its digits.
fn named_in_json(line: &[u8]) -> Option<Named> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        dest: Option<&'a RawValue>,
        #[serde(borrow)]
        app_id: Option<&'a RawValue>,
        #[serde(borrow)]
        v8l_id: Option<&'a RawValue>,
        #[serde(borrow)]
        cp_id: Option<&'a RawValue>,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let text = |value: Option<&RawValue>| {
        let raw = value.map(RawValue::get).unwrap_or_default();
        trimmed(raw.trim_matches('"')).to_owned()
    };
    Some(Named { campaign: text(line.cp_id), line: text(line.app_id.or(line.v8l_id)), dest: text(line.dest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(format: Format, text: &str) -> Vec<Option<Named>> {
        let mut records = Records::new(text.as_bytes(), format);
        if format == Format::Csv {
            records.header().expect("a header");
        }
        let mut found = Vec::new();
        while let Some(record) = records.next().expect("it can be read") {
            found.push(records.named(&record));
        }
        found
    }

    fn name(campaign: &str, line: &str, dest: &str) -> Option<Named> {
        Some(Named { campaign: campaign.to_owned(), line: line.to_owned(), dest: dest.to_owned() })
    }

    #[test]
    fn csv_names_recipients_by_its_header() {
        let read = named(Format::Csv, "sep=;\nmdata; Dest ;CP_ID\n\"a; b\"; 253\u{a0};spring\nc;;\n");
        assert_eq!(read, [name("spring", "", "253"), None]);
    }

    #[test]
    fn first_of_two_separator_lines_counts() {
        let read = named(Format::Csv, "sep=;\nsep=,\ndest;mdata\n253;a,b\n");
        assert_eq!(read, [name("", "", "253")]);
    }

    #[test]
    fn ndjson_names_recipients() {
        let lines = "{\"dest\":25319273918273981273,\"app_id\":\"7\"}\n{\"dest\":\" 253 \",\"cp_id\":null}\n{}\n\n{\n";
        let read = named(Format::Ndjson, lines);
        assert_eq!(read, [name("", "7", "25319273918273981273"), name("", "", "253"), None, None, None]);
    }

    #[test]
    fn rows_of_separators_are_empty() {
        let mut records = Records::new("dest;mdata\n;\n ;\"\"\n\u{a0};\n253;hi\n".as_bytes(), Format::Csv);
        records.header().expect("a header");
        let mut empty = Vec::new();
        while let Some(record) = records.next().expect("it can be read") {
            empty.push((record.line, record.is_empty));
        }
        assert_eq!(empty, [(2, true), (3, true), (4, true), (5, false)]);
    }
}
