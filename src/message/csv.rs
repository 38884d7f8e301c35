//! Where the rows of a batch's CSV end. The server reads by it and `campaign send` cuts files by it: if they differed,
//! a part would end inside a text, and the lines of answers would not be those of the file.

/// A row that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CsvRow {
    /// Where it begins: lines are counted from 1, as an editor counts them.
    pub line: i64,
    /// How many lines it takes.
    pub lines: i64,
    pub is_blank: bool,
    /// A quote is closed before its field ends, or never: what is in the row is not what was meant.
    pub is_broken: bool,
}

/// Follows a CSV from row to row, however it is cut into pieces.
///
/// CR, LF and CRLF each end a line, and a row unless they stand in a quoted field. Only a quote that begins a field
/// quotes; another one is a part of its text, like that of `5" nail`.
///
/// A closing quote with text behind it breaks the row: a quote was not doubled, or one is missing and this one opens a
/// text of a later row. As nobody can tell which quotes open from there on, they count no more: the row ends with the
/// line of that text, and the next begins on the line behind. What was passed over is never read as a row, since it
/// may be the inside of a text.
#[derive(Debug)]
pub struct CsvRows {
    place: Place,
    /// The line that is being read.
    line: i64,
    /// Where the row that is being read begins.
    began: i64,
    after_return: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    RowStart,
    FieldStart,
    Unquoted,
    Quoted,
    /// Behind a quote in a quoted field: it closes the field, or is the first of two.
    QuoteInQuoted,
    Broken,
}

impl Default for CsvRows {
    fn default() -> CsvRows {
        CsvRows { place: Place::RowStart, line: 1, began: 1, after_return: false }
    }
}

impl CsvRows {
    /// Reads on to the end of a row: how many bytes that took, and the row if it has ended. The LF of a CRLF is taken
    /// with what follows.
    pub fn read(&mut self, bytes: &[u8]) -> (usize, Option<CsvRow>) {
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(row) = self.step(*byte) {
                return (at + 1, Some(row));
            }
        }
        (bytes.len(), None)
    }

    /// The input has ended: the row that is being read, if any, needs no line end.
    pub fn finish(&mut self) -> Option<CsvRow> {
        match self.place {
            Place::RowStart => return None,
            Place::Quoted => self.place = Place::Broken,
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
            Place::Quoted if byte == b'"' => self.place = Place::QuoteInQuoted,
            Place::Quoted => {}
            _ if is_line_end => return Some(self.end_row()),
            // The rest of the line end of the row before.
            _ if is_second_half => {}
            place => self.place = place.behind(byte),
        }
        None
    }

    fn end_row(&mut self) -> CsvRow {
        let row = CsvRow {
            line: self.began,
            lines: self.line - self.began,
            is_blank: self.place == Place::RowStart,
            is_broken: self.place == Place::Broken,
        };
        (self.place, self.began) = (Place::RowStart, self.line);
        row
    }
}

impl Place {
    /// Where one is behind a byte that ends no line, outside a quoted text.
    fn behind(self, byte: u8) -> Place {
        match (self, byte) {
            (Place::Broken, _) => Place::Broken,
            (_, b',') => Place::FieldStart,
            (Place::RowStart | Place::FieldStart | Place::QuoteInQuoted, b'"') => Place::Quoted,
            (Place::QuoteInQuoted, _) => Place::Broken,
            _ => Place::Unquoted,
        }
    }
}

#[cfg(test)]
mod tests {
    use csv_core::ReadRecordResult;
    use proptest::prelude::*;

    use super::*;

    /// Every row of a text read in pieces of that size, with the byte behind it.
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

    /// Where the parser of the server ends its records.
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
    fn lines_are_counted_inside_texts_and_where_nothing_stands() {
        for line_end in ["\n", "\r", "\r\n"] {
            let text = "a,\"b\n\nc\"\n\n\"\"\"\",5\" nail\nlast".replace('\n', line_end);
            let rows: Vec<CsvRow> = rows(text.as_bytes(), 5).into_iter().map(|(_, row)| row).collect();
            let blank = CsvRow { is_blank: true, ..row(4, 1) };
            assert_eq!(rows, [row(1, 3), blank, row(5, 1), row(6, 1)], "{line_end:?}");
        }
    }

    #[test]
    fn a_broken_row_ends_with_the_line_that_shows_it() {
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

    proptest! {
        #[test]
        fn rows_end_where_the_parser_ends_its_records_until_one_is_broken(
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
