//! `POST /api/v2/messages/batch` (contract 3) over HTTP: the request as a whole, and how its answers are sent.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures::stream::unfold;
use secrecy::ExposeSecret;

use super::super::batch::{Batch, BatchRefusal, Format, Spool, Wanted};
use super::super::parameters::{BodyType, Parameters};
use super::super::refusal::Refusal;
use super::super::{Ingest, token};
use super::documented::{self, CSV, NDJSON, OfBatch, RefusedBatch};
use super::{bearer, drain, envelope, refused};
use crate::message::MAX_BATCH_ID_CHARS;

/// What the query says of the batch itself.
struct Asked {
    is_streamed: bool,
    batch_id: Option<String>,
}

/// Send a batch of messages
///
/// Each line of the body is one message. The query holds defaults for every line. Answers begin after the whole body is
/// read. With `stream=1` they begin while the body is read.
#[utoipa::path(
    post,
    path = "/api/v2/messages/batch",
    operation_id = "sendBatch",
    params(OfBatch),
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
            ),
            examples(
                ("ndjson" = (summary = "Answers to the NDJSON example", value = json!(documented::NDJSON_ANSWERS))),
                ("csv" = (summary = "Answers to the CSV example", value = json!(documented::CSV_ANSWERS))),
            ),
        ),
        RefusedBatch,
    ),
)]
pub async fn batch(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    match wanted(&ingest, &head).await {
        Ok((wanted, is_streamed)) => answer(ingest, wanted, is_streamed, body).await,
        Err(refusal) => {
            drain(body).await;
            refused(refusal)
        }
    }
}

async fn wanted(ingest: &Ingest, head: &Parts) -> Result<(Wanted, bool), Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let format = format(&head.headers);
    let mut defaults = Parameters::read(query, BodyType::Form, b"")?;
    let token = token(&defaults, bearer(&head.headers).as_deref())?;
    let account = ingest.directory.account(token.expose_secret()).await?;
    let format = format.ok_or(Refusal::Malformed)?;
    if head.headers.contains_key("idempotency-key") {
        // It would seem to count: a batch is sent again under its `batch_id`.
        return Err(Refusal::InvalidParameter("Idempotency-Key"));
    }
    let asked = asked(query)?;
    defaults.forget_token();
    let is_named = asked.batch_id.is_some();
    let batch_id = asked.batch_id.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    Ok((Wanted { token, account, format, defaults, batch_id, is_named }, asked.is_streamed))
}

fn format(headers: &HeaderMap) -> Option<Format> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return None;
    }
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match content_type.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        NDJSON => Some(Format::Ndjson),
        CSV => Some(Format::Csv),
        _ => None,
    }
}

fn asked(query: &str) -> Result<Asked, Refusal> {
    let mut asked = Asked { is_streamed: false, batch_id: None };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("stream", "1") => asked.is_streamed = true,
            ("stream", "0" | "") => asked.is_streamed = false,
            ("stream", _) => return Err(Refusal::InvalidParameter("stream")),
            ("batch_id", id) => {
                let fits = (1..=MAX_BATCH_ID_CHARS).contains(&id.len());
                if !fits || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Refusal::InvalidParameter("batch_id"));
                }
                asked.batch_id = Some(id.to_owned());
            }
            _ => {}
        }
    }
    Ok(asked)
}

async fn answer(ingest: Arc<Ingest>, wanted: Wanted, is_streamed: bool, body: Body) -> Response {
    let batch_id = wanted.batch_id.clone();
    let mut body = body.into_data_stream();
    if is_streamed {
        return match Batch::open(ingest, wanted, body).await {
            Ok(batch) => {
                let answers = unfold(batch, |mut batch| async move { Some((batch.next().await?, batch)) });
                answered(&batch_id, Body::from_stream(answers))
            }
            Err(refusal) => refused_whole(refusal),
        };
    }
    let opened = Batch::open(ingest, wanted, &mut body).await;
    let spooled = match opened {
        Ok(batch) => spool(batch).await,
        Err(refusal) => Err(refusal),
    };
    match spooled {
        Ok((spooled, logged_before)) => {
            let mut response = answered(&batch_id, spooled);
            response.headers_mut().insert("batch-logged-before", HeaderValue::from(logged_before));
            response
        }
        Err(refusal) => {
            drain(Body::from_stream(body)).await;
            refused_whole(refusal)
        }
    }
}

/// Reads a batch to its end and then answers: its client may write everything before it reads. Says how many lines an
/// earlier sending had logged.
async fn spool<S, E>(mut batch: Batch<S>) -> Result<(Body, u64), BatchRefusal>
where
    S: futures::Stream<Item = Result<bytes::Bytes, E>> + Unpin,
{
    let mut spool = Spool::default();
    while let Some(answers) = batch.next().await {
        let answers = answers.map_err(|_| Refusal::Malformed)?;
        spool.push(&answers).await.map_err(unspooled)?;
    }
    let answers = Body::from_stream(spool.read_back().await.map_err(unspooled)?);
    Ok((answers, batch.logged_before()))
}

fn unspooled(error: std::io::Error) -> Refusal {
    tracing::error!(%error, "cannot write batch answers to a temporary file: caller receives 503; check the disk");
    Refusal::Unavailable
}

fn answered(batch_id: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    if let Ok(batch_id) = HeaderValue::from_str(batch_id) {
        headers.insert("batch-id", batch_id);
    }
    response
}

fn refused_whole(refusal: BatchRefusal) -> Response {
    match refusal {
        BatchRefusal::Refused(refusal) => refused(refusal),
        BatchRefusal::WrongColumn(name) => envelope(400, &format!("Invalid parameter: {name}"), 229, "", 0),
    }
}
