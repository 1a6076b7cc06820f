//! Why a payload cannot be read. The caller adds the LSN; no byte of a row's value is ever part of an error.

use std::fmt;

/// A payload that is not a message of the protocol that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pgoutput message {}: {fault} at byte {offset}", Tag(*tag))]
pub struct DecodeError {
    /// The message's first byte; `None` for an empty payload.
    pub tag: Option<u8>,
    /// Where in the payload reading stopped.
    pub offset: usize,
    /// What was wrong there.
    pub fault: Fault,
}

/// What was wrong with a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no byte at all.
    #[error("the payload is empty")]
    Empty,
    /// The payload ends inside the named part.
    #[error("the payload ends inside {0}")]
    Truncated(&'static str),
    /// Bytes are left after the message's last part.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// The first byte names no message of any protocol version known here.
    #[error("the message type is unknown")]
    UnknownTag,
    /// A message of prepared transactions, which are only sent when `two_phase` was asked for.
    #[error("a two-phase message, which was not asked for (option two_phase)")]
    NotAskedFor,
    /// A name that is not UTF-8, although `client_encoding` is.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// A length or count below zero.
    #[error("{0} is negative")]
    Negative(&'static str),
    /// A discriminating byte that has no meaning.
    #[error("{what} has the unknown code {code}")]
    UnknownCode {
        /// Which part.
        what: &'static str,
        /// The byte found.
        code: u8,
    },
}

/// A tag as people read it: the letter where it is one.
struct Tag(Option<u8>);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(tag) if tag.is_ascii_graphic() => write!(f, "'{}'", char::from(tag)),
            Some(tag) => write!(f, "0x{tag:02x}"),
        }
    }
}
