//! Tables and short times, for people at a terminal.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};
use time::{OffsetDateTime, UtcOffset, format_description::FormatItem, macros::format_description};

use super::output::printable;

/// Blanks after each column.
pub const GAP: u16 = 2;

/// A table with one line per row: what does not fit into `width` columns is shortened with `…`.
pub fn table(width: u16, header: &[&str]) -> Table {
    let mut table = Table::new();
    let mut names = Row::from(header.to_vec());
    names.max_height(1);
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_truncation_indicator("…")
        .set_header(names);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

/// Adds a row, its texts made safe to show.
pub fn add<T: AsRef<str>>(table: &mut Table, cells: impl IntoIterator<Item = T>) {
    let mut row = Row::from(cells.into_iter().map(|cell| printable(cell.as_ref()).into_owned()));
    row.max_height(1);
    debug_assert_eq!(row.cell_count(), table.column_count(), "a cell for each column");
    table.add_row(row);
}

/// Columns of numbers, by index.
pub fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Columns that are never shortened, by index: ids and words.
pub fn keep_whole(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}

/// `11-23 14:15:20`, in UTC: for times that are near.
pub fn short_time(at: OffsetDateTime) -> String {
    const FORMAT: &[FormatItem<'static>] = format_description!("[month]-[day] [hour]:[minute]:[second]");
    at.to_offset(UtcOffset::UTC).format(FORMAT).expect("the format has no parts that a time lacks")
}

/// `2026-11-23 14:15`, in UTC.
pub fn date_and_time(at: OffsetDateTime) -> String {
    const FORMAT: &[FormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]");
    at.to_offset(UtcOffset::UTC).format(FORMAT).expect("the format has no parts that a time lacks")
}

/// A text that may be absent, as `-`.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// `yes` or `no`.
pub fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}
