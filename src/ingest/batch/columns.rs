//! The header row of a CSV: the parameter of each column, and the parameters of a row.

use super::super::parameters::{LISTED, Parameters};
use crate::batch::SEPARATORS_IN_WORDS;
use crate::edge::{Refusal, Refused, misspelled};
use crate::text::{Decoded, is_blank, meant, trimmed};

/// The unknown columns to skip.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IgnoredColumns {
    #[default]
    None,
    All,
    /// The named columns, in lower case.
    Named(Vec<String>),
}

impl IgnoredColumns {
    /// Read `1`, `0`, or names separated by commas.
    pub fn read(text: &str) -> IgnoredColumns {
        match trimmed(text) {
            "" | "0" => IgnoredColumns::None,
            "1" => IgnoredColumns::All,
            names => IgnoredColumns::Named(names.split(',').map(lower).collect()),
        }
    }

    fn names(&self, name: &str) -> bool {
        matches!(self, IgnoredColumns::Named(names) if names.iter().any(|named| named == name))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Parameter(&'static str),
    /// A column whose cells have to be empty.
    Nameless,
    Ignored,
}

/// The columns of a CSV.
#[derive(Debug, PartialEq, Eq)]
pub struct Columns {
    columns: Vec<Column>,
    /// The names of the columns, in lower case.
    names: Vec<String>,
}

fn lower(name: &str) -> String {
    trimmed(name).to_lowercase()
}

impl Columns {
    /// Read a header row, which names parameters, each once. A token is given once for the batch, and never
    /// in its lines.
    pub fn read(header: Vec<Decoded>, ignored: &IgnoredColumns) -> Result<Columns, Refused> {
        let names: Vec<String> = header.iter().map(|cell| lower(&cell.text)).collect();
        let mut columns = Vec::with_capacity(names.len());
        for (cell, name) in header.iter().zip(&names) {
            let column = column(trimmed(&cell.text), name, ignored)?;
            if matches!(column, Column::Parameter(_)) && columns.contains(&column) {
                let detail = |name: &str| format!("The column `{name}` stands twice: leave one out");
                return Err(Refused::name(trimmed(&cell.text), detail));
            }
            columns.push(column);
        }
        if columns.iter().any(|column| matches!(column, Column::Parameter(_))) {
            return Ok(Columns { columns, names });
        }
        Err(no_header())
    }

    /// Return the parameters of a row; `None` for a row whose cells are all empty.
    pub fn line(&self, cells: Vec<Decoded>, defaults: &Parameters) -> Option<Result<Parameters, Refused>> {
        if cells.iter().all(|cell| is_blank(&cell.text)) {
            return None;
        }
        Some(self.check(&cells).map(|()| {
            let given = self.columns.iter().zip(cells).filter_map(|(column, cell)| match column {
                Column::Parameter(name) => Some((*name, cell)),
                Column::Nameless | Column::Ignored => None,
            });
            Parameters::line_of_fields(given, defaults)
        }))
    }

    fn check(&self, cells: &[Decoded]) -> Result<(), Refused> {
        if self.names.len() == cells.len()
            && self.names.iter().zip(cells).all(|(name, cell)| lower(&cell.text) == *name)
        {
            return Err(Refused::malformed(
                "Repeated header: this row names the columns again; leave it out of the file",
            ));
        }
        let has_too_few =
            self.columns.iter().skip(cells.len()).any(|column| matches!(column, Column::Parameter(_)));
        let has_too_many = cells.iter().skip(self.columns.len()).any(|cell| !is_blank(&cell.text));
        if has_too_few || has_too_many {
            return Err(Refused::malformed(format!(
                "The row has {} cells and the header {}: put a text that holds the separator, a quote or a line end in \
                 quotes",
                cells.len(),
                self.columns.len()
            )));
        }
        let is_lost =
            |(column, cell): &(&Column, &Decoded)| **column == Column::Nameless && !is_blank(&cell.text);
        match self.columns.iter().zip(cells).position(|pair| is_lost(&pair)) {
            Some(place) => Err(Refused::malformed(format!(
                "Column {} has no name, and here a cell: name it in the header, or empty it",
                place + 1
            ))),
            None => Ok(()),
        }
    }
}

fn column(given: &str, name: &str, ignored: &IgnoredColumns) -> Result<Column, Refused> {
    if name.is_empty() {
        return Ok(Column::Nameless);
    }
    if ignored.names(name) {
        return Ok(Column::Ignored);
    }
    if let Some(parameter) = Parameters::column(name) {
        return Ok(Column::Parameter(parameter));
    }
    if ["tsid", "sid"].contains(&name) {
        return Err(Refused::name(given, |name| {
            format!(
                "A token stands once for the batch, in its header or query: leave the column `{name}` out"
            )
        }));
    }
    if *ignored == IgnoredColumns::All {
        return Ok(Column::Ignored);
    }
    Err(Refused::name(given, |shown| unknown_column(shown, name)))
}

fn unknown_column(shown: &str, name: &str) -> String {
    if let Some(known) = meant(name, LISTED) {
        return misspelled(shown, known);
    }
    if name.contains(['|', ';', ',', '\t', ':']) {
        return format!(
            "The header is one column `{shown}`: separate columns by {SEPARATORS_IN_WORDS}, or name the separator in \
             `separator`"
        );
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!(
            "The column `{shown}` is not a parameter: begin the file with a header row of their names"
        );
    }
    format!("The column `{shown}` is not a parameter: leave it out, or name it in `ignore_columns`")
}

/// Return the refusal of a header row that names no parameter, or cannot be read.
pub fn no_header() -> Refused {
    let detail = |_: &str| {
        "The CSV has no header row that can be read: begin it with the names of parameters, such as dest,mdata".to_owned()
    };
    Refused::name("header", detail)
}

/// Return the refusal of a row that is cut at a quote.
pub fn broken_row() -> Refused {
    Refused::malformed(
        "A quote is not closed, or has text behind it: double each quote inside a quoted text, and put no blank before \
         the first",
    )
}

/// Return a 413 for a line.
pub fn too_long() -> Refused {
    Refused::because(Refusal::TooLarge, "The line is over 64 KiB: shorten it; is a quote not closed?")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn cells(texts: &[&str]) -> Vec<Decoded> {
        texts.iter().map(|text| Decoded { text: (*text).to_owned(), is_guessed: false }).collect()
    }

    fn columns(header: &[&str]) -> Columns {
        Columns::read(cells(header), &IgnoredColumns::None).expect("a good header")
    }

    fn refused(header: &[&str], ignored: &str) -> Refused {
        Columns::read(cells(header), &IgnoredColumns::read(ignored)).expect_err("a wrong header")
    }

    #[test]
    fn case_and_blanks_of_names_do_not_count() {
        let columns = columns(&["\u{feff}Dest", " MDATA\u{a0}", "\u{200b}msg_id"]);
        let line =
            columns.line(cells(&["253", "hi", "7"]), &Parameters::default()).expect("a row").expect("good");
        assert_eq!(
            (line.text("dest"), line.text("mdata"), line.text("msg_id")),
            (Some("253"), Some("hi"), Some("7"))
        );
    }

    #[rstest]
    #[case(&["dest", "colour"], "Invalid parameter: colour", "ignore_columns")]
    #[case(&["dest", "mdata", "Dest"], "Invalid parameter: Dest", "twice")]
    #[case(&["dest", "tsid"], "Invalid parameter: tsid", "token")]
    #[case(&["dest", "sendat"], "Invalid parameter: sendat", "`send_at`")]
    #[case(&["dest|mdata"], "Invalid parameter: dest|mdata", "semicolon")]
    #[case(&["2531927391", "Hi"], "Invalid parameter: 2531927391", "header row")]
    #[case(&["", " "], "Invalid parameter: header", "header row")]
    fn wrong_column_is_named_with_a_remedy(
        #[case] header: &[&str],
        #[case] status: &str,
        #[case] word: &str,
    ) {
        let refused = refused(header, "");
        assert_eq!((refused.status().as_str(), refused.code()), (status, 229));
        assert!(refused.detail().contains(word), "{}", refused.detail());
    }

    #[rstest]
    #[case("1", true)]
    #[case("Colour, name", true)]
    #[case("name", false)]
    #[case("0", false)]
    fn unknown_columns_may_be_ignored(#[case] ignored: &str, #[case] is_good: bool) {
        let read = Columns::read(cells(&["dest", "colour", "Name"]), &IgnoredColumns::read(ignored));
        assert_eq!(read.is_ok(), is_good);
        let Ok(columns) = read else { return };
        let line = columns.line(cells(&["253", "red", "Ann"]), &Parameters::default()).expect("a row");
        assert_eq!(line.expect("good").text("dest"), Some("253"));
    }

    #[test]
    fn token_is_never_ignored_by_default() {
        assert_eq!(refused(&["dest", "sid"], "1").code(), 229);
    }

    #[test]
    fn nameless_columns_may_only_be_empty() {
        let columns = columns(&["dest", "mdata", ""]);
        let line =
            |texts: &[&str]| columns.line(cells(texts), &Parameters::default()).map(|line| line.is_ok());
        assert_eq!(line(&["253", "hi", ""]), Some(true));
        assert_eq!(line(&["253", "hi"]), Some(true));
        assert_eq!(line(&["253", "hi", " ", ""]), Some(true));
        assert_eq!(line(&["253", "hi", "x"]), Some(false));
        assert_eq!(line(&["253", "hi", "", "x"]), Some(false));
        assert_eq!(line(&["253"]), Some(false));
        assert_eq!(line(&["", "\u{a0}", ""]), None);
    }

    #[test]
    fn repeated_header_is_refused() {
        let columns = columns(&["dest", "mdata"]);
        let line = columns.line(cells(&["Dest", " mdata "]), &Parameters::default()).expect("a row");
        let refused = line.expect_err("a header");
        assert_eq!(refused.code(), 400);
        assert!(refused.detail().starts_with("Repeated header"), "{}", refused.detail());
    }
}
