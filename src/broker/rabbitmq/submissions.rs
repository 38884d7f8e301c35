//! Deliveries read into submissions, as soon as they come.
//!
//! lapin holds whole deliveries in a channel without a bound. Deliveries are therefore read while a batch
//! waits for the database: of a body that is too long only the length is kept, however long the broker lets a
//! body be. Never here: whether a submission is accepted.

use std::convert::Infallible;
use std::future::pending;

use futures::{Stream, StreamExt};
use lapin::message::Delivery;
use lapin::types::{AMQPValue, ShortString};
use tokio::sync::mpsc;

use super::super::intake::{Submitted, TokenHeader};

/// A submission and its delivery tag, or the reason why there are no more.
pub(super) type ReadSubmission = lapin::Result<(u64, Submitted)>;

/// Read deliveries for ever. `submissions` has a place for each delivery that the broker makes before it
/// waits for acknowledgements: this function never waits for the receiver. The channel closes when there are
/// no more deliveries.
pub(super) async fn read_on(
    mut deliveries: impl Stream<Item = lapin::Result<Delivery>> + Unpin,
    longest_body: usize,
    submissions: mpsc::Sender<ReadSubmission>,
) -> Infallible {
    while let Some(delivery) = deliveries.next().await {
        let submission = delivery.map(|delivery| (delivery.delivery_tag, read(delivery, longest_body)));
        if submissions.send(submission).await.is_err() {
            break;
        }
    }
    drop(submissions);
    pending().await
}

/// Read a delivery; of a body that is longer only the length is kept.
pub fn read(delivery: Delivery, longest_body: usize) -> Submitted {
    let Delivery { delivery_tag, routing_key, redelivered, properties, data, .. } = delivery;
    let header = |name: &str| properties.headers().as_ref().and_then(|headers| headers.inner().get(name));
    let text = |text: &Option<ShortString>| {
        text.as_ref().map(|text| text.as_str().to_owned()).filter(|text| !text.is_empty())
    };
    Submitted {
        routing_key: routing_key.as_str().to_owned(),
        body_bytes: data.len(),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        user_id: text(properties.user_id()),
        tsid: token(header("tsid")),
        version: version(header("v")),
        redelivered,
        delivery_tag,
        body: if data.len() > longest_body { Vec::new() } else { data },
    }
}

fn token(header: Option<&AMQPValue>) -> TokenHeader {
    let bytes = match header {
        None | Some(AMQPValue::Void) => return TokenHeader::Absent,
        Some(AMQPValue::LongString(text)) => text.as_bytes(),
        Some(AMQPValue::ShortString(text)) => text.as_str().as_bytes(),
        Some(AMQPValue::ByteArray(bytes)) => bytes.as_slice(),
        Some(_) => return TokenHeader::WrongType,
    };
    match str::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => TokenHeader::Absent,
        Ok(text) => TokenHeader::Text(text.into()),
        Err(_) => TokenHeader::WrongType,
    }
}

fn version(header: Option<&AMQPValue>) -> i64 {
    match header {
        None | Some(AMQPValue::Void) => 1,
        Some(AMQPValue::ShortShortInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortShortUInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortInt(v)) => i64::from(*v),
        Some(AMQPValue::ShortUInt(v)) => i64::from(*v),
        Some(AMQPValue::LongInt(v)) => i64::from(*v),
        Some(AMQPValue::LongUInt(v)) => i64::from(*v),
        Some(AMQPValue::LongLongInt(v)) => *v,
        Some(AMQPValue::LongString(text)) => {
            str::from_utf8(text.as_bytes()).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        }
        Some(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;

    #[test]
    fn long_bodies_are_dropped_before_the_intake() {
        let deliver = |tag: u64| {
            let body = vec![b'x'; if tag.is_multiple_of(2) { 1_000_000 } else { 10 }];
            Ok(Delivery::mock(tag, "cdls.submit".into(), "messenger".into(), false, body))
        };
        let (submissions, mut read) = mpsc::channel(500);
        let reading = read_on(stream::iter((1..=500).map(deliver)), 10, submissions);
        assert!(reading.now_or_never().is_none(), "it goes on for ever");
        for tag in 1..=500 {
            let (delivered, submitted) = read.try_recv().expect("all were read").expect("a delivery");
            let length = if tag % 2 == 0 { (1_000_000, 0) } else { (10, 10) };
            assert_eq!(delivered, tag, "in order");
            assert_eq!((submitted.body_bytes, submitted.body.capacity()), length);
        }
        assert!(read.try_recv().is_err_and(|error| error == mpsc::error::TryRecvError::Disconnected));
    }
}
