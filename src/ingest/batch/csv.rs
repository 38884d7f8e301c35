//! The rows of a CSV as they arrive. `CsvRows` decides where rows end. The parser only cuts rows into cells,
//! because it takes a broken row for a whole one.

use csv_core::ReadRecordResult;

use super::super::parameters::Parameters;
use super::columns::{Columns, IgnoredColumns, broken_row, no_header, too_long};
use super::read::{BatchInput, LONGEST_LINE, MAX_CHUNK_ITEMS};
use crate::batch::{CsvRow, CsvRows, separator_line, separator_of_header};
use crate::edge::Refused;
use crate::text::{Charset, Decoded, decoded, is_blank};

/// Most columns of a CSV row: exports of other programs have many that are ignored.
const MAX_COLUMNS: usize = 512;

/// The sender's options for reading a CSV.
#[derive(Debug, Clone, Default)]
pub struct CsvOptions {
    pub separator: Option<u8>,
    pub ignored: IgnoredColumns,
}

pub struct Csv {
    rows: CsvRows,
    core: csv_core::Reader,
    options: CsvOptions,
    columns: Option<Columns>,
    /// The row being read, while the header, which shows the separator, is not known.
    row: Vec<u8>,
    fields: Vec<u8>,
    fields_length: usize,
    ends: Vec<usize>,
    ends_length: usize,
    is_too_long: bool,
    has_too_many: bool,
}

impl Csv {
    pub fn new(options: CsvOptions) -> Csv {
        let mut rows = CsvRows::default();
        if let Some(separator) = options.separator {
            rows.set_separator(separator);
        }
        Csv {
            rows,
            core: csv_core::Reader::new(),
            options,
            columns: None,
            row: Vec::new(),
            fields: vec![0; LONGEST_LINE],
            fields_length: 0,
            ends: vec![0; MAX_COLUMNS],
            ends_length: 0,
            is_too_long: false,
            has_too_many: false,
        }
    }

    /// Whether the header row has been read.
    pub fn has_header(&self) -> bool {
        self.columns.is_some()
    }

    pub fn feed(
        &mut self,
        bytes: &[u8],
        charset: Charset,
        defaults: &Parameters,
        out: &mut Vec<BatchInput>,
    ) -> Result<usize, Refused> {
        let had_header = self.has_header();
        let mut at = 0;
        while at < bytes.len() && out.len() < MAX_CHUNK_ITEMS && self.has_header() == had_header {
            let (taken, ended) = self.rows.read(&bytes[at..]);
            self.take(&bytes[at..at + taken]);
            at += taken;
            if let Some(row) = ended {
                self.end_row(row, charset, defaults, out)?;
            }
        }
        Ok(at)
    }

    /// End the input: the last row ends with its line, like every other. A quote that is still open breaks
    /// the row, since it may have swallowed the rows behind it.
    pub fn finish(
        &mut self,
        charset: Charset,
        defaults: &Parameters,
        out: &mut Vec<BatchInput>,
    ) -> Result<(), Refused> {
        let Some(row) = self.rows.finish() else { return Ok(()) };
        self.take(b"\n");
        self.end_row(row, charset, defaults, out)
    }

    fn take(&mut self, piece: &[u8]) {
        if self.has_header() {
            self.cut(piece);
        } else if self.row.len() + piece.len() <= LONGEST_LINE {
            self.row.extend_from_slice(piece);
        } else {
            self.is_too_long = true;
        }
    }

    /// Cut a piece of a row into fields.
    fn cut(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let fields = &mut self.fields[self.fields_length..];
            let ends = &mut self.ends[self.ends_length..];
            let (result, taken, written, ended) = self.core.read_record(piece, fields, ends);
            piece = &piece[taken..];
            self.fields_length += written;
            self.ends_length += ended;
            match result {
                // Cells beyond the limits are skipped.
                ReadRecordResult::OutputFull => (self.is_too_long, self.fields_length) = (true, 0),
                ReadRecordResult::OutputEndsFull => (self.has_too_many, self.ends_length) = (true, 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::Record | ReadRecordResult::End => {}
            }
        }
    }

    fn end_row(
        &mut self,
        row: CsvRow,
        charset: Charset,
        defaults: &Parameters,
        out: &mut Vec<BatchInput>,
    ) -> Result<(), Refused> {
        if !self.has_header() {
            return self.end_header(row, charset);
        }
        if row.is_blank {
            return Ok(());
        }
        let cells = if row.is_broken { Err(broken_row()) } else { self.texts(charset) };
        let given = match (cells, &self.columns) {
            (Err(refused), _) => Some(Err(refused)),
            (Ok(cells), Some(columns)) => columns.line(cells, defaults),
            (Ok(_), None) => None,
        };
        out.extend(given.map(|given| BatchInput { line: row.line, given }));
        self.begin_row();
        if row.is_broken {
            // The parser may still be inside a quoted field. The blank line keeps it from looking for a byte
            // order mark in the middle of the input.
            self.core.reset();
            self.cut(b"\n");
        }
        Ok(())
    }

    /// Read the header: the first row that is not empty. A line `sep=;` before it names the separator.
    fn end_header(&mut self, row: CsvRow, charset: Charset) -> Result<(), Refused> {
        let text = std::mem::take(&mut self.row);
        if row.is_blank {
            return Ok(());
        }
        if row.is_broken || self.is_too_long {
            return Err(no_header());
        }
        if let Some(separator) = separator_line(&text) {
            self.set_separator(self.options.separator.unwrap_or(separator));
            return Ok(());
        }
        let separator = self.options.separator.unwrap_or_else(|| separator_of_header(&text));
        self.core = csv_core::ReaderBuilder::new().delimiter(separator).build();
        self.cut(&text);
        let names = self.texts(charset)?;
        self.begin_row();
        if names.iter().all(|name| is_blank(&name.text)) {
            return Ok(());
        }
        self.set_separator(separator);
        self.columns = Some(Columns::read(names, &self.options.ignored)?);
        Ok(())
    }

    fn set_separator(&mut self, separator: u8) {
        self.options.separator = Some(separator);
        self.rows.set_separator(separator);
    }

    fn begin_row(&mut self) {
        (self.fields_length, self.ends_length) = (0, 0);
        (self.is_too_long, self.has_too_many) = (false, false);
    }

    /// Return the cells of a record, each decoded in its own encoding.
    fn texts(&self, charset: Charset) -> Result<Vec<Decoded>, Refused> {
        if self.is_too_long {
            return Err(too_long());
        }
        if self.has_too_many {
            return Err(Refused::malformed(format!(
                "The row has more than {MAX_COLUMNS} cells: leave columns out"
            )));
        }
        let ends = &self.ends[..self.ends_length];
        let starts = std::iter::once(&0).chain(ends);
        Ok(starts.zip(ends).map(|(start, end)| decoded(&self.fields[*start..*end], charset)).collect())
    }
}
