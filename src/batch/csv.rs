//! The rows of a batch's CSV: where each one ends. The server and `campaign send` cut a file by the same
//! code; otherwise a part could end inside a text, and the line numbers of answers would not be those of the
//! file.

use super::separator::is_separator;

/// A complete row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvRow {
    /// The line on which the row begins: lines are counted from 1, as an editor counts them.
    pub line: i64,
    /// How many lines the row takes.
    pub lines: i64,
    pub is_blank: bool,
    /// A quote is closed before its field ends, or never: the row's content is not what its author meant.
    pub is_broken: bool,
}

/// A reader that follows a CSV from row to row, however the input is cut into pieces.
///
/// CR, LF and CRLF each end a line, and a row unless they stand in a quoted field. Only a quote that begins a
/// field quotes; another one is a part of its text, like that of `5" nail`.
///
/// A closing quote with text behind it breaks the row: a quote was not doubled, or one is missing and this
/// one opens a text of a later row. No rule tells which quotes open from there on, and quotes count no more:
/// the row ends with the line of that text, and the next row begins on the line behind. The skipped text is
/// never read as a row, since it may be the inside of a text.
///
/// Comma, semicolon and tab all separate fields until the header has shown the separator.
#[derive(Debug)]
pub struct CsvRows {
    separator: Option<u8>,
    place: CsvState,
    /// The line being read.
    line: i64,
    /// The line on which the current row begins.
    began: i64,
    after_return: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CsvState {
    RowStart,
    FieldStart,
    Unquoted,
    Quoted,
    /// Behind a quote in a quoted field: the quote closes the field, or is the first of two.
    QuoteInQuoted,
    Broken,
}

impl Default for CsvRows {
    fn default() -> CsvRows {
        CsvRows { separator: None, place: CsvState::RowStart, line: 1, began: 1, after_return: false }
    }
}

impl CsvRows {
    /// Set the byte that separates fields, from the next byte on.
    pub fn set_separator(&mut self, separator: u8) {
        self.separator = Some(separator);
    }

    /// Read up to the end of a row. Return the number of bytes read, and the row if it is complete. The LF of
    /// a CRLF is read with the bytes that follow.
    pub fn read(&mut self, bytes: &[u8]) -> (usize, Option<CsvRow>) {
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(row) = self.step(*byte) {
                return (at + 1, Some(row));
            }
        }
        (bytes.len(), None)
    }

    /// End the input and return the row being read, if any: the last row needs no line end.
    pub fn finish(&mut self) -> Option<CsvRow> {
        match self.place {
            CsvState::RowStart => return None,
            CsvState::Quoted => self.place = CsvState::Broken,
            _ => {}
        }
        self.line += 1;
        Some(self.end_row())
    }

    fn step(&mut self, byte: u8) -> Option<CsvRow> {
        let is_second_half = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        let is_line_end = matches!(byte, b'\r' | b'\n') && !is_second_half;
        if is_line_end {
            self.line += 1;
        }
        match self.place {
            CsvState::Quoted if byte == b'"' => self.place = CsvState::QuoteInQuoted,
            CsvState::Quoted => {}
            _ if is_line_end => return Some(self.end_row()),
            // The second half of the previous row's line end.
            _ if is_second_half => {}
            place => self.place = place.behind(byte, self.separates(byte)),
        }
        None
    }

    fn separates(&self, byte: u8) -> bool {
        self.separator.map_or_else(|| is_separator(byte), |separator| byte == separator)
    }

    fn end_row(&mut self) -> CsvRow {
        let row = CsvRow {
            line: self.began,
            lines: self.line - self.began,
            is_blank: self.place == CsvState::RowStart,
            is_broken: self.place == CsvState::Broken,
        };
        (self.place, self.began) = (CsvState::RowStart, self.line);
        row
    }
}

impl CsvState {
    /// Return the state behind a byte that ends no line, outside a quoted text.
    fn behind(self, byte: u8, is_separator: bool) -> CsvState {
        match (self, byte) {
            (CsvState::Broken, _) => CsvState::Broken,
            _ if is_separator => CsvState::FieldStart,
            (CsvState::RowStart | CsvState::FieldStart | CsvState::QuoteInQuoted, b'"') => CsvState::Quoted,
            (CsvState::QuoteInQuoted, _) => CsvState::Broken,
            _ => CsvState::Unquoted,
        }
    }
}

#[cfg(test)]
mod tests {
    use csv_core::ReadRecordResult;
    use proptest::prelude::*;

    use super::*;

    /// Return every row of a text read in pieces of that size, with the offset behind each row.
    fn rows(text: &[u8], piece: usize) -> Vec<(usize, CsvRow)> {
        let mut reader = CsvRows::default();
        let mut rows = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let (taken, ended) = reader.read(&text[at..text.len().min(at + piece)]);
            at += taken;
            rows.extend(ended.map(|row| (at, row)));
        }
        rows.extend(reader.finish().map(|row| (at, row)));
        rows
    }

    /// Return the offsets at which the server's parser ends its records.
    fn ends_of_records(text: &[u8]) -> Vec<usize> {
        let mut core = csv_core::Reader::new();
        let (mut ends, mut at) = (Vec::new(), 0);
        loop {
            let (result, taken, ..) = core.read_record(&text[at..], &mut [0; 256], &mut [0; 256]);
            at += taken;
            match result {
                ReadRecordResult::Record => ends.push(at),
                ReadRecordResult::End => return ends,
                _ => {}
            }
        }
    }

    fn row(line: i64, lines: i64) -> CsvRow {
        CsvRow { line, lines, is_blank: false, is_broken: false }
    }

    #[test]
    fn lines_in_texts_and_blank_lines_are_counted() {
        for line_end in ["\n", "\r", "\r\n"] {
            let text = "a,\"b\n\nc\"\n\n\"\"\"\",5\" nail\nlast".replace('\n', line_end);
            let rows: Vec<CsvRow> = rows(text.as_bytes(), 5).into_iter().map(|(_, row)| row).collect();
            let blank = CsvRow { is_blank: true, ..row(4, 1) };
            assert_eq!(rows, [row(1, 3), blank, row(5, 1), row(6, 1)], "{line_end:?}");
        }
    }

    #[test]
    fn broken_row_ends_with_the_line_that_shows_it() {
        let broken = |text: &str| {
            let rows = rows(text.as_bytes(), 1_000);
            rows.iter().map(|(_, row)| (row.line, row.is_broken)).collect::<Vec<_>>()
        };
        assert_eq!(broken("1,\"a\n2,\"b\"\n3,c\n"), [(1, true), (3, false)]);
        assert_eq!(broken("1,\"a\"x,\"b\n2,c\n"), [(1, true), (2, false)]);
        for open in ["1,a\n2,\"b", "1,a\n2,\"b\n", "1,a\n2,\"b\r"] {
            assert_eq!(broken(open), [(1, false), (2, true)], "{open:?}");
        }
        assert_eq!(broken("1,\"a\""), [(1, false)]);
    }

    #[test]
    fn separator_decides_which_quotes_open() {
        let row_of = |separator: Option<u8>| {
            let mut rows = CsvRows::default();
            if let Some(separator) = separator {
                rows.set_separator(separator);
            }
            rows.read(b"a;\"b\nc\"\n").1.expect("a row").lines
        };
        assert_eq!((row_of(None), row_of(Some(b';')), row_of(Some(b','))), (2, 2, 1));
    }

    proptest! {
        #[test]
        fn rows_end_as_the_parser_ends_its_records(
            text in "[a,\"\r\n]{0,40}",
            piece in 1_usize..9,
        ) {
            let text = text.as_bytes();
            let rows = rows(text, piece);
            let whole = rows.iter().position(|(_, row)| row.is_broken).unwrap_or(rows.len());
            let ends: Vec<usize> =
                rows[..whole].iter().filter(|(_, row)| !row.is_blank).map(|(end, _)| *end).collect();
            let expected = ends_of_records(text);
            prop_assert_eq!(&ends, &expected[..ends.len().min(expected.len())]);
            prop_assert!(whole < rows.len() || ends.len() == expected.len());
        }
    }
}
