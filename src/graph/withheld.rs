//! A request body that checks, just before it is written, whether the call may still begin.
//!
//! Between the decision to send and the first byte lie a free connection, a look-up and a handshake, and a
//! process can be frozen anywhere. hyper takes the body when head and body are about to go to the connection
//! together, so that a refusal here leaves no byte written. The moment from here to the socket remains
//! unguarded: Graph knows no fence.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The call was not made: the process lost the right to send before the request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld;

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was withheld")
    }
}

impl Error for Withheld {}

/// The bytes, which are handed out only if `may_begin` agrees at that moment.
pub(super) struct GuardedBody<F> {
    pub(super) bytes: Option<Bytes>,
    pub(super) may_begin: F,
}

impl<F: Fn() -> bool + Unpin> Body for GuardedBody<F> {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        let body = self.get_mut();
        if body.bytes.is_some() && !(body.may_begin)() {
            return Poll::Ready(Some(Err(Withheld)));
        }
        Poll::Ready(body.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
