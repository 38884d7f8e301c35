//! The lines of a batch as they come in: NDJSON or CSV, cut into parameters. A line that cannot be read is one refused
//! line, and the next is read on. Holds no more than one line.

use csv_core::ReadRecordResult;

use super::super::parameters::Parameters;
use super::super::refusal::Refusal;
use crate::message::{CsvRow, CsvRows};

/// Longest line (contract code 413).
const LONGEST_LINE: usize = 64 * 1024;
/// Lines handed on at once, at most.
pub const CHUNK: usize = 500;
/// Columns a CSV row may have; more than there are parameters cannot be right.
const MOST_COLUMNS: usize = 64;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line that is not blank. Lines are counted from 1 as an editor counts them: blank ones and a CSV's header row too.
#[derive(Debug)]
pub struct Input {
    pub line: i64,
    pub given: Result<Parameters, Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Ndjson,
    Csv,
}

/// A CSV's header row that cannot be used: the name of a column that is unknown or stands twice.
#[derive(Debug, PartialEq, Eq)]
pub struct WrongColumn(pub String);

/// Reads a batch, piece by piece.
pub struct Reader {
    /// What may be a byte order mark, until that is known.
    start: Option<Vec<u8>>,
    defaults: Parameters,
    lines: Lines,
}

enum Lines {
    Ndjson(Ndjson),
    Csv(Box<Csv>),
}

impl Reader {
    pub fn new(format: Format, defaults: Parameters) -> Reader {
        let lines = match format {
            Format::Ndjson => Lines::Ndjson(Ndjson::default()),
            Format::Csv => Lines::Csv(Box::new(Csv::new())),
        };
        Reader { start: Some(Vec::new()), defaults, lines }
    }

    /// Whether lines can follow: a CSV's header row has been read.
    pub fn is_ready(&self) -> bool {
        match &self.lines {
            Lines::Ndjson(_) => true,
            Lines::Csv(csv) => csv.columns.is_some(),
        }
    }

    /// Reads on and says how many bytes it took: fewer than all when there are `CHUNK` lines, or after a header row.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Input>) -> Result<usize, WrongColumn> {
        let Some(mut start) = self.start.take() else { return self.lines.feed(bytes, &self.defaults, out) };
        let taken = bytes.len().min(BYTE_ORDER_MARK.len() - start.len());
        start.extend_from_slice(&bytes[..taken]);
        if start.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&start) {
            self.start = Some(start);
        } else if start != BYTE_ORDER_MARK {
            self.feed_start(&start, out)?;
        }
        Ok(taken)
    }

    /// The input has ended: its last line needs no line end.
    pub fn finish(&mut self, out: &mut Vec<Input>) -> Result<(), WrongColumn> {
        if let Some(start) = self.start.take() {
            self.feed_start(&start, out)?;
        }
        match &mut self.lines {
            Lines::Ndjson(lines) => lines.finish(&self.defaults, out),
            Lines::Csv(csv) => csv.finish(&self.defaults, out)?,
        }
        Ok(())
    }

    fn feed_start(&mut self, mut start: &[u8], out: &mut Vec<Input>) -> Result<(), WrongColumn> {
        while !start.is_empty() {
            let taken = self.lines.feed(start, &self.defaults, out)?;
            start = &start[taken..];
        }
        Ok(())
    }
}

impl Lines {
    fn feed(
        &mut self,
        bytes: &[u8],
        defaults: &Parameters,
        out: &mut Vec<Input>,
    ) -> Result<usize, WrongColumn> {
        match self {
            Lines::Ndjson(lines) => Ok(lines.feed(bytes, defaults, out)),
            Lines::Csv(csv) => csv.feed(bytes, defaults, out),
        }
    }
}

#[derive(Default)]
struct Ndjson {
    /// Lines ended.
    ended: i64,
    partial: Vec<u8>,
    is_too_long: bool,
}

impl Ndjson {
    fn feed(&mut self, bytes: &[u8], defaults: &Parameters, out: &mut Vec<Input>) -> usize {
        let mut at = 0;
        while at < bytes.len() && out.len() < CHUNK {
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            self.push(&rest[..end.unwrap_or(rest.len())]);
            at += end.map_or(rest.len(), |end| end + 1);
            if end.is_some() {
                self.end_line(defaults, out);
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

    fn end_line(&mut self, defaults: &Parameters, out: &mut Vec<Input>) {
        self.ended += 1;
        let given = if self.is_too_long {
            Some(Err(Refusal::TooLarge))
        } else {
            let text = self.partial.trim_ascii();
            (!text.is_empty()).then(|| Parameters::line_of_json(text, defaults))
        };
        if let Some(given) = given {
            out.push(Input { line: self.ended, given });
        }
        self.partial.clear();
        self.is_too_long = false;
    }

    fn finish(&mut self, defaults: &Parameters, out: &mut Vec<Input>) {
        if self.is_too_long || !self.partial.is_empty() {
            self.end_line(defaults, out);
        }
    }
}

struct Csv {
    /// Knows where rows end; `core` only cuts them into fields, as it takes a broken one for whole.
    rows: CsvRows,
    core: csv_core::Reader,
    columns: Option<Vec<&'static str>>,
    fields: Vec<u8>,
    fields_length: usize,
    ends: [usize; MOST_COLUMNS],
    ends_length: usize,
    is_too_long: bool,
    has_too_many: bool,
}

impl Csv {
    fn new() -> Csv {
        Csv {
            rows: CsvRows::default(),
            core: csv_core::Reader::new(),
            columns: None,
            fields: vec![0; LONGEST_LINE],
            fields_length: 0,
            ends: [0; MOST_COLUMNS],
            ends_length: 0,
            is_too_long: false,
            has_too_many: false,
        }
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        defaults: &Parameters,
        out: &mut Vec<Input>,
    ) -> Result<usize, WrongColumn> {
        let had_columns = self.columns.is_some();
        let mut at = 0;
        while at < bytes.len() && out.len() < CHUNK && self.columns.is_some() == had_columns {
            let (taken, ended) = self.rows.read(&bytes[at..]);
            self.cut(&bytes[at..at + taken]);
            at += taken;
            if let Some(row) = ended {
                self.end_row(row, defaults, out)?;
            }
        }
        Ok(at)
    }

    /// The last row ends with its line, like every other. A quote that is still open breaks it, as it may have
    /// swallowed the rows behind it.
    fn finish(&mut self, defaults: &Parameters, out: &mut Vec<Input>) -> Result<(), WrongColumn> {
        let Some(row) = self.rows.finish() else { return Ok(()) };
        self.cut(b"\n");
        self.end_row(row, defaults, out)
    }

    /// Cuts a piece of a row into fields.
    fn cut(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let fields = &mut self.fields[self.fields_length..];
            let ends = &mut self.ends[self.ends_length..];
            let (result, taken, written, ended) = self.core.read_record(piece, fields, ends);
            piece = &piece[taken..];
            self.fields_length += written;
            self.ends_length += ended;
            match result {
                // What does not fit is read over.
                ReadRecordResult::OutputFull => (self.is_too_long, self.fields_length) = (true, 0),
                ReadRecordResult::OutputEndsFull => (self.has_too_many, self.ends_length) = (true, 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::Record | ReadRecordResult::End => {}
            }
        }
    }

    fn end_row(
        &mut self,
        row: CsvRow,
        defaults: &Parameters,
        out: &mut Vec<Input>,
    ) -> Result<(), WrongColumn> {
        if row.is_blank {
            return Ok(());
        }
        let fields = if row.is_broken { Err(Refusal::Malformed) } else { self.texts() };
        match &self.columns {
            None => self.columns = Some(columns(fields.unwrap_or_default())?),
            Some(columns) => {
                let given = match fields {
                    Err(refusal) => Err(refusal),
                    Ok(fields) if fields.len() != columns.len() => Err(Refusal::Malformed),
                    Ok(fields) => Ok(Parameters::line_of_fields(columns, fields, defaults)),
                };
                out.push(Input { line: row.line, given });
            }
        }
        (self.fields_length, self.ends_length) = (0, 0);
        (self.is_too_long, self.has_too_many) = (false, false);
        if row.is_broken {
            // It may take itself to be in a quoted field still. The blank line keeps it from looking for a byte order
            // mark in the middle of the input.
            self.core.reset();
            self.cut(b"\n");
        }
        Ok(())
    }

    /// The fields of a record: UTF-8, or as a whole ISO-8859-1 where it is not.
    fn texts(&self) -> Result<Vec<String>, Refusal> {
        if self.is_too_long {
            return Err(Refusal::TooLarge);
        }
        if self.has_too_many {
            return Err(Refusal::Malformed);
        }
        let bytes = &self.fields[..self.fields_length];
        let ends = &self.ends[..self.ends_length];
        let starts = std::iter::once(&0).chain(ends);
        let fields = starts.zip(ends).map(|(start, end)| &bytes[*start..*end]);
        let is_utf8 = str::from_utf8(bytes).is_ok();
        Ok(fields
            .map(|field| match str::from_utf8(field) {
                Ok(text) if is_utf8 => text.to_owned(),
                _ => field.iter().copied().map(char::from).collect(),
            })
            .collect())
    }
}

/// A header row names parameters, each once. A token is given once for the batch, and never in its lines.
fn columns(names: Vec<String>) -> Result<Vec<&'static str>, WrongColumn> {
    let mut columns = Vec::new();
    for name in names {
        match Parameters::column(name.trim()) {
            Some(column) if !columns.contains(&column) => columns.push(column),
            _ => return Err(WrongColumn(name.trim().chars().take(128).collect())),
        }
    }
    if columns.is_empty() { Err(WrongColumn("header".into())) } else { Ok(columns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a whole batch in pieces of that size: line numbers, and the texts of `mdata` or the refusals.
    fn read(format: Format, body: &[u8], piece: usize) -> Result<Vec<(i64, String)>, WrongColumn> {
        let mut reader = Reader::new(format, Parameters::default());
        let mut out = Vec::new();
        for mut piece in body.chunks(piece) {
            while !piece.is_empty() {
                let taken = reader.feed(piece, &mut out)?;
                piece = &piece[taken..];
            }
        }
        reader.finish(&mut out)?;
        let said = |given: Result<Parameters, Refusal>| match given {
            Ok(parameters) => parameters.text("mdata").unwrap_or("-").to_owned(),
            Err(refusal) => refusal.code().to_string(),
        };
        Ok(out.into_iter().map(|input| (input.line, said(input.given))).collect())
    }

    fn lines(of: &[(i64, &str)]) -> Vec<(i64, String)> {
        of.iter().map(|(line, said)| (*line, (*said).to_owned())).collect()
    }

    #[test]
    fn ndjson_is_read_line_by_line_however_it_is_cut() {
        let body = "\u{feff}{\"mdata\":\"olá\"}\n\n  \r\n{\"mdata\":\"b\"}\r\nnonsense\n{\"mdata\":\"last\"}";
        for piece in [1, 2, 3, 7, 1_000] {
            let read = read(Format::Ndjson, body.as_bytes(), piece).expect("no columns to be wrong");
            assert_eq!(read, lines(&[(1, "olá"), (4, "b"), (5, "400"), (6, "last")]), "{piece}");
        }
        assert_eq!(read(Format::Ndjson, b"", 1), Ok(Vec::new()));
        assert_eq!(read(Format::Ndjson, b"{\"mdata\":\"\xe1\"}", 9), Ok(lines(&[(1, "400")])));
        assert_eq!(read(Format::Ndjson, b"{\"sid\":\"a-token\"}", 9), Ok(lines(&[(1, "229")])));
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_and_the_next_is_read() {
        let long = "x".repeat(1_000_000);
        let body = format!("{{\"mdata\":\"{long}\"}}\n{{\"mdata\":\"b\"}}\n");
        let too_long = lines(&[(1, "413"), (2, "b")]);
        assert_eq!(read(Format::Ndjson, body.as_bytes(), 5_000), Ok(too_long));
        let body = format!("dest,mdata\na,\"{long}\"\nb,b\n");
        assert_eq!(read(Format::Csv, body.as_bytes(), 5_000), Ok(lines(&[(2, "413"), (3, "b")])));
    }

    #[test]
    fn csv_is_read_record_by_record_however_it_is_cut() {
        let body = "\u{feff}dest,mdata\r\n\r\n1,\"a, \"\"b\"\"\r\nc\"\r\n2\r\n3,x,y\r\n4,last";
        for piece in [1, 2, 3, 7, 1_000] {
            let read = read(Format::Csv, body.as_bytes(), piece).expect("the columns are known");
            let expected = lines(&[(3, "a, \"b\"\r\nc"), (5, "400"), (6, "400"), (7, "last")]);
            assert_eq!(read, expected, "{piece}");
        }
        assert_eq!(read(Format::Csv, b"mdata\rone\rtwo", 4), Ok(lines(&[(2, "one"), (3, "two")])));
        assert_eq!(read(Format::Csv, b"mdata\nol\xe1\nol\xc3\xa1", 4), Ok(lines(&[(2, "olá"), (3, "olá")])));
        assert_eq!(read(Format::Csv, b"", 1), Ok(Vec::new()));
    }

    #[test]
    fn a_record_whose_quote_is_never_closed_is_refused_and_swallows_no_message() {
        let body = "dest,mdata\n1,\"Hi Ana\n2,Hi Bob\n3,Hi Cid\n";
        for (line_end, piece) in [("\n", 1), ("\n", 5), ("\n", 1_000), ("\r", 5), ("\r\n", 5)] {
            let read = read(Format::Csv, body.replace('\n', line_end).as_bytes(), piece);
            assert_eq!(read, Ok(lines(&[(2, "400")])), "{line_end:?} {piece}");
        }
        assert_eq!(read(Format::Csv, b"dest,mdata\n1,5\" nail", 7), Ok(lines(&[(2, "5\" nail")])));
        assert_eq!(read(Format::Csv, b"dest,mdata\n1,\"a\"", 7), Ok(lines(&[(2, "a")])));
        assert_eq!(read(Format::Csv, b"\"dest,mdata", 7).expect_err("an open header").0, "header");
    }

    #[test]
    fn text_behind_a_closing_quote_refuses_its_record_and_the_next_line_is_read() {
        for (rows, expected) in [
            ("1,\"Hi Ana\n2,\"Hi Bob\"\n3,\"Hi Cid\"\n", &[(2, "400"), (4, "Hi Cid")][..]),
            ("\"1\",\"Hi Ana\n\"2\",\"Hi Bob\"\n3,Hi Cid", &[(2, "400"), (4, "Hi Cid")]),
            ("1,\"He said \"hi\" to me\"\n2,b\n", &[(2, "400"), (3, "b")]),
            ("1,\"a\" \n\n2,b\n", &[(2, "400"), (4, "b")]),
            ("1,\"a\"x,\"c\n2,b\n", &[(2, "400"), (3, "b")]),
            ("1,a\n2,\"b\"x", &[(2, "a"), (3, "400")]),
        ] {
            for line_end in ["\n", "\r", "\r\n"] {
                let body = format!("dest,mdata\n{rows}").replace('\n', line_end);
                for piece in [1, 2, 3, 7, 1_000] {
                    let read = read(Format::Csv, body.as_bytes(), piece);
                    assert_eq!(read, Ok(lines(expected)), "{body:?} in pieces of {piece}");
                }
            }
        }
        let long = format!("dest,mdata\n1,\"{}\"x\n2,b\n", "x".repeat(100_000));
        assert_eq!(read(Format::Csv, long.as_bytes(), 5_000), Ok(lines(&[(2, "400"), (3, "b")])));
        assert_eq!(read(Format::Csv, b"\"dest\"x,mdata\n1,a\n", 7).expect_err("a broken header").0, "header");
    }

    #[test]
    fn a_header_row_names_each_parameter_once() {
        let wrong = |body: &str| read(Format::Csv, body.as_bytes(), 5).expect_err("a wrong column").0;
        assert_eq!(wrong("dest,colour\n1,2\n"), "colour");
        assert_eq!(wrong("dest,mdata,dest\n"), "dest");
        assert_eq!(wrong("dest,tsid\n"), "tsid");
        assert_eq!(wrong("dest,\n"), "");
    }
}
