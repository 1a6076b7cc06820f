//! Backend messages out of a byte stream, one at a time and in place.
//!
//! One buffer is read into, in large pieces, and messages are looked at where they lie: nothing is allocated or copied
//! for a message, and a read that is cancelled has lost nothing. The message handed out last is only given up when the
//! next is asked for.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

use super::error::{CloseReason, ReplicationError};

/// How much room a read gets. A walsender sends one message at a time; a reader that takes many at once is woken less.
const READ_CHUNK: usize = 256 * 1024;
/// A buffer that grew beyond this for one large message is given back after it.
const KEPT_CAPACITY: usize = 4 * READ_CHUNK;
/// PostgreSQL builds no message of more than 1 GiB (`MaxAllocSize`); a greater length is a broken stream.
const MAX_LENGTH: usize = 1024 * 1024 * 1024 + 64 * 1024;
/// A tag and a length.
const HEADER: usize = 5;

/// A message: its tag, and how long its body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: u8,
    total: usize,
}

/// The read side of a connection.
pub(super) struct Frames<R> {
    inner: R,
    buffer: BytesMut,
    /// Length of the message that was handed out last, still at the buffer's front.
    taken: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: BytesMut::new(), taken: 0 }
    }

    /// The next whole message in the buffer, without reading. It stays the next until `take`.
    pub(super) fn peek(&mut self) -> Result<Option<Head>, ReplicationError> {
        self.release();
        let Some((&[tag, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let total = total_length([a, b, c, d])?;
        Ok((self.buffer.len() >= total).then_some(Head { tag, total }))
    }

    /// Hands out a peeked message's body. It is valid until the next `peek`.
    pub(super) fn take(&mut self, head: Head) -> &[u8] {
        self.taken = head.total;
        self.buffer.get(HEADER..head.total).unwrap_or_default()
    }

    /// Reads once. Cancel-safe: bytes are either in the buffer or not read.
    pub(super) async fn fill(&mut self) -> Result<(), ReplicationError> {
        self.release();
        self.buffer.reserve(self.room_wanted()?);
        match self.inner.read_buf(&mut self.buffer).await? {
            0 => Err(ReplicationError::Closed { reason: CloseReason::Connection }),
            _ => Ok(()),
        }
    }

    /// The next message, read if need be.
    pub(super) async fn next(&mut self) -> Result<Head, ReplicationError> {
        loop {
            if let Some(head) = self.peek()? {
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// How many bytes are held, for tests and for the memory's sake.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    pub(super) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    fn room_wanted(&self) -> Result<usize, ReplicationError> {
        match self.buffer.split_first_chunk::<HEADER>() {
            // The rest of a large message and no more: to ask for more would double the buffer.
            Some((&[_, a, b, c, d], _)) => match total_length([a, b, c, d])? {
                total if total > READ_CHUNK => Ok(total.saturating_sub(self.buffer.len()).max(1)),
                _ => Ok(READ_CHUNK),
            },
            None => Ok(READ_CHUNK),
        }
    }

    fn release(&mut self) {
        if self.taken == 0 {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        self.buffer.advance(taken.min(self.buffer.len()));
        // A BytesMut never shrinks by itself: one 64 MB document would stay with us for ever.
        if taken > KEPT_CAPACITY && self.buffer.len() < READ_CHUNK {
            let mut small = BytesMut::with_capacity(READ_CHUNK);
            small.extend_from_slice(&self.buffer);
            self.buffer = small;
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Frames<T> {
    /// Parts reading from writing; what was read ahead stays with the reading side.
    pub(super) fn split(self) -> (Frames<ReadHalf<T>>, WriteHalf<T>) {
        let (reader, writer) = tokio::io::split(self.inner);
        (Frames { inner: reader, buffer: self.buffer, taken: self.taken }, writer)
    }
}

/// The message's length with its tag; the field counts itself but not the tag.
fn total_length(field: [u8; 4]) -> Result<usize, ReplicationError> {
    let length = usize::try_from(u32::from_be_bytes(field)).unwrap_or(usize::MAX);
    if (4..=MAX_LENGTH).contains(&length) {
        Ok(length + 1)
    } else {
        Err(ReplicationError::Protocol(format!("a message claims a length of {length} bytes")))
    }
}
