//! Prints the messages of `log tail` and `demo`: a row each, with the code of an error in a column of its
//! own.
//!
//! Never here: the fields for which a row has no room; `log show` prints them.

use time::OffsetDateTime;

use super::screen::Screen;
use super::table::{Column, Table, arrange, near_time};
use crate::domain::Status;
use crate::store::LogRow;
use crate::text::timestamp;

/// A terminal of 80 columns shows the columns without a rank.
const COLUMNS: [Column; 9] = [
    Column::number("CDLS_ID"),
    Column::new("CREATED_AT"),
    Column::number("V8L_ID"),
    Column::text("DEST", 17),
    Column::new("MTYPE").spare(2),
    Column::state("STATUS"),
    Column::new("ERROR_CODE"),
    Column::text("RESULT", 20),
    Column::text("MDATA", 20).spare(1),
];

/// Return the table of these rows.
pub fn table(rows: &[LogRow], screen: Screen, now: OffsetDateTime) -> Table<'static> {
    let time = |at| match screen.width {
        Some(_) => near_time(at, now),
        None => timestamp(at),
    };
    let mut table = Table::new(&COLUMNS, screen);
    for row in rows {
        table.add([
            row.cdls_id.to_string(),
            time(row.created_at),
            row.v8l_id.to_string(),
            row.dest.clone(),
            row.mtype.to_string(),
            row.status.to_string(),
            error_code(row),
            result(row, time),
            row.mdata.clone(),
        ]);
    }
    table
}

/// A table that goes on: its columns keep their places, as far as the rows let them.
pub struct Listing {
    screen: Screen,
    /// Content to expect.
    content: Vec<u16>,
}

impl Listing {
    pub fn new(screen: Screen) -> Listing {
        let content = match screen.width {
            // Results and texts share the rest of the width.
            Some(_) => vec![7, 10, 6, 17, 5, 7, 11, u16::MAX, u16::MAX],
            None => vec![8, 24, 6, 17, 5, 9, 11, 40, 5],
        };
        Listing { screen, content }
    }

    /// Return the header and the first rows.
    pub fn begin(&mut self, rows: &[LogRow], now: OffsetDateTime) -> String {
        let table = table(rows, self.screen, now);
        for ((content, found), column) in self.content.iter_mut().zip(table.content()).zip(&COLUMNS) {
            // On a terminal a text is cut; a longer id moves the columns instead.
            if !(column.is_text() && self.screen.width.is_some()) {
                *content = found.max(*content);
            }
        }
        table.print(&arrange(&COLUMNS, &self.content, self.screen.width))
    }

    /// Return further rows.
    pub fn go_on(&mut self, rows: &[LogRow], now: OffsetDateTime) -> String {
        let text = self.begin(rows, now);
        text.split_once('\n').map(|(_header, rows)| rows.to_owned()).unwrap_or_default()
    }
}

/// Return Graph's code, and its subcode.
fn error_code(row: &LogRow) -> String {
    match (row.error_code, row.error_subcode) {
        (Some(code), Some(subcode)) => format!("{code}/{subcode}"),
        (Some(code), None) => code.to_string(),
        (None, _) => String::new(),
    }
}

/// Return the result of a message beside its code: its receipt, else Graph's id, or the reason, and the time
/// of the next try.
fn result(row: &LogRow, time: impl Fn(OffsetDateTime) -> String) -> String {
    if row.status == Status::Ok {
        return match (row.read_at, row.delivered_at) {
            (Some(read), _) => format!("read {}", time(read)),
            (None, Some(delivered)) => format!("delivered {}", time(delivered)),
            (None, None) => row.message_id.clone().unwrap_or_default(),
        };
    }
    let next = row.next_at.filter(|_| !row.status.is_final()).map(|at| format!("at {}", time(at)));
    let kind = row.error_kind.map(|kind| kind.to_string());
    let said = row.error_message.as_deref().map(|message| without_code(message, row.error_code).to_owned());
    [next, kind, said].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// Return Graph's message without its leading code, as in `(#10) This message …`.
fn without_code(message: &str, code: Option<i32>) -> &str {
    let prefix = code.map(|code| format!("(#{code}) "));
    prefix.and_then(|prefix| message.strip_prefix(&prefix)).unwrap_or(message)
}

/// Return a row that waits, with long texts.
#[cfg(test)]
pub fn sample_row(id: i64, status: Status) -> LogRow {
    use crate::domain::{AccountId, Lane, LineId, RowId};

    LogRow {
        cdls_id: RowId(id),
        cdcs_id: AccountId(1),
        v8l_id: LineId(7),
        class: crate::channel::Class::MESSENGER,
        dest: "25312345678901234".into(),
        mtype: crate::channel::MessageKind::Text,
        mdata: "a text that is too long for the column it stands in, whatever the width ".repeat(9),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        priority: Lane::High,
        status,
        status_code: 0,
        message_id: None,
        error_code: None,
        error_subcode: None,
        error_kind: None,
        error_message: None,
        fbtrace_id: None,
        attempts: 0,
        ambiguous_attempts: 0,
        next_at: None,
        expires_at: time::macros::datetime!(2026-11-24 14:15:20 UTC),
        created_at: time::macros::datetime!(2026-11-23 14:15:20 UTC),
        sent_at: None,
        done_at: None,
        delivered_at: None,
        read_at: None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::sample_row as row;
    use super::*;
    use crate::domain::ErrorKind;

    const NOW: OffsetDateTime = datetime!(2026-11-23 14:16 UTC);

    /// Return rows with long texts in every column that has any.
    fn long_rows() -> [LogRow; 2] {
        let refused = LogRow {
            error_kind: Some(ErrorKind::Refused),
            error_code: Some(551),
            error_subcode: Some(1545041),
            error_message: Some("(#551) This person isn't available right now. 👩‍👩‍👧‍👦 日本語 ".repeat(9)),
            ..row(1_234_567, Status::Error)
        };
        [refused, row(1_234_568, Status::Unknown)]
    }

    #[rstest]
    fn listing_fits_a_terminal(
        #[values(80, 100, 160, 240)] width: u16,
        #[values(true, false)] goes_on: bool,
    ) {
        let screen = Screen { width: Some(width), colours: false };
        let text = match goes_on {
            true => Listing::new(screen).begin(&long_rows(), NOW),
            false => table(&long_rows(), screen, NOW).render(),
        };
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(widest(&text) <= width, "{text}");
        for part in
            ["1234567  14:15:20Z", "25312345678901234", "ERROR    551/1545041  refused", "UNKNOWN", "…"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.contains("MDATA"), width > 100, "{text}");
    }

    #[test]
    fn listing_without_a_terminal_is_whole() {
        let rows = long_rows();
        let text = table(&rows, Screen { width: None, colours: false }, NOW).render();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("2026-11-23T14:15:20.000Z") && text.contains(rows[0].mdata.trim_end()),
            "{text}"
        );
        assert!(!text.contains('…'), "{text}");
    }

    #[rstest]
    #[case::terminal(Some(80))]
    #[case::file(None)]
    fn following_keeps_the_columns(#[case] width: Option<u16>) {
        let mut listing = Listing::new(Screen { width, colours: false });
        let first = listing.begin(&[row(9, Status::Pending)], NOW);
        let more = listing.go_on(&[row(9, Status::Pending)], NOW);
        assert_eq!(first.lines().nth(1), Some(more.as_str()));
        let place = first.lines().next().and_then(|header| header.find("STATUS"));
        let wide = listing.go_on(&[row(123_456_789, Status::Pending)], NOW);
        assert!(wide.contains("123456789") && wide.find("PENDING") > place, "{wide}");
        assert!(width.is_none_or(|width| widest(&wide) <= width), "{wide}");
    }

    #[rstest]
    #[case::both(Some(10), Some(2018278), "10/2018278")]
    #[case::code_alone(Some(551), None, "551")]
    #[case::none(None, None, "")]
    fn error_code_has_a_column(
        #[case] code: Option<i32>,
        #[case] subcode: Option<i32>,
        #[case] expected: &str,
    ) {
        let row = LogRow { error_code: code, error_subcode: subcode, ..row(1, Status::Error) };
        assert_eq!(error_code(&row), expected);
    }

    #[test]
    fn result_names_the_reason_and_the_next_try() {
        let result = |row: &LogRow| result(row, |at| near_time(at, NOW));
        let error = LogRow {
            error_kind: Some(ErrorKind::Refused),
            error_code: Some(10),
            error_message: Some("(#10) outside the window".into()),
            ..row(1, Status::Error)
        };
        assert_eq!(result(&error), "refused: outside the window");
        let retry = LogRow {
            error_code: Some(2),
            error_message: Some("try later".into()),
            next_at: Some(datetime!(2026-11-23 14:17 UTC)),
            ..row(1, Status::Retry)
        };
        assert_eq!(result(&retry), "at 14:17:00Z: try later");
        let sent = LogRow { message_id: Some("m_1".into()), ..row(1, Status::Ok) };
        assert_eq!(result(&sent), "m_1");
        let delivered = LogRow { delivered_at: Some(datetime!(2026-11-23 14:17 UTC)), ..sent };
        assert_eq!(result(&delivered), "delivered 14:17:00Z");
        let read = LogRow { read_at: Some(datetime!(2026-11-23 14:18 UTC)), ..delivered };
        assert_eq!(result(&read), "read 14:18:00Z");
    }
}
