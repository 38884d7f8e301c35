//! The body of a batch as it arrives.

use bytes::Bytes;
use tokio::time::error::Elapsed;

/// The next piece of a body.
pub enum BodyFrame {
    Data(Bytes),
    /// The body is complete.
    End,
    /// The connection broke.
    Broken,
    /// No data arrived in time.
    TimedOut,
}

impl BodyFrame {
    pub fn of<E>(frame: Result<Option<Result<Bytes, E>>, Elapsed>) -> BodyFrame {
        match frame {
            Ok(Some(Ok(bytes))) => BodyFrame::Data(bytes),
            Ok(None) => BodyFrame::End,
            Ok(Some(Err(_))) => BodyFrame::Broken,
            Err(_) => BodyFrame::TimedOut,
        }
    }
}
