//! A request's body that asks, when it is to be written, whether it still may be.
//!
//! Between the decision to send and the first byte lie a free connection, a look-up, a handshake; and a process can be
//! frozen anywhere. hyper takes the body when head and body are about to go to the connection together, so a refusal
//! here leaves nothing written. What remains is the moment from here to the socket: Graph knows no fence.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The call was not made: when its request was about to be written, it was not to be any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld;

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request was withheld")
    }
}

impl Error for Withheld {}

/// The bytes, unless `may_begin` says no when they are asked for.
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
