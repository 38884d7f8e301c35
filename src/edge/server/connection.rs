//! The phase of a connection, by which its place is judged, and the bodies that report the phase.
//!
//! A connection waits for its client while a head or a body is incomplete, and works from there to the last byte
//! of the answer. Never here: the decision to take a connection away.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Notify;

/// The connection waits for a request's head, or the rest of it.
const HEAD: u8 = 0;
/// The head is there, and the connection waits for the rest of the body.
const BODY: u8 = 1;
/// The answer is made, or written.
const ANSWER: u8 = 2;

/// The state of one connection, shared by its task and its place.
#[derive(Debug, Default)]
pub struct ConnectionState {
    phase: AtomicU8,
    /// Bytes of an answer wait for the client to read.
    is_unread: AtomicBool,
    is_taken_away: AtomicBool,
    taken_away: Notify,
}

impl ConnectionState {
    /// Whether the connection waits for a head.
    pub fn waits_for_head(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == HEAD && !self.is_unread.load(Ordering::Relaxed)
    }

    /// Whether the connection waits for a head or the rest of a body: no request of it is being worked on.
    pub fn waits_for_client(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != ANSWER && !self.is_unread.load(Ordering::Relaxed)
    }

    /// Note whether bytes of an answer wait for the client to read.
    pub fn set_unread(&self, is_unread: bool) {
        self.is_unread.store(is_unread, Ordering::Relaxed);
    }

    /// Ask the connection's task to end: its place belongs to another one.
    pub fn take_away(&self) {
        self.is_taken_away.store(true, Ordering::Relaxed);
        self.taken_away.notify_one();
    }

    pub fn is_taken_away(&self) -> bool {
        self.is_taken_away.load(Ordering::Relaxed)
    }

    /// Wait until the connection is taken away.
    pub async fn taken_away(&self) {
        while !self.is_taken_away() {
            self.taken_away.notified().await;
        }
    }

    /// Note a request whose head is complete; it lasts until the result is dropped.
    pub fn begin_request(self: &Arc<Self>, has_body: bool) -> RequestInFlight {
        self.phase.store(if has_body { BODY } else { ANSWER }, Ordering::Relaxed);
        RequestInFlight { connection: self.clone() }
    }

    fn body_ended(&self) {
        // An answer may have begun before the end of the body, and the next request after it.
        let _is_other_phase =
            self.phase.compare_exchange(BODY, ANSWER, Ordering::Relaxed, Ordering::Relaxed).is_err();
    }
}

/// The phase of a request's connection: an extension of every request.
#[derive(Debug, Clone)]
pub struct ConnectionPhase(Arc<ConnectionState>);

impl ConnectionPhase {
    pub fn of(connection: &Arc<ConnectionState>) -> ConnectionPhase {
        ConnectionPhase(connection.clone())
    }

    /// Note that the request is worked on while its body arrives: its connection is not taken away for another one.
    pub fn begin_work(&self) {
        self.0.body_ended();
    }
}

/// A request, from its head to the last byte of its answer.
#[derive(Debug)]
pub struct RequestInFlight {
    connection: Arc<ConnectionState>,
}

impl RequestInFlight {
    /// Note that the answer begins, whether or not the body is complete.
    pub fn begin_answer(&self) {
        self.connection.phase.store(ANSWER, Ordering::Relaxed);
    }

    /// Return the request's body: its end is noted.
    pub fn arriving(&self, body: Incoming) -> ArrivingBody {
        ArrivingBody { body, connection: self.connection.clone() }
    }

    /// Return the answer's body: its end is the request's.
    pub fn answering(self, body: Body) -> AnswerBody {
        AnswerBody { body, _request: self }
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.connection.phase.store(HEAD, Ordering::Relaxed);
    }
}

/// The body of a request.
pub struct ArrivingBody {
    body: Incoming,
    connection: Arc<ConnectionState>,
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.connection.body_ended();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        // The rest of the body is of no use to anybody.
        self.connection.body_ended();
    }
}

/// The body of an answer.
pub struct AnswerBody {
    body: Body,
    _request: RequestInFlight,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn waits(connection: &ConnectionState) -> (bool, bool) {
        (connection.waits_for_head(), connection.waits_for_client())
    }

    #[test]
    fn request_with_a_body_is_worked_on_when_the_body_is_complete() {
        let connection = Arc::<ConnectionState>::default();
        assert_eq!(waits(&connection), (true, true));
        let request = connection.begin_request(true);
        assert_eq!(waits(&connection), (false, true));
        connection.body_ended();
        assert_eq!(waits(&connection), (false, false));
        drop(request);
        assert_eq!(waits(&connection), (true, true));
    }

    #[test]
    fn request_is_worked_on_before_the_end_of_its_body() {
        let connection = Arc::<ConnectionState>::default();
        let request = connection.begin_request(true);
        ConnectionPhase::of(&connection).begin_work();
        assert_eq!(waits(&connection), (false, false));
        drop(request);
        assert_eq!(waits(&connection), (true, true));
    }

    #[test]
    fn answer_may_begin_before_the_end_of_the_body() {
        let connection = Arc::<ConnectionState>::default();
        let request = connection.begin_request(true);
        request.begin_answer();
        assert_eq!(waits(&connection), (false, false));
        drop(request);
        connection.body_ended();
        assert_eq!(waits(&connection), (true, true));
    }

    #[test]
    fn answer_that_is_not_read_is_not_idle() {
        let connection = ConnectionState::default();
        connection.set_unread(true);
        assert_eq!(waits(&connection), (false, false));
        connection.set_unread(false);
        assert_eq!(waits(&connection), (true, true));
    }

    #[test]
    fn taken_away_is_seen_before_and_after() {
        let connection = ConnectionState::default();
        let mut told = Box::pin(connection.taken_away());
        assert!(told.as_mut().now_or_never().is_none());
        connection.take_away();
        assert!(told.now_or_never().is_some());
        assert!(connection.taken_away().now_or_never().is_some());
    }
}
