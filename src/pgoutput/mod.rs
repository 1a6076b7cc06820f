//! The pgoutput messages: what a walsender puts into the copy stream, read without copying.
//!
//! Where it sits: `replication` hands over the payload of one `XLogData` frame, [`decode()`] says what it is, `selection`
//! decides whom it concerns. Nothing here does I/O, keeps state, or knows an HR table.
//!
//! ```text
//! protocol 1    B (R|Y|O|I|U|D|T|M)* C                          one whole transaction, at its commit
//! protocol 2+   S (R|Y|O|I|U|D|T|M)* E  ...  c | A              a large one in chunks, before its end is known
//! ```
//!
//! Between `S` (stream start) and `E` (stream stop) every R, Y, I, U, D, T and M carries the xid of the (sub)transaction
//! that wrote it; outside it does not. Nothing in a message tells the two apart, so the caller says which it is
//! (`in_stream`). `A` (stream abort) got 16 more bytes with `streaming 'parallel'` (protocol 4); its length tells.
//!
//! A tuple's framing is checked when its message is decoded, so iterating over it later cannot fail. Formats:
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>.

mod decode;
mod error;
mod message;
mod reader;
mod timestamp;
mod tuple;

pub use decode::decode;
pub use error::{DecodeError, Fault};
pub use message::{
    Column, Decoded, DeletedTuple, Message, OldTuple, Relation, RelationIds, ReplicaIdentity,
    StreamAbortPosition,
};
pub use timestamp::Timestamp;
pub use tuple::{Tuple, Value, Values};

#[cfg(test)]
mod tests;
