//! A file of messages as the server reads it, and as `campaign send` cuts it into parts.
//!
//! Properties: the records are the same wherever the body is cut; lines grow, and those of NDJSON are exactly the lines
//! that are not blank; each part of `campaign send` has the records that the file has there, at the same lines.

use meta_dispatch::batch::{Format, Parts};
use meta_dispatch::channel::Class;
use meta_dispatch::edge::Refused;
use meta_dispatch::fuzzing::{BatchInput, CsvOptions, IgnoredColumns, Parameters, Reader, request_hash};
use meta_dispatch::text::{Charset, Utf8Body, utf8_body};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shape::{note, number_of};

pub const WORDS: &[&str] = &[
    "dest,mdata\n",
    "dest;mdata\n",
    "dest\tmdata\n",
    "sep=;\n",
    "sep=,\n",
    "\"sep=;\"\r\n",
    "dest",
    "mdata",
    "app_id",
    "class",
    "tsid",
    "colour",
    "253,hi\n",
    "253;hi\r\n",
    "\"two\nlines\"",
    "\"\"",
    "\"a\"x",
    "5\" nail",
    ",,,\n",
    "\n\n",
    "\r",
    "{\"dest\":\"253\",\"mdata\":\"hi\"}\n",
    "{\"class\":\"instagram\"}\n",
    "{\"tsid\":\"x\"}",
    "{}",
    "[]\n",
    LONG,
];

/// Stands for more characters than a line may have, or a few less.
const LONG: &str = "<long>";
const LONGEST_LINE: usize = 64 * 1024;
/// Items of one chunk at most.
const MAX_ITEMS: usize = 500;

pub fn target(input: &[u8]) {
    let number = number_of(input);
    let file = with_long_lines(input, number);
    let charset = match number % 8 {
        0 => Charset::Windows1252,
        1 => Charset::Utf16Le,
        _ => Charset::Utf8,
    };
    for format in [Format::Csv, Format::Ndjson] {
        let reading = Reading { format, charset, separator: None, ignores: number % 16 < 8 };
        let whole = reading.records(&file, |_| usize::MAX);
        let mut random = StdRng::seed_from_u64(number);
        let cut = reading.records(&file, |_| random.random_range(1..=9));
        assert_eq!(cut, whole, "{format:?}, cut at random");
        let cut = reading.records(&file, |at| if at < 300 { 1 } else { usize::MAX });
        assert_eq!(cut, whole, "{format:?}, cut into bytes");
        match &whole {
            Ok(records) => {
                lines_grow(records);
                if format == Format::Ndjson {
                    lines_are_those_that_are_not_blank(records, &utf8_body(&file, charset).0);
                }
                is_the_same_in_parts(&reading, &file, records);
            }
            Err(refused) => note(refused.code()),
        }
    }
}

fn with_long_lines(input: &[u8], number: u64) -> Vec<u8> {
    let filler = vec![b'x'; LONGEST_LINE - 40 + (number % 64) as usize];
    let mut file = Vec::new();
    let (mut rest, mut fillers) = (input, 0);
    while let Some(at) = rest.windows(LONG.len()).position(|bytes| bytes == LONG.as_bytes()) {
        file.extend_from_slice(&rest[..at]);
        // More than three tell nothing new, and take long.
        if fillers < 3 {
            file.extend_from_slice(&filler);
        }
        fillers += 1;
        rest = &rest[at + LONG.len()..];
    }
    file.extend_from_slice(rest);
    file
}

/// A record, comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    line: i64,
    given: Result<Given, Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    parameters: Vec<u8>,
    class: Option<String>,
    detail: Option<String>,
}

impl Record {
    fn of(input: BatchInput) -> Record {
        let given = input.given.map(|parameters| Given {
            parameters: request_hash(Class::MESSENGER, &parameters),
            class: parameters.text("class").map(str::to_owned),
            detail: parameters.detail(),
        });
        Record { line: input.line, given }
    }
}

/// The options of a reading.
#[derive(Clone, Copy)]
struct Reading {
    format: Format,
    charset: Charset,
    separator: Option<u8>,
    ignores: bool,
}

impl Reading {
    /// Read a file in pieces, as the batch does; `cut` gives the length of the piece at a place.
    fn records(&self, file: &[u8], mut cut: impl FnMut(usize) -> usize) -> Result<Vec<Record>, Refused> {
        let ignored = if self.ignores { IgnoredColumns::All } else { IgnoredColumns::None };
        let options = CsvOptions { separator: self.separator, ignored };
        let mut reader = Reader::new(self.format, options, Parameters::default());
        let mut utf8 = Utf8Body::new(self.charset);
        let (mut records, mut at) = (Vec::new(), 0);
        while at < file.len() {
            let end = file.len().min(at.saturating_add(cut(at).max(1)));
            let piece = utf8.feed(&file[at..end]).into_owned();
            at = end;
            reader.set_charset(utf8.charset());
            take(&mut reader, &piece, &mut records)?;
        }
        let rest = utf8.finish();
        reader.set_charset(utf8.charset());
        take(&mut reader, &rest, &mut records)?;
        let mut last = Vec::new();
        reader.finish(&mut last)?;
        records.extend(last.into_iter().map(Record::of));
        Ok(records)
    }
}

fn take(reader: &mut Reader, mut bytes: &[u8], records: &mut Vec<Record>) -> Result<(), Refused> {
    while !bytes.is_empty() {
        let mut items = Vec::new();
        let taken = reader.feed(bytes, &mut items)?;
        assert!(taken > 0 && items.len() <= MAX_ITEMS);
        records.extend(items.into_iter().map(Record::of));
        bytes = &bytes[taken..];
    }
    Ok(())
}

fn lines_grow(records: &[Record]) {
    for pair in records.windows(2) {
        assert!(pair[0].line < pair[1].line, "{} stands before {}", pair[0].line, pair[1].line);
    }
    assert!(records.first().is_none_or(|record| record.line >= 1));
    note(records.len().min(4));
    for record in records.iter().take(4) {
        let outcome = record.given.as_ref().map(|given| given.detail.is_some());
        note(outcome.map_err(Refused::code));
    }
}

fn lines_are_those_that_are_not_blank(records: &[Record], text: &[u8]) {
    let lines = text.split(|byte| *byte == b'\n');
    let not_blank: Vec<i64> = (1..)
        .zip(lines)
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(number, _)| number)
        .collect();
    let read: Vec<i64> = records.iter().map(|record| record.line).collect();
    assert_eq!(read, not_blank);
}

/// Cut a file as `campaign send` does, and read each part as the server does.
///
/// Only for UTF-8: the command converts files by their byte order mark alone, and a part that begins with other bytes
/// could seem to have one. Only where no quote stands before the first record: the header decides about the separator, and
/// with it about the quotes of the header itself.
fn is_the_same_in_parts(reading: &Reading, file: &[u8], records: &[Record]) {
    let Ok(text) = str::from_utf8(file) else { return };
    if reading.charset != Charset::Utf8 || (reading.format == Format::Csv && has_quoted_head(text, records)) {
        return;
    }
    let mut parts = Parts::new(file, reading.format);
    let mut found = Vec::new();
    while let Some(part) = parts.next_part().expect("a file in memory can be read") {
        let reading = Reading { separator: parts.separator(), ..*reading };
        let of_part = reading.records(&part.body, |_| usize::MAX).expect("the header was good");
        let moved = |record: Record| Record { line: record.line + part.lines_before, ..record };
        found.extend(of_part.into_iter().map(moved));
    }
    assert_eq!(found, records, "{:?} in parts", reading.format);
}

fn has_quoted_head(text: &str, records: &[Record]) -> bool {
    let Some(first) = records.first() else { return text.contains('"') };
    let lines = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    let lines_before = usize::try_from(first.line - 1).unwrap_or_default();
    lines.take(lines_before).any(|line| line.contains('"'))
}
