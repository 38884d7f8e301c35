//! Tables with one line a row, and short times.
//!
//! A table on a terminal is no wider than the terminal: columns that can be spared are left out, then texts
//! are cut with `…`. Elsewhere all columns are printed, and nothing is cut. Never here: notes, which are
//! printed below a table.

use std::borrow::Cow;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, Row, Width, presets};
use time::{OffsetDateTime, UtcOffset, format_description::FormatItem, macros::format_description};

use super::output::printable;
use super::screen::Screen;

/// Blanks between two columns.
const GAP: u16 = 2;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    is_number: bool,
    is_state: bool,
    /// Width that a text keeps while a column can be left out instead; other columns are never cut.
    least: Option<u16>,
    /// Columns with the highest rank are left out first, those with 0 never.
    spare: u8,
}

impl Column {
    /// Return a column of words.
    pub const fn new(name: &'static str) -> Column {
        Column { name, is_number: false, is_state: false, least: None, spare: 0 }
    }

    /// Return a column of numbers.
    pub const fn number(name: &'static str) -> Column {
        Column { is_number: true, ..Column::new(name) }
    }

    /// Return a column of states, each in its colour.
    pub const fn state(name: &'static str) -> Column {
        Column { is_state: true, ..Column::new(name) }
    }

    /// Return a column of texts, which are cut where they do not fit.
    pub const fn text(name: &'static str, least: u16) -> Column {
        Column { least: Some(least), ..Column::new(name) }
    }

    /// Return the same column, left out of a narrow table.
    pub const fn spare(self, rank: u8) -> Column {
        Column { spare: rank, ..self }
    }

    pub const fn is_text(&self) -> bool {
        self.least.is_some()
    }
}

/// Rows below a header.
pub struct Table<'a> {
    columns: &'a [Column],
    screen: Screen,
    inner: comfy_table::Table,
}

impl<'a> Table<'a> {
    pub fn new(columns: &'a [Column], screen: Screen) -> Table<'a> {
        let mut header = Row::from(columns.iter().map(|column| column.name).collect::<Vec<_>>());
        header.max_height(1);
        let mut inner = comfy_table::Table::new();
        // No text contains the delimiter: a text is cut after any character, not only after a word.
        inner
            .load_preset(presets::NOTHING)
            .set_truncation_indicator("…")
            .set_delimiter('\0')
            .set_header(header);
        inner.force_no_tty();
        if screen.colours {
            inner.enforce_styling().style_text_only();
        }
        for (place, column) in inner.column_iter_mut().zip(columns) {
            place.set_padding((0, GAP));
            if column.is_number {
                place.set_cell_alignment(CellAlignment::Right);
            }
        }
        Table { columns, screen, inner }
    }

    /// Add a row, its texts made safe to show.
    pub fn add<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        let texts: Vec<T> = texts.into_iter().collect();
        debug_assert_eq!(texts.len(), self.columns.len(), "a cell for each column");
        let cells = texts.iter().zip(self.columns).map(|(text, column)| self.cell(column, text.as_ref()));
        let mut row = Row::from(cells.collect::<Vec<Cell>>());
        row.max_height(1);
        self.inner.add_row(row);
    }

    fn cell(&self, column: &Column, text: &str) -> Cell {
        let text = match self.screen.width {
            Some(width) => beginning(text, 2 * usize::from(width)),
            None => text.into(),
        };
        let cell = Cell::new(printable(&text));
        if column.is_state { coloured(cell, &text) } else { cell }
    }

    /// Return the width of each column's longest cell.
    pub fn content(&self) -> Vec<u16> {
        self.inner.column_max_content_widths()
    }

    /// Return the whole table.
    pub fn render(self) -> String {
        let widths = arrange(self.columns, &self.content(), self.screen.width);
        self.print(&widths)
    }

    /// Return the whole table, with columns of these widths; 0 leaves a column out.
    pub fn print(mut self, widths: &[u16]) -> String {
        for (column, width) in self.inner.column_iter_mut().zip(widths) {
            column.set_constraint(match *width {
                0 => ColumnConstraint::Hidden,
                width => ColumnConstraint::Absolute(Width::Fixed(width.saturating_add(GAP))),
            });
        }
        self.inner.trim_fmt()
    }
}

/// Return the text, or its first characters: the rest of a long one is cut anyway, and slow to lay out.
fn beginning(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

fn coloured(cell: Cell, state: &str) -> Cell {
    match state {
        "OK" => cell.fg(Color::DarkGreen),
        "ERROR" => cell.fg(Color::DarkRed),
        "RETRY" | "PENDING" | "paused" => cell.fg(Color::DarkYellow),
        "UNKNOWN" => cell.fg(Color::DarkMagenta),
        "CANCELLED" | "cancelled" => cell.add_attribute(Attribute::Dim),
        _ => cell,
    }
}

/// Return widths with which columns fit a terminal of `room` columns, from the widths of their `content`; 0
/// leaves a column out. Without a terminal every column has the width of its content.
pub fn arrange(columns: &[Column], content: &[u16], room: Option<u16>) -> Vec<u16> {
    let Some(room) = room else { return content.to_vec() };
    let highest = columns.iter().map(|column| column.spare).max().unwrap_or(0);
    for rank in (0..=highest).rev() {
        let mut widths = least_widths(columns, content, rank);
        if let Some(rest) = room.checked_sub(total(&widths)) {
            widen(&mut widths, content, rest);
            return widths;
        }
    }
    let mut widths = least_widths(columns, content, 0);
    let excess = total(&widths).saturating_sub(room);
    narrow(&mut widths, columns, excess);
    widths
}

/// Return the least widths, without the columns above a rank.
fn least_widths(columns: &[Column], content: &[u16], rank: u8) -> Vec<u16> {
    let least = |(column, content): (&Column, &u16)| match column.least {
        _ if column.spare > rank => 0,
        Some(least) => least.min(*content),
        None => *content,
    };
    columns.iter().zip(content).map(least).collect()
}

/// Return the width of a table.
fn total(widths: &[u16]) -> u16 {
    let shown = widths.iter().filter(|width| **width > 0);
    let (columns, gaps) = shown.fold((0_u16, 0_u16), |(columns, gaps), width| {
        (columns.saturating_add(*width), gaps.saturating_add(GAP))
    });
    columns.saturating_add(gaps.saturating_sub(GAP))
}

/// Share the rest of the room among the texts that are longer than their columns.
fn widen(widths: &mut [u16], content: &[u16], mut rest: u16) {
    while rest > 0 {
        let is_short = |index: &usize| widths[*index] > 0 && widths[*index] < content[*index];
        let short: Vec<usize> = (0..widths.len()).filter(is_short).collect();
        if short.is_empty() {
            return;
        }
        let share = (rest / short.len() as u16).max(1);
        for index in short {
            let more = share.min(content[index] - widths[index]).min(rest);
            widths[index] += more;
            rest -= more;
        }
    }
}

/// Take the excess from the texts, the last one first.
fn narrow(widths: &mut [u16], columns: &[Column], mut excess: u16) {
    for (width, column) in widths.iter_mut().zip(columns).rev() {
        if column.is_text() {
            let less = excess.min(width.saturating_sub(1));
            *width -= less;
            excess -= less;
        }
    }
}

/// Return `14:15:20Z` within a day of `now`, else `11-23 14:15Z`: for times that are near.
pub fn near_time(at: OffsetDateTime, now: OffsetDateTime) -> String {
    const OF_THE_DAY: &[FormatItem<'static>] = format_description!("[hour]:[minute]:[second]Z");
    const OF_THE_YEAR: &[FormatItem<'static>] = format_description!("[month]-[day] [hour]:[minute]Z");
    let format = if (at - now).abs() < time::Duration::DAY { OF_THE_DAY } else { OF_THE_YEAR };
    at.to_offset(UtcOffset::UTC).format(format).expect("the format has no parts that a time lacks")
}

/// Return a time as `2026-11-23 14:15`, in UTC.
pub fn date_and_time(at: OffsetDateTime) -> String {
    const FORMAT: &[FormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]");
    at.to_offset(UtcOffset::UTC).format(FORMAT).expect("the format has no parts that a time lacks")
}

/// Return the text, or `-` if it is absent.
pub fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// Return `yes` or `no`.
pub fn yes_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Return the columns of a terminal that the longest line takes.
#[cfg(test)]
pub fn widest(text: &str) -> u16 {
    let mut table = comfy_table::Table::new();
    table.add_row([text]);
    table.column_max_content_widths()[0]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::*;

    const COLUMNS: [Column; 5] = [
        Column::number("ID"),
        Column::state("STATUS"),
        Column::text("DEST", 8),
        Column::text("TEXT", 20),
        Column::new("NAME").spare(1),
    ];

    fn screen(width: u16) -> Screen {
        Screen { width: Some(width), colours: false }
    }

    fn table(screen: Screen) -> Table<'static> {
        let mut table = Table::new(&COLUMNS, screen);
        for text in [
            "short",
            &"👩‍👩‍👧‍👦 日本語 née ".repeat(40),
            &"no-blank-to-break-at/".repeat(40),
            "two\nlines\t\u{1b}[2J",
        ] {
            table.add(["1234567890", "PENDING", "25312345678901234", text, "a name of its own"]);
        }
        table
    }

    #[rstest]
    fn fits_a_terminal_with_one_line_a_row(#[values(40, 60, 80, 160)] width: u16) {
        let text = table(screen(width)).render();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(widest(&text) <= width, "{text}");
        assert!(text.contains("1234567890  PENDING") && text.contains('…'), "{text}");
    }

    #[rstest]
    #[case(160, true, true)]
    #[case(69, false, true)]
    #[case(40, false, false)]
    fn leaves_columns_out_before_it_cuts_ids(#[case] width: u16, #[case] name: bool, #[case] whole: bool) {
        let text = table(screen(width)).render();
        assert_eq!(text.contains("NAME"), name, "{text}");
        assert_eq!(text.contains("25312345678901234"), whole, "{text}");
    }

    #[test]
    fn cuts_nothing_without_a_terminal() {
        let text = table(Screen { width: None, colours: false }).render();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains(&"no-blank-to-break-at/".repeat(40)) && !text.contains('…'), "{text}");
        assert!(text.contains("two\\nlines\\t\\u{1b}[2J") && text.contains("a name of its own"), "{text}");
    }

    #[test]
    fn cuts_after_any_character() {
        let mut table = Table::new(&COLUMNS, screen(43));
        table.add(["1", "OK", "ann", "Your order has shipped today.", "x"]);
        let text = table.render();
        assert_eq!(text.lines().nth(1), Some(" 1  OK      ann   Your order has shipped t…"), "{text}");
    }

    #[test]
    fn colours_keep_the_text_and_its_places() {
        let plain = table(screen(80)).render();
        let coloured = table(Screen { width: Some(80), colours: true }).render();
        assert!(coloured.contains('\u{1b}') && !plain.contains('\u{1b}'), "{coloured}");
        let escapes = regex::Regex::new("\u{1b}\\[[0-9;]*m").expect("a pattern");
        assert_eq!(escapes.replace_all(&coloured, ""), plain);
    }

    #[rstest]
    #[case::of_the_day(datetime!(2026-11-23 14:15:20 UTC), "14:15:20Z")]
    #[case::in_another_zone(datetime!(2026-11-23 16:15:20 +02:00), "14:15:20Z")]
    #[case::soon(datetime!(2026-11-24 9:00 UTC), "09:00:00Z")]
    #[case::older(datetime!(2026-11-21 14:15:20 UTC), "11-21 14:15Z")]
    fn near_times_are_short(#[case] at: OffsetDateTime, #[case] expected: &str) {
        assert_eq!(near_time(at, datetime!(2026-11-23 20:00 UTC)), expected);
    }
}
