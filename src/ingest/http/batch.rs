//! `POST /api/v2/messages/batch` (contract: "HTTP: everything else") over HTTP: the request as a whole.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;

use super::super::Ingest;
use super::super::batch::{BatchRequest, CsvOptions, IgnoredColumns};
use super::super::body::uncoded;
use super::super::parameters::{LISTED, Parameters};
use super::super::pipeline::token;
use super::batch_answer::answer;
use super::documented::{self, BatchParameters, CSV, NDJSON, RefusedBatch};
use crate::batch::{Format, SEPARATORS_IN_WORDS, separator_named};
use crate::domain::{MAX_BATCH_ID_CHARS, TokenScope};
use crate::edge::http::{bearer, charset, content_encoding, drain, essence, refused};
use crate::edge::{Caller, ConnectionPhase, Refusal, Refused, known_only, shown};
use crate::text::{Charset, form_pairs, trimmed};

/// Parameters of the batch itself; parameters of a message are defaults for its lines.
const OWN: [&str; 5] = ["stream", "batch_id", "separator", "ignore_columns", "once_per_dest"];

/// A batch that has no turn after this time, as others of its account have them, is refused.
const TURN_TIMEOUT: Duration = Duration::from_secs(15);

/// The query's options for the batch itself.
#[derive(Default)]
struct BatchOptions {
    is_streamed: bool,
    batch_id: Option<String>,
    csv: CsvOptions,
    is_once_per_dest: bool,
}

/// Send a batch of messages
///
/// Each line of the body is one message. The query holds defaults for every line. Answers begin after the whole body is
/// read. With `stream=1` they begin while the body is read.
#[utoipa::path(
    post,
    path = "/api/v2/messages/batch",
    operation_id = "sendBatch",
    params(BatchParameters),
    request_body(content(
        (String = NDJSON, examples(
            ("ndjson" = (summary = "One object a line", value = json!(documented::NDJSON_LINES))),
        )),
        (String = CSV, examples(
            ("csv" = (summary = "A header row, then one message a row", value = json!(documented::CSV_LINES))),
        )),
    )),
    responses(
        (
            status = 200,
            description = "One answer for each line, in order; blank lines count and have no answer",
            body = String,
            content_type = NDJSON,
            headers(
                ("Batch-Id" = String, description = "Value of `batch_id` for a repeated batch"),
                (
                    "Batch-Logged-Before" = i64,
                    description = "Number of lines that an earlier request had logged; missing with `stream=1`"
                ),
                (
                    "Batch-Duplicates" = i64,
                    description = "Number of logged lines whose recipient stands in an earlier line; missing with `stream=1`"
                ),
                (
                    "Batch-Not-Utf8" = i64,
                    description = "Number of values that are not UTF-8 and were read as windows-1252; missing with `stream=1`"
                ),
            ),
            examples(
                ("ndjson" = (summary = "Answers to the NDJSON example", value = json!(documented::ndjson_answers()))),
                ("csv" = (summary = "Answers to the CSV example", value = json!(documented::csv_answers()))),
            ),
        ),
        RefusedBatch,
    ),
)]
pub async fn batch(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match batch_request(&ingest, &head).await {
        Ok((request, is_streamed)) => answer(ingest, request, is_streamed, body).await,
        Err(reason) => {
            if !reason.refusal.is_shut_out() {
                drain(body).await;
            }
            refused(reason)
        }
    }
}

async fn batch_request(ingest: &Ingest, head: &Parts) -> Result<(BatchRequest, bool), Refused> {
    let query = head.uri.query().unwrap_or_default();
    let format = format(&head.headers);
    let mut defaults = Parameters::of_query(query);
    let caller = Caller::of(&head.extensions, &head.headers);
    let token = token(&defaults, bearer(&head.headers).as_deref());
    let account = ingest.directory.admit(&caller, &token, TokenScope::Send).await?;
    let token = token?;
    let (format, charset) = format?;
    if head.headers.contains_key("idempotency-key") {
        // The key would seem to count: a batch is repeated under its `batch_id`.
        return Err(Refused::parameter(
            "Idempotency-Key",
            "A batch has no Idempotency-Key: name it with `batch_id`, and send it again under that name",
        ));
    }
    let known: Vec<&str> = LISTED.iter().copied().chain(OWN).collect();
    known_only(query, &known)?;
    let options = batch_options(query)?;
    defaults.forget_token();
    let is_named = options.batch_id.is_some();
    let turn = tokio::time::timeout(TURN_TIMEOUT, ingest.batches.take(account)).await;
    let turn = turn.map_err(|_| Refusal::Crowded)?;
    // Lines are logged while the body arrives. Turns bound the connections that are kept for it.
    if let Some(phase) = head.extensions.get::<ConnectionPhase>() {
        phase.begin_work();
    }
    let request = BatchRequest {
        token,
        address: caller.address,
        account,
        format,
        csv: options.csv,
        charset,
        is_once_per_dest: options.is_once_per_dest,
        defaults,
        batch_id: options.batch_id.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string()),
        is_named,
        turn,
    };
    Ok((request, options.is_streamed))
}

fn format(headers: &HeaderMap) -> Result<(Format, Charset), Refused> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type =
        content_type.map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    uncoded(&content_encoding(headers)?)?;
    let format = match essence(&content_type).as_str() {
        NDJSON | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Format::Ndjson,
        CSV | "application/csv" | "text/tab-separated-values" => Format::Csv,
        other => return Err(unread_type(other)),
    };
    Ok((format, charset(&content_type)?))
}

/// Return the 400 for a Content-Type that is not a batch's.
pub fn unread_type(essence: &str) -> Refused {
    if essence.is_empty() {
        return Refused::malformed(format!("The batch has no Content-Type: send {NDJSON} or {CSV}"));
    }
    Refused::malformed(format!("The Content-Type {} is no batch's: send {NDJSON} or {CSV}", shown(essence)))
}

fn batch_options(query: &str) -> Result<BatchOptions, Refused> {
    let mut options = BatchOptions::default();
    for (name, value) in form_pairs(query.as_bytes(), Charset::Utf8) {
        let value = value.text.as_str();
        match trimmed(&name) {
            "stream" => options.is_streamed = flag("stream", value)?,
            "once_per_dest" => options.is_once_per_dest = flag("once_per_dest", value)?,
            "ignore_columns" => options.csv.ignored = IgnoredColumns::read(value),
            "separator" => {
                let separator = separator_named(value).ok_or_else(|| wrong_separator(value))?;
                options.csv.separator = Some(separator);
            }
            "batch_id" => options.batch_id = Some(batch_id(trimmed(value))?),
            _ => {}
        }
    }
    Ok(options)
}

fn wrong_separator(given: &str) -> Refused {
    Refused::parameter(
        "separator",
        format!("The separator `{}` is not read: give {SEPARATORS_IN_WORDS}", shown(given)),
    )
}

fn batch_id(id: &str) -> Result<String, Refused> {
    let fits = (1..=MAX_BATCH_ID_CHARS).contains(&id.len());
    if fits && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(id.to_owned());
    }
    let detail = format!("`batch_id` is 1 to {MAX_BATCH_ID_CHARS} printable ASCII characters without blanks");
    Err(Refused::parameter("batch_id", detail))
}

fn flag(name: &'static str, value: &str) -> Result<bool, Refused> {
    match trimmed(value) {
        "1" => Ok(true),
        "0" | "" => Ok(false),
        _ => Err(wrong_flag(name)),
    }
}

/// Return the 229 for a parameter that is on or off.
pub fn wrong_flag(name: &'static str) -> Refused {
    Refused::parameter(name, format!("`{name}` is 1 or 0: give one of them, or leave it out"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn read(query: &str) -> Result<BatchOptions, Refused> {
        batch_options(query)
    }

    #[test]
    fn batch_options_are_read() {
        let options =
            read("stream=0&once_per_dest=1&separator=%3B&ignore_columns=a,B&batch_id=x+").expect("in order");
        assert!(options.is_once_per_dest && !options.is_streamed);
        assert_eq!((options.csv.separator, options.batch_id.as_deref()), (Some(b';'), Some("x")));
        let ignored = IgnoredColumns::Named(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(options.csv.ignored, ignored);
    }

    #[rstest]
    #[case("separator=%7C", "separator", "`|`")]
    #[case("stream=maybe", "stream", "1 or 0")]
    #[case("once_per_dest=yes", "once_per_dest", "1 or 0")]
    #[case("batch_id=a+b", "batch_id", "64")]
    fn wrong_option_is_named(#[case] query: &str, #[case] name: &'static str, #[case] word: &str) {
        let Err(refused) = read(query) else { panic!("{query} is read") };
        assert_eq!(refused.refusal, Refusal::InvalidParameter(name));
        assert!(refused.detail().contains(word), "{}", refused.detail());
    }

    #[rstest]
    #[case("application/x-ndjson", Ok((Format::Ndjson, Charset::Utf8)))]
    #[case("Application/NDJSON; charset=UTF-8", Ok((Format::Ndjson, Charset::Utf8)))]
    #[case("text/csv; header=present; charset=iso-8859-1", Ok((Format::Csv, Charset::Windows1252)))]
    #[case("text/tab-separated-values", Ok((Format::Csv, Charset::Utf8)))]
    #[case("application/json", Err("application/json"))]
    #[case("text/csv; charset=klingon", Err("klingon"))]
    fn content_type_is_read_or_named(
        #[case] content_type: &str,
        #[case] expected: Result<(Format, Charset), &str>,
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().expect("a header value"));
        match (format(&headers), expected) {
            (Err(refused), Err(named)) => assert!(refused.detail().contains(named), "{}", refused.detail()),
            (read, expected) => assert_eq!(read.ok(), expected.ok()),
        }
    }

    #[test]
    fn coded_batch_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CSV));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(format(&headers).is_err_and(|refused| refused.detail().contains("gzip")));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("identity"));
        assert!(format(&headers).is_ok());
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(format(&headers).is_err_and(|refused| refused.detail().contains("several")));
    }
}
