//! The stream of a slot's changes, frame by frame.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use postgres_protocol::message::backend::Message;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{CloseReason, Phase, ReplicationError, classify};
use super::frames::{Frames, Head};
use super::handshake::parse;
use super::status::{Progress, StatusTask, Timing};
use crate::lsn::Lsn;
use crate::pgoutput::Timestamp;
use crate::postgres::{ServerError, Wire};

const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// What the server sent. Data is borrowed from the connection's buffer until the next frame is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A pgoutput message.
    Data {
        /// The position of the change.
        wal_start: Lsn,
        /// How far the server had read; not to be confirmed.
        wal_end: Lsn,
        /// When it was sent, by the server's clock.
        server_clock: Timestamp,
        /// The message, for [`pgoutput::decode`](crate::pgoutput::decode).
        payload: &'a [u8],
    },
    /// "Still here." Answers are sent without the caller's doing.
    Keepalive {
        /// Everything before it has been sent.
        wal_end: Lsn,
        /// Whether the server asked for an answer.
        reply_requested: bool,
    },
    /// A notice or warning. From version 18 on a missing publication is one: changes are skipped then.
    Notice {
        /// `WARNING`, `NOTICE`, ...
        severity: String,
        /// The SQLSTATE.
        code: String,
        /// The text, in the server's language.
        message: String,
    },
}

type Writer = WriteHalf<Wire>;

/// A running stream. Dropping it closes the connection at once; [`Stream::close`] takes leave.
pub struct Stream {
    frames: Frames<ReadHalf<Wire>>,
    progress: Arc<Progress>,
    /// The task that has the write half; `None` once it has ended.
    status: Option<JoinHandle<Option<io::Result<Writer>>>>,
    close: CancellationToken,
    _stop_status_on_drop: DropGuard,
    idle_limit: Duration,
    /// Since when the reader has been waiting for a byte, over cancelled waits too.
    waiting_since: Option<Instant>,
}

impl Stream {
    pub(super) fn new(
        frames: Frames<ReadHalf<Wire>>,
        writer: Writer,
        confirmed: watch::Receiver<Lsn>,
        timing: Timing,
    ) -> Self {
        let progress = Arc::new(Progress::new());
        let close = CancellationToken::new();
        let stop = CancellationToken::new();
        let task =
            StatusTask { writer, progress: Arc::clone(&progress), confirmed, timing, close: close.clone() };
        let guard = stop.clone().drop_guard();
        let status = tokio::spawn(async move { stop.run_until_cancelled(task.run()).await });
        Self {
            frames,
            progress,
            status: Some(status),
            close,
            _stop_status_on_drop: guard,
            idle_limit: timing.idle_limit,
            waiting_since: None,
        }
    }

    /// The next frame. Cancel-safe: a frame is lost only when it has been returned.
    pub async fn next(&mut self) -> Result<Frame<'_>, ReplicationError> {
        loop {
            if let Some(head) = self.peek()? {
                return self.frame(head);
            }
            self.fill().await?;
        }
    }

    /// The next frame if it has been read already. Lets the caller drain what is there before it waits.
    pub fn try_next(&mut self) -> Result<Option<Frame<'_>>, ReplicationError> {
        match self.peek()? {
            Some(head) => self.frame(head).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a whole frame has been read already. Gives up the frame handed out last.
    pub fn buffered(&mut self) -> bool {
        // An error is reported by the next call that can.
        matches!(self.peek(), Ok(Some(_)))
    }

    /// Takes leave: a last status update with what is confirmed now, `CopyDone`, and the server's answer, for which it
    /// may first have to finish sending what it is at. After `limit` the connection is closed without it.
    pub async fn close(mut self, limit: Duration) -> Result<(), ReplicationError> {
        self.close.cancel();
        timeout(limit, self.finish())
            .await
            .unwrap_or(Err(ReplicationError::NoAnswer { command: "CopyDone", limit }))
    }

    async fn finish(&mut self) -> Result<(), ReplicationError> {
        let mut writer = None;
        loop {
            tokio::select! {
                head = self.frames.next() => {
                    let head = head?;
                    let body = self.frames.take(head);
                    match head.tag {
                        b'C' => break,
                        b'E' => return Err(server_error(head.tag, body)),
                        _ => {}
                    }
                }
                ended = joined(&mut self.status) => writer = Some(ended?),
            }
        }
        if let Some(mut writer) = writer {
            writer.write_all(&TERMINATE).await?;
            writer.flush().await?;
        }
        Ok(())
    }

    /// The next whole message that is for the caller; parameters and notifications are passed over.
    fn peek(&mut self) -> Result<Option<Head>, ReplicationError> {
        while let Some(head) = self.frames.peek()? {
            if !matches!(head.tag, b'S' | b'A') {
                return Ok(Some(head));
            }
            self.frames.take(head);
        }
        Ok(None)
    }

    /// Waits for bytes, for the status task's failure, or for too long.
    async fn fill(&mut self) -> Result<(), ReplicationError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let expired = tokio::select! {
            biased;
            // First: what has arrived counts, however late it is asked for.
            read = self.frames.fill() => {
                read?;
                false
            }
            ended = joined(&mut self.status) => {
                ended?;
                return Err(ReplicationError::Closed { reason: CloseReason::Connection });
            }
            () = sleep_until(since + self.idle_limit) => true,
        };
        if expired {
            // After a long pause of the whole process bytes may lie in the kernel that the runtime does not know of
            // yet: it gets the chance to look before the server is declared dead.
            tokio::task::yield_now().await;
            match self.frames.fill().now_or_never() {
                Some(read) => read?,
                None => return Err(ReplicationError::Silent { limit: self.idle_limit }),
            }
        }
        self.waiting_since = None;
        self.progress.heard();
        Ok(())
    }

    fn frame(&mut self, head: Head) -> Result<Frame<'_>, ReplicationError> {
        let body = self.frames.take(head);
        match head.tag {
            b'd' => {
                let frame = copy_data(body)?;
                match frame {
                    Frame::Data { wal_start, .. } => self.progress.received(wal_start),
                    Frame::Keepalive { wal_end, reply_requested } => {
                        self.progress.received(wal_end);
                        if reply_requested {
                            self.progress.reply_wanted();
                        }
                    }
                    Frame::Notice { .. } => {}
                }
                Ok(frame)
            }
            b'N' => match parse(head.tag, body)? {
                Message::NoticeResponse(notice) => {
                    let notice = ServerError::from_fields(notice.fields());
                    Ok(Frame::Notice {
                        severity: notice.severity,
                        code: notice.code,
                        message: notice.message,
                    })
                }
                _ => Err(ReplicationError::Protocol("a notice that is none".to_owned())),
            },
            b'E' => Err(server_error(head.tag, body)),
            // A server that shuts down in order, once everything is confirmed, ends with CommandComplete.
            b'c' | b'C' | b'Z' => Err(ReplicationError::Closed { reason: CloseReason::Server }),
            tag => {
                Err(ReplicationError::Protocol(format!("message {:?} within the stream", char::from(tag))))
            }
        }
    }
}

/// Waits for the status task to end; for ever once it has.
async fn joined(
    status: &mut Option<JoinHandle<Option<io::Result<Writer>>>>,
) -> Result<Writer, ReplicationError> {
    let ended: Result<_, JoinError> = match status {
        Some(task) => task.await,
        None => std::future::pending().await,
    };
    *status = None;
    match ended {
        Ok(Some(Ok(writer))) => Ok(writer),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err(ReplicationError::Closed { reason: CloseReason::Connection }),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

fn server_error(tag: u8, body: &[u8]) -> ReplicationError {
    match parse(tag, body) {
        Ok(Message::ErrorResponse(error)) => {
            classify(ServerError::from_fields(error.fields()), Phase::Stream)
        }
        Ok(_) => ReplicationError::Protocol("an error that is none".to_owned()),
        Err(error) => error,
    }
}

/// `XLogData` ('w': start, end, clock, payload) or a primary keepalive ('k': end, clock, reply).
fn copy_data(body: &[u8]) -> Result<Frame<'_>, ReplicationError> {
    let malformed = || ReplicationError::Protocol("a malformed replication message".to_owned());
    let (tag, rest) = body.split_first().ok_or_else(malformed)?;
    let (first, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (second, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    match tag {
        b'w' => {
            let (clock, payload) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
            Ok(Frame::Data {
                wal_start: Lsn(u64::from_be_bytes(*first)),
                wal_end: Lsn(u64::from_be_bytes(*second)),
                server_clock: Timestamp(i64::from_be_bytes(*clock)),
                payload,
            })
        }
        b'k' => match rest {
            [reply] => Ok(Frame::Keepalive {
                wal_end: Lsn(u64::from_be_bytes(*first)),
                reply_requested: *reply == 1,
            }),
            _ => Err(malformed()),
        },
        _ => Err(malformed()),
    }
}
