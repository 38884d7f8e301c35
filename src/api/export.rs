//! `GET /api/v2/messages/export`: all rows that match, oldest first, as CSV or NDJSON, a page of them in
//! memory at a time.
//!
//! Rows logged after the beginning are left out, so that an export ends. A failed query cuts the answer,
//! which shows the client that the answer is not whole.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::unfold;
use serde_json::Value;

use super::documented::{self, ExportParameters, RefusedExport};
use super::parameters::{Given, OF_EXPORT, invalid};
use super::service::{Api, in_time, turn};
use crate::domain::{AccountId, RowId, TokenScope};
use crate::edge::http::refused;
use crate::edge::openapi::Token;
use crate::edge::{Refused, Turn};
use crate::store::{LogRow, MessageFilter};

/// Rows of one read. After long rows fewer are read.
const PAGE: u32 = 500;
const SHORTEST_PAGE: u32 = 16;
/// Bytes of a part. A client that does not read holds one part.
const PART_BYTES: usize = 256 * 1024;

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    Csv,
    Ndjson,
}

impl ExportFormat {
    fn read(given: &Given) -> Result<ExportFormat, Refused> {
        match given.value("format") {
            None | Some("csv") => Ok(ExportFormat::Csv),
            Some("ndjson") => Ok(ExportFormat::Ndjson),
            Some(_) => Err(invalid_format()),
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            ExportFormat::Csv => documented::CSV,
            ExportFormat::Ndjson => documented::NDJSON,
        }
    }

    /// Return the text before the first row. It names the columns in the order of the rows.
    pub fn head(self) -> String {
        match self {
            ExportFormat::Csv => format!("{}\r\n", LogRow::COLUMNS.join(",")),
            ExportFormat::Ndjson => String::new(),
        }
    }

    /// Return a row with its line end.
    pub fn line(self, row: &LogRow) -> String {
        let json = serde_json::to_value(row).expect("rows are texts and numbers, which are always JSON");
        match self {
            ExportFormat::Ndjson => format!("{json}\n"),
            ExportFormat::Csv => {
                let cells: Vec<String> =
                    json.as_object().into_iter().flatten().map(|(_, value)| cell(value)).collect();
                format!("{}\r\n", cells.join(","))
            }
        }
    }
}

/// Return 229 for `format`.
pub fn invalid_format() -> Refused {
    invalid("format", "is csv or ndjson")
}

/// Return a cell by RFC 4180. A text that a spreadsheet would take for a formula is marked as a text.
fn cell(value: &Value) -> String {
    let mut text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Export all messages that match, oldest first
///
/// The answer is written while the rows are read. An answer that is cut is not whole.
#[utoipa::path(
    get,
    path = "/api/v2/messages/export",
    operation_id = "exportMessages",
    params(Token, ExportParameters),
    responses(
        (status = 200, description = "All rows", content(
            (String = "text/csv", examples(
                ("csv" = (summary = "A header row, then a row a message", value = json!(documented::csv()))),
            )),
            (String = "application/x-ndjson", examples(
                ("ndjson" = (summary = "An object a line", value = json!(documented::ndjson()))),
            )),
        )),
        RefusedExport,
    ),
)]
pub(super) async fn export(State(api): State<Arc<Api>>, head: Parts) -> Response {
    match Export::open(api, &head).await {
        Ok(export) => export.answer(),
        Err(refusal) => refused(refusal),
    }
}

/// An export under way.
struct Export {
    api: Arc<Api>,
    account: AccountId,
    filter: MessageFilter,
    format: ExportFormat,
    /// Rows above this id are still to be written.
    after: RowId,
    /// Rows of the next read.
    rows: u32,
    /// The newest row at the beginning.
    last: RowId,
    has_begun: bool,
    has_ended: bool,
    _turn: Turn,
}

impl Export {
    async fn open(api: Arc<Api>, head: &Parts) -> Result<Export, Refused> {
        let account = api.account(head, TokenScope::Read, OF_EXPORT).await?;
        let given = Given::of(head.uri.query().unwrap_or_default());
        let (filter, format) = (given.filter()?, ExportFormat::read(&given)?);
        let under_way = turn(&api.exports, account).await?;
        let newest = {
            let _turn = turn(&api.lists, account).await?;
            in_time(api.store.messages(account, &filter, RowId(i64::MAX), 1)).await?
        };
        let last = newest.first().map_or(RowId(0), |row| row.cdls_id);
        let has_ended = newest.is_empty();
        let (after, rows, has_begun) = (RowId(0), PAGE, false);
        Ok(Export { api, account, filter, format, after, rows, last, has_begun, has_ended, _turn: under_way })
    }

    fn answer(self) -> Response {
        let content_type = HeaderValue::from_static(self.format.content_type());
        let parts = unfold(self, |mut export| async move { Some((export.next().await?, export)) });
        let mut response = Response::new(Body::from_stream(parts));
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    /// Return the next part of the answer.
    async fn next(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        let mut part = String::new();
        if !self.has_begun {
            self.has_begun = true;
            part = self.format.head();
        }
        if !self.has_ended {
            match self.page().await {
                Ok(rows) => self.write(&rows, &mut part),
                Err(refused) => {
                    self.has_ended = true;
                    return Some(Err(std::io::Error::other(refused.status())));
                }
            }
        }
        (!part.is_empty()).then(|| Ok(Bytes::from(part)))
    }

    async fn page(&self) -> Result<Vec<LogRow>, Refused> {
        let api = &self.api;
        let _turn = turn(&api.lists, self.account).await?;
        Ok(in_time(api.store.messages_after(self.account, &self.filter, self.after, self.rows)).await?)
    }

    /// Write as many of the rows that were read as fit a part, at least one; the next read begins behind them.
    fn write(&mut self, rows: &[LogRow], part: &mut String) {
        let mut fits = true;
        let mut written = 0;
        for row in rows.iter().filter(|row| row.cdls_id <= self.last) {
            let line = self.format.line(row);
            fits = written == 0 || part.len() + line.len() <= PART_BYTES;
            if !fits {
                break;
            }
            part.push_str(&line);
            self.after = row.cdls_id;
            written += 1;
        }
        let is_last =
            rows.len() < self.rows as usize || rows.last().is_some_and(|row| row.cdls_id >= self.last);
        self.has_ended = fits && is_last;
        let taken = if fits { self.rows } else { written };
        self.rows = (taken * 2).clamp(SHORTEST_PAGE, PAGE);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::text(json!("abc"), "abc")]
    #[case::none(json!(null), "")]
    #[case::number(json!(7), "7")]
    #[case::separator(json!("a,b"), "\"a,b\"")]
    #[case::quotes(json!("say \"hi\""), "\"say \"\"hi\"\"\"")]
    #[case::line_end(json!("two\r\nlines"), "\"two\r\nlines\"")]
    #[case::formula(json!("=1+1"), "'=1+1")]
    #[case::formula_with_a_separator(json!("=SUM(1,2)"), "\"'=SUM(1,2)\"")]
    #[case::plus(json!("+55"), "'+55")]
    #[case::minus(json!("-1"), "'-1")]
    #[case::at(json!("@a"), "'@a")]
    fn cell_is_quoted_and_no_formula(#[case] value: Value, #[case] expected: &str) {
        assert_eq!(cell(&value), expected);
    }

    #[test]
    fn columns_are_those_of_a_row() {
        let row: Value =
            serde_json::from_str(documented::ndjson().lines().next().expect("a row")).expect("JSON");
        let names: Vec<&str> = row.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, LogRow::COLUMNS);
        let csv = documented::csv();
        assert_eq!(csv.lines().next(), Some(ExportFormat::Csv.head().trim_end()));
        assert!(csv.ends_with("\r\n") && csv.lines().count() == 2);
    }
}
