//! This process's reply queue: outcomes for its own waiters.
//!
//! The queue lives as long as the consuming connection, under a name chosen once, so that replies find it
//! again after a reconnect. The queue has a channel of its own: after a cut that the server has not noticed
//! yet, the name is still taken for up to two heartbeats, and jobs must not wait for that.

use std::time::Duration;

use futures::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::connection::{Link, SessionError};
use super::topology;
use crate::domain::Reply;

const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Longest body of a reply, far above the program's own: another program with the right to write to the queue could
/// otherwise fill the memory with waiting replies.
const LONGEST_REPLY: usize = 64 * 1024;

/// Why a body is no reply.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableReply {
    #[error("its body of {0} bytes is longer than any reply")]
    TooLong(usize),
    #[error("its body cannot be read: {0}")]
    Body(#[from] serde_json::Error),
}

pub fn read_reply(body: &[u8]) -> Result<Reply, UnreadableReply> {
    match body.len() {
        length if length > LONGEST_REPLY => Err(UnreadableReply::TooLong(length)),
        _ => Ok(serde_json::from_slice(body)?),
    }
}

/// The consumer of the reply queue.
pub(super) struct ReplyListener {
    pub(super) queue: String,
    pub(super) replies: mpsc::Sender<Reply>,
}

impl ReplyListener {
    /// Listen as long as the connection lasts; return the reason of its end.
    pub(super) async fn listen(&self, link: &Link) -> SessionError {
        loop {
            let Err(error) = self.listen_once(link).await;
            if !link.is_open() {
                return error;
            }
            tracing::warn!(%error, "reply queue interrupted: waiters read the log; retrying");
            sleep(TRY_AGAIN_AFTER).await;
        }
    }

    async fn listen_once(&self, link: &Link) -> Result<std::convert::Infallible, SessionError> {
        let channel = link.channel().await?;
        let setup = async {
            topology::declare_reply_queue(&channel, self.queue.as_str().into()).await?;
            let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..Default::default() };
            channel.basic_consume(self.queue.as_str().into(), "".into(), options, FieldTable::default()).await
        };
        let mut incoming =
            timeout(SETUP_TIMEOUT, setup).await.map_err(|_| SessionError::Timeout("the reply queue"))??;
        while let Some(message) = incoming.next().await {
            match read_reply(&message?.data) {
                // The channel is full or given up: the waiter finds the outcome in the log.
                Ok(reply) => drop(self.replies.try_send(reply)),
                Err(error) => tracing::warn!(%error, "unreadable reply dropped: the waiter reads the log"),
            }
        }
        Err(SessionError::ConsumerEnded(self.queue.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Outcome, RowId};

    #[test]
    fn bytes_of_a_reply_are_bounded() {
        let reply = Reply { ticket: "r1".into(), outcome: Outcome::queued(RowId(7)) };
        let mut body = serde_json::to_vec(&reply).expect("plain data");
        assert_eq!(read_reply(&body).ok(), Some(reply));
        body.resize(LONGEST_REPLY, b' ');
        assert!(read_reply(&body).is_ok());
        body.push(b' ');
        assert!(matches!(read_reply(&body), Err(UnreadableReply::TooLong(_))));
        assert!(matches!(read_reply(b"{}"), Err(UnreadableReply::Body(_))));
    }
}
