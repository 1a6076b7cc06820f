//! Status updates: what goes back to the server while the stream runs.
//!
//! A task of its own, with the connection's write half, so that the server is answered whatever the reader is doing: a
//! pipeline that is stopped by back-pressure must not be taken for dead (`wal_sender_timeout`), nor may its
//! confirmations wait for it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lsn::Lsn;
use crate::pgoutput::Timestamp;

/// Confirmations that come in quick succession share an update.
const CONFIRM_SPACING: Duration = Duration::from_millis(50);
/// No timer runs faster than this, whatever the server's timeout.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// `CopyData` around a status: tag, length, payload.
const STATUS_LENGTH: usize = 5 + 34;
const COPY_DONE: [u8; 5] = [b'c', 0, 0, 0, 4];

/// When to write, and when to worry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// Longest time between updates.
    pub(super) interval: Duration,
    /// Silence after which the connection is given up.
    pub(super) idle_limit: Duration,
}

impl Timing {
    /// The server gives up a client that is silent for `wal_sender_timeout`, and asks for an answer at half of it: at
    /// most a third keeps clear of both. And a quarter of our own limit, so that the question put to a silent server
    /// at half of it is not late.
    pub(super) fn new(wanted: Duration, wal_sender_timeout: Option<Duration>, idle_limit: Duration) -> Self {
        let by_server = wal_sender_timeout.map_or(wanted, |timeout| timeout / 3);
        let interval = wanted.min(by_server).min(idle_limit / 4).max(SHORTEST_INTERVAL);
        Self { interval, idle_limit }
    }
}

/// What the reader tells the status task.
#[derive(Debug)]
pub(super) struct Progress {
    /// The greatest LSN received.
    received: AtomicU64,
    /// When something was received last, in milliseconds since `started`.
    heard_at_ms: AtomicU64,
    started: Instant,
    /// A keepalive asked for an answer.
    reply_wanted: Notify,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            received: AtomicU64::new(0),
            heard_at_ms: AtomicU64::new(0),
            started: Instant::now(),
            reply_wanted: Notify::new(),
        }
    }

    /// Bytes arrived.
    pub(super) fn heard(&self) {
        self.heard_at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// A frame at this position was handed out.
    pub(super) fn received(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// The server wants an answer now.
    pub(super) fn reply_wanted(&self) {
        self.reply_wanted.notify_one();
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.heard_at_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The task's inputs.
pub(super) struct StatusTask<W> {
    pub(super) writer: W,
    pub(super) progress: std::sync::Arc<Progress>,
    pub(super) confirmed: watch::Receiver<Lsn>,
    pub(super) timing: Timing,
    /// Cancelled for an orderly end: one more status, `CopyDone`.
    pub(super) close: CancellationToken,
}

impl<W: AsyncWrite + Unpin> StatusTask<W> {
    /// Writes updates until closed; gives the write half back then. Fails when the connection does.
    pub(super) async fn run(mut self) -> io::Result<W> {
        let mut sent_flush = self.send().await?;
        let mut sent_at = Instant::now();
        let mut may_change = true;
        loop {
            let behind = *self.confirmed.borrow_and_update() > sent_flush;
            let due = sent_at + if behind { CONFIRM_SPACING } else { self.timing.interval };
            tokio::select! {
                biased;
                () = self.close.cancelled() => {
                    self.send().await?;
                    self.writer.write_all(&COPY_DONE).await?;
                    self.writer.flush().await?;
                    return Ok(self.writer);
                }
                () = self.progress.reply_wanted.notified() => {}
                changed = self.confirmed.changed(), if may_change => {
                    // Without a sender the last value stays; the timer goes on.
                    may_change = changed.is_ok();
                    continue;
                }
                () = sleep_until(due) => {}
            }
            sent_flush = self.send().await?;
            sent_at = Instant::now();
        }
    }

    /// One update; gives the confirmed LSN it carried.
    async fn send(&mut self) -> io::Result<Lsn> {
        let confirmed = *self.confirmed.borrow();
        let received = Lsn(self.progress.received.load(Ordering::Relaxed)).max(confirmed);
        let ask = self.progress.silence() >= self.timing.idle_limit / 2;
        let update = status_update(received, confirmed, server_clock(SystemTime::now()), ask);
        self.writer.write_all(&update).await?;
        self.writer.flush().await?;
        if confirmed > Lsn::ZERO {
            crate::failpoint::hit("lsn-confirmed").await.map_err(io::Error::other)?;
        }
        Ok(confirmed)
    }
}

/// `CopyData` with a standby status update: 'r', write, flush and apply positions, our clock, "please answer".
pub(super) fn status_update(
    received: Lsn,
    confirmed: Lsn,
    clock: Timestamp,
    ask: bool,
) -> [u8; STATUS_LENGTH] {
    let mut out = [0; STATUS_LENGTH];
    let fields: [&[u8]; 8] = [
        b"d",
        &38_u32.to_be_bytes(),
        b"r",
        &received.0.to_be_bytes(),
        &confirmed.0.to_be_bytes(),
        &confirmed.0.to_be_bytes(),
        &clock.0.to_be_bytes(),
        &[u8::from(ask)],
    ];
    for (slot, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
        *slot = *byte;
    }
    out
}

/// Our clock on the server's scale; the server only shows it (`reply_time`).
fn server_clock(now: SystemTime) -> Timestamp {
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
