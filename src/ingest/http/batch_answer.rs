//! The answer of a batch: written while the body is read, or kept until the body has been read. Never here: the
//! check of the request.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;

use super::super::Ingest;
use super::super::batch::{Batch, BatchCounts, BatchRequest, Spool, SpoolError, body_cut, no_message};
use super::documented::NDJSON;
use super::least_rate::LeastRate;
use crate::edge::http::{drain, refused};
use crate::edge::{Refusal, Refused};

/// Answer a batch; each answer names it, so that it can be sent again.
pub async fn answer(ingest: Arc<Ingest>, request: BatchRequest, is_streamed: bool, body: Body) -> Response {
    let batch_id = request.batch_id.clone();
    let answered = match is_streamed {
        true => streamed(ingest, request, body).await,
        false => read_first(ingest, request, body).await,
    };
    let mut response = answered.unwrap_or_else(refused);
    if let Ok(batch_id) = HeaderValue::from_str(&batch_id) {
        response.headers_mut().insert("batch-id", batch_id);
    }
    response
}

/// Answer while the body is read.
async fn streamed(ingest: Arc<Ingest>, request: BatchRequest, body: Body) -> Result<Response, Refused> {
    if body.is_end_stream() {
        return Err(no_message());
    }
    let batch = opened(ingest, request, LeastRate::new(body.into_data_stream())).await?;
    let answers = unfold(batch, |mut batch| async move { Some((batch.next().await?, batch)) });
    Ok(in_lines(Body::from_stream(answers)))
}

/// Answer when the body has been read.
async fn read_first(ingest: Arc<Ingest>, request: BatchRequest, body: Body) -> Result<Response, Refused> {
    let (batch_id, spool) = (request.batch_id.clone(), Spool::new(ingest.spools.clone()));
    let mut body = LeastRate::new(body.into_data_stream());
    let spooled = match opened(ingest, request, &mut body).await {
        Ok(batch) => spooled(batch, spool, &batch_id).await,
        Err(reason) => Err(reason),
    };
    let (answers, counts) = match spooled {
        Ok(spooled) => spooled,
        Err(reason) => {
            drain(Body::from_stream(body)).await;
            return Err(reason);
        }
    };
    let mut response = in_lines(answers);
    let counts = [
        ("batch-logged-before", counts.logged_before),
        ("batch-duplicates", counts.duplicates),
        ("batch-not-utf8", counts.not_utf8),
    ];
    for (name, count) in counts {
        response.headers_mut().insert(name, HeaderValue::from(count));
    }
    Ok(response)
}

async fn opened<S, E>(ingest: Arc<Ingest>, request: BatchRequest, body: S) -> Result<Batch<S>, Refused>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let batch_id = request.batch_id.clone();
    Batch::open(ingest, request, body).await.map_err(|reason| match reason.refusal {
        Refusal::Unavailable => to_repeat(&reason, &batch_id),
        _ => reason,
    })
}

/// Read a batch to its end before the answer begins: its client may write everything before it reads. Return
/// the answers and the batch's counts.
async fn spooled<S, E>(
    mut batch: Batch<S>,
    mut spool: Spool,
    batch_id: &str,
) -> Result<(Body, BatchCounts), Refused>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    while let Some(answers) = batch.next().await {
        let answers = answers.map_err(|_| to_repeat(&body_cut(), batch_id))?;
        spool.push(&answers).await.map_err(|error| unspooled(&error, batch_id))?;
    }
    let counts = batch.counts();
    if counts.answered == 0 {
        return Err(no_message());
    }
    let answers = spool.read_back().await.map_err(|error| unspooled(&error, batch_id))?;
    Ok((Body::from_stream(answers), counts))
}

fn unspooled(error: &SpoolError, batch_id: &str) -> Refused {
    let reason = match error {
        SpoolError::File(_) => "no temporary file can be written",
        SpoolError::TooMany => "they are over 1 GiB",
        SpoolError::NoRoom(_) => "those of all batches are over `ingest.max_spool`",
    };
    tracing::error!(
        %error,
        "answers of a batch cannot be kept: caller receives 503; give the folder of TMPDIR room, or have the batch sent \
         with ?stream=1"
    );
    let detail = format!(
        "The answers cannot be kept until the batch is read, as {reason}: send it with `stream=1`, or in smaller parts."
    );
    to_repeat(&Refused::because(Refusal::Unavailable, detail), batch_id)
}

/// Return the refusal of a batch of which lines may be logged: it has to be sent again under its name.
fn to_repeat(reason: &Refused, batch_id: &str) -> Refused {
    let detail = format!(
        "{} Lines may be logged: name the batch with `batch_id={batch_id}` when you send it again, and none is logged \
         twice",
        reason.detail()
    );
    Refused::because(reason.refusal, detail)
}

fn in_lines(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(SpoolError::TooMany)]
    #[case(SpoolError::NoRoom(bytesize::ByteSize::gib(4)))]
    #[case(SpoolError::File(std::io::Error::other("/secret/path")))]
    fn unkept_answers_name_the_batch_and_a_remedy(#[case] error: SpoolError) {
        let refused = unspooled(&error, "spring-2");
        assert_eq!(refused.refusal, Refusal::Unavailable);
        let detail = refused.detail();
        assert!(detail.contains("`batch_id=spring-2`") && detail.contains("`stream=1`"), "{detail}");
        assert!(!detail.contains("/secret/path"), "{detail}");
    }
}
