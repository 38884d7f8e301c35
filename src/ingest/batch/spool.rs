//! Answers that cannot be sent yet, because their batch is still being read: in memory while they are few,
//! then in a file without a name that vanishes with its last user. The files of all batches have a bound
//! together.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use bytesize::ByteSize;
use futures::Stream;
use futures::stream::unfold;
use parking_lot::Mutex;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Most bytes in memory.
const MAX_MEMORY_BYTES: usize = 128 * 1024;
const PIECE: usize = 64 * 1024;
/// Most bytes of answers for one batch: some twenty million lines. Refused lines can be much shorter than
/// their answers.
const MAX_BYTES: u64 = 1 << 30;

/// The reasons why an answer cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the answers of one batch are over 1 GiB")]
    TooMany,
    #[error("the answers of all batches are over {0}, the setting ingest.max_spool")]
    NoRoom(ByteSize),
    #[error("a temporary file cannot be written ({0})")]
    File(#[from] io::Error),
}

/// The room on disk for the answers of all batches.
pub struct SpoolRoom {
    most: ByteSize,
    taken: Mutex<u64>,
}

impl SpoolRoom {
    pub fn new(most: ByteSize) -> Arc<SpoolRoom> {
        Arc::new(SpoolRoom { most, taken: Mutex::new(0) })
    }
}

/// The part of the room that one batch has taken; given back when dropped.
struct Share {
    room: Arc<SpoolRoom>,
    taken: u64,
}

impl Share {
    fn take(&mut self, bytes: u64) -> Result<(), SpoolError> {
        let mut taken = self.room.taken.lock();
        if taken.saturating_add(bytes) > self.room.most.as_u64() {
            return Err(SpoolError::NoRoom(self.room.most));
        }
        *taken += bytes;
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.room.taken.lock() -= self.taken;
    }
}

pub struct Spool {
    tail: Vec<u8>,
    file: Option<File>,
    pushed: u64,
    share: Share,
}

impl Spool {
    pub fn new(room: Arc<SpoolRoom>) -> Spool {
        Spool { tail: Vec::new(), file: None, pushed: 0, share: Share { room, taken: 0 } }
    }

    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.pushed += bytes.len() as u64;
        if self.pushed > MAX_BYTES {
            return Err(SpoolError::TooMany);
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() < MAX_MEMORY_BYTES {
            return Ok(());
        }
        self.share.take(self.tail.len() as u64)?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file =
                    tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(io::Error::other)??;
                self.file.insert(File::from_std(file))
            }
        };
        file.write_all(&self.tail).await?;
        self.tail.clear();
        Ok(())
    }

    /// Return all pushed bytes, in order.
    pub async fn read_back(
        mut self,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, SpoolError> {
        if let Some(file) = &mut self.file {
            file.flush().await?;
            file.rewind().await?;
        }
        // The answers wait for their reader without the room that their growth has left.
        self.tail.shrink_to_fit();
        Ok(unfold(self, |mut spool| async move {
            let piece = spool.piece().await;
            match piece {
                Ok(piece) if piece.is_empty() => None,
                piece => Some((piece, spool)),
            }
        }))
    }

    async fn piece(&mut self) -> io::Result<Bytes> {
        if let Some(file) = &mut self.file {
            let mut piece = vec![0; PIECE];
            let length = file.read(&mut piece).await?;
            if length > 0 {
                piece.truncate(length);
                return Ok(piece.into());
            }
            self.file = None;
        }
        Ok(std::mem::take(&mut self.tail).into())
    }
}

/// Try to write a temporary file, and tell where that is not possible: such a process answers small batches
/// alone, unless they are streamed.
pub async fn try_temporary_folder() {
    let tried = tokio::task::spawn_blocking(|| tempfile::tempfile()?.write_all(&[0]));
    if let Err(error) = tried.await.map_err(io::Error::other).flatten() {
        tracing::warn!(
            folder = %std::env::temp_dir().display(),
            %error,
            "temporary folder cannot be written: large batches are answered 503; name a writable folder in TMPDIR, \
             or send large batches with ?stream=1"
        );
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn spool(room: &Arc<SpoolRoom>) -> Spool {
        Spool::new(room.clone())
    }

    fn taken(room: &SpoolRoom) -> u64 {
        *room.taken.lock()
    }

    #[tokio::test]
    async fn spool_is_bounded_in_bytes() {
        let mut spool = spool(&SpoolRoom::new(ByteSize::gib(4)));
        spool.pushed = MAX_BYTES - 5;
        spool.push(b"12345").await.expect("it fits");
        assert!(matches!(spool.push(b"6").await, Err(SpoolError::TooMany)));
    }

    #[tokio::test]
    async fn all_spools_are_bounded_together() {
        let room = SpoolRoom::new(ByteSize::b(3 * MAX_MEMORY_BYTES as u64));
        let answers = vec![b'x'; MAX_MEMORY_BYTES];
        let (mut first, mut second) = (spool(&room), spool(&room));
        first.push(&answers).await.expect("there is room");
        second.push(&answers).await.expect("there is room");
        first.push(&answers).await.expect("there is room");
        assert!(matches!(second.push(&answers).await, Err(SpoolError::NoRoom(_))));
        spool(&room).push(b"a few answers").await.expect("memory has room");
        assert_eq!(taken(&room), 3 * MAX_MEMORY_BYTES as u64);
        drop(first.read_back().await.expect("it can be read"));
        assert_eq!(taken(&room), MAX_MEMORY_BYTES as u64);
        drop(second);
        assert_eq!(taken(&room), 0);
    }

    #[tokio::test]
    async fn memory_and_file_are_read_back_in_order() {
        let room = SpoolRoom::new(ByteSize::gib(4));
        for lines in [0, 3, 60_000] {
            let mut spool = spool(&room);
            let mut expected = Vec::new();
            for line in 0..lines {
                let line = format!("{{\"line\":{line}}}\n");
                spool.push(line.as_bytes()).await.expect("the spool takes it");
                expected.extend_from_slice(line.as_bytes());
            }
            let mut read = Vec::new();
            let mut pieces = Box::pin(spool.read_back().await.expect("it can be read"));
            while let Some(piece) = pieces.next().await {
                read.extend_from_slice(&piece.expect("it can be read"));
            }
            assert!(read == expected, "{lines} lines");
        }
    }
}
