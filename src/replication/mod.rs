//! The replication connection: a logical slot's changes, as they come, and the confirmations that go back.
//!
//! ```text
//!   Connection::connect                startup with replication=database, authentication, ReadyForQuery
//!        │
//!        ▼                             CREATE_REPLICATION_SLOT (bounded; cancelled and cleared away when too slow)
//!   Connection ── simple queries ────▶ IDENTIFY_SYSTEM, SHOW ...
//!        │
//!        │ start(StartOptions)         START_REPLICATION SLOT "s" LOGICAL X/X (...)
//!        ▼
//!   CopyBoth  ┌── Stream (read half) ─────────── 'w' data, 'k' keepalive, notices ──▶ the caller, one frame at a time
//!             │        │ received LSN, "reply asked for"
//!             │        ▼
//!             └── status task (write half) ◀──── confirmed LSN (watch) ◀── the ledger
//!        │
//!        │ close(): last status, CopyDone ──▶ CommandComplete        error, silence, end of file ──▶ ReplicationError
//!        ▼
//!     (gone)
//! ```
//!
//! The LSNs, and what each may be trusted for:
//! - **start** in [`StartOptions`]: where we would go on. The server takes the slot's own confirmed position when that is
//!   later, so [`Lsn::ZERO`](crate::lsn::Lsn::ZERO) means "where the slot is".
//! - **`wal_start`** of a data frame: the position of the change it carries. It does not rise within a transaction's
//!   chunks as positions of *other* transactions do; it says nothing about what is complete.
//! - **`wal_end`** of a data frame: how far the server has read when it sent it. Not a position to confirm.
//! - **`wal_end`** of a keepalive: everything before it has been decoded and sent. Outside a transaction, and with
//!   nothing received that is not yet durable, it may be confirmed; without that an idle slot pins WAL for ever, and a
//!   fast shutdown of the server never ends.
//! - **received**: the greatest of these. Reported as "write"; only statistics use it.
//! - **confirmed**: what the ledger made durable, a commit's `end_lsn` or such a keepalive. Reported as "flush" and
//!   "apply"; the slot moves there and forgets what was before. It must never run ahead of the ledger.
//!
//! The status task answers whatever the rest of the program does: on a timer below the server's `wal_sender_timeout`,
//! at once when a keepalive asks, and soon after the confirmed LSN moved. The reader has a watchdog for the opposite
//! case, a server that has silently gone: the kernel notices nothing when packets are dropped.
//!
//! Protocol: <https://www.postgresql.org/docs/current/protocol-replication.html>.

mod connection;
mod error;
mod frames;
mod handshake;
mod slot;
mod status;
mod stream;

pub use connection::{Connection, Row, StartOptions, SystemIdentity};
pub use error::{CloseReason, Problem, Remedy, ReplicationError};
pub use slot::{Canceller, CreatedSlot};
pub use stream::{Frame, Stream};

#[cfg(test)]
mod tests;
