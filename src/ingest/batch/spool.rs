//! Answers that cannot be sent yet, because their batch is still being read: in memory while they are few,
//! then in a file without a name that vanishes with its last user.

use std::io;

use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Most bytes in memory.
const MAX_MEMORY_BYTES: usize = 256 * 1024;
const PIECE: usize = 64 * 1024;
/// Most bytes of answers for one batch: some twenty million lines. Refused lines can be much shorter than
/// their answers.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Default)]
pub struct Spool {
    tail: Vec<u8>,
    file: Option<File>,
    pushed: u64,
}

impl Spool {
    pub async fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pushed += bytes.len() as u64;
        if self.pushed > MAX_BYTES {
            return Err(io::Error::other(
                "more than 1 GiB of answers; send it in smaller batches, or with ?stream=1",
            ));
        }
        self.tail.extend_from_slice(bytes);
        if self.tail.len() < MAX_MEMORY_BYTES {
            return Ok(());
        }
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
    pub async fn read_back(mut self) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
        if let Some(file) = &mut self.file {
            file.flush().await?;
            file.rewind().await?;
        }
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

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn spool_is_bounded_in_bytes() {
        let mut spool = Spool { pushed: MAX_BYTES - 5, ..Spool::default() };
        spool.push(b"12345").await.expect("it fits");
        assert!(spool.push(b"6").await.is_err());
    }

    #[tokio::test]
    async fn memory_and_file_are_read_back_in_order() {
        for lines in [0, 3, 60_000] {
            let mut spool = Spool::default();
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
