//! What goes wrong with a replication connection, and what to do about it.

use std::io;
use std::time::Duration;

use crate::postgres::{ConnectError, ConnectErrorClass, ServerError};

/// Why there is no stream, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// No session could be had.
    #[error("no replication connection")]
    Connect(#[from] ConnectError),
    /// The server reported an error.
    #[error("{}: {}", problem.primary(), error.message)]
    Server {
        /// What it means here.
        problem: Problem,
        /// What the server said.
        error: Box<ServerError>,
    },
    /// The server's settings do not allow logical decoding.
    #[error("wal_level is {found}, and logical replication needs logical")]
    WalLevel {
        /// The setting found.
        found: String,
    },
    /// The slot was not ready in time; what there was of it has been dropped.
    #[error("the slot {slot} was not ready within {}", humantime::format_duration(*limit))]
    SlotCreationTimedOut {
        /// The slot.
        slot: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A command was not answered in time.
    #[error("the server did not answer {command} within {}", humantime::format_duration(*limit))]
    NoAnswer {
        /// Which.
        command: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// Nothing came for too long, although the server was asked to answer.
    #[error("nothing was received for {}", humantime::format_duration(*limit))]
    Silent {
        /// `idle_limit`.
        limit: Duration,
    },
    /// The stream ended.
    #[error("the stream ended: {}", reason.text())]
    Closed {
        /// How.
        reason: CloseReason,
    },
    /// Reading or writing failed.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The server sent something that the protocol does not allow here.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

/// How a stream ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The server ended it in order: it is shutting down, or the timeline ended.
    Server,
    /// The connection was closed, as by a server that crashed.
    Connection,
}

impl CloseReason {
    fn text(self) -> &'static str {
        match self {
            Self::Server => "the server finished it",
            Self::Connection => "the connection was closed",
        }
    }
}

/// What an error of the server means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Somebody else streams from the slot; its process id, where the server told.
    SlotBusy {
        /// The walsender's.
        pid: Option<u32>,
    },
    /// There is no such slot.
    SlotMissing,
    /// The slot is there, but what it needs is gone (`wal_status = lost`, or invalidated).
    SlotLost,
    /// There is a slot of that name that is not ours: physical, another plugin's, or another database's.
    SlotForeign,
    /// A slot of that name is there already.
    SlotExists,
    /// A publication named at start does not exist.
    PublicationMissing,
    /// The role may not replicate.
    NotPermitted,
    /// `max_replication_slots` is used up.
    TooManySlots,
    /// `max_wal_senders` (or `max_connections`) is used up.
    TooManySenders,
    /// The server is starting, stopping, or this session was ended by an administrator.
    ShuttingDown,
    /// Anything else.
    Other,
}

impl Problem {
    fn primary(&self) -> &'static str {
        match self {
            Self::SlotBusy { .. } => "the replication slot is in use",
            Self::SlotMissing => "the replication slot does not exist",
            Self::SlotLost => "the replication slot is lost",
            Self::SlotForeign => "the replication slot is not ours",
            Self::SlotExists => "the replication slot exists already",
            Self::PublicationMissing => "the publication does not exist",
            Self::NotPermitted => "the login may not replicate",
            Self::TooManySlots => "there is no free replication slot",
            Self::TooManySenders => "there is no free walsender",
            Self::ShuttingDown => "the server is starting or stopping",
            Self::Other => "the server reported an error",
        }
    }
}

/// Where a command failed: SQLSTATEs alone are ambiguous, and messages may be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// `CREATE_REPLICATION_SLOT`.
    Create,
    /// Any other query.
    Query,
    /// `START_REPLICATION`, before the stream.
    Start,
    /// Within the stream.
    Stream,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Wait, connect again, go on.
    Retry,
    /// The slot's history is gone: make a new slot (dropping what is left of the old one), then compare everyone.
    RecreateSlot,
    /// Somebody must change something; retrying is harmless and will find out when they did.
    Configuration,
}

impl ReplicationError {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Connect(error) => match error.class() {
                ConnectErrorClass::Usage => Remedy::Configuration,
                ConnectErrorClass::Away => Remedy::Retry,
            },
            Self::Server { problem, .. } => match problem {
                Problem::SlotMissing | Problem::SlotLost => Remedy::RecreateSlot,
                Problem::SlotForeign
                | Problem::PublicationMissing
                | Problem::NotPermitted
                | Problem::TooManySlots => Remedy::Configuration,
                Problem::SlotBusy { .. }
                | Problem::SlotExists
                | Problem::TooManySenders
                | Problem::ShuttingDown
                | Problem::Other => Remedy::Retry,
            },
            Self::WalLevel { .. } => Remedy::Configuration,
            Self::SlotCreationTimedOut { .. }
            | Self::NoAnswer { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Io(_)
            | Self::Protocol(_) => Remedy::Retry,
        }
    }

    /// What happened, in one line.
    pub fn primary(&self) -> String {
        match self {
            Self::Connect(error) => error.primary(),
            other => other.to_string(),
        }
    }

    /// More about it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.detail(),
            Self::Server { error, .. } => error.detail.clone(),
            Self::Io(error) => Some(error.to_string()),
            Self::SlotCreationTimedOut { .. } => Some(
                "A logical slot starts only when every transaction that was open before it has ended."
                    .to_owned(),
            ),
            Self::WalLevel { .. }
            | Self::NoAnswer { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Protocol(_) => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Connect(error) => return error.hint(),
            Self::Server { problem, error } => return problem_hint(problem, error),
            Self::WalLevel { .. } => "Set wal_level = logical and restart PostgreSQL.",
            Self::SlotCreationTimedOut { .. } => {
                "Find the old ones in pg_stat_activity (order by xact_start) and pg_prepared_xacts, end them, try again."
            }
            Self::Silent { .. } => "Is there a firewall that forgets idle connections?",
            Self::NoAnswer { .. } | Self::Closed { .. } | Self::Io(_) | Self::Protocol(_) => return None,
        };
        Some(text.to_owned())
    }
}

fn problem_hint(problem: &Problem, error: &ServerError) -> Option<String> {
    let text = match problem {
        Problem::SlotBusy { pid: Some(pid) } => {
            return Some(format!(
                "Another instance reads it (process {pid} in pg_stat_replication); this one waits its turn."
            ));
        }
        Problem::SlotBusy { pid: None } => "Another instance reads it; this one waits its turn.",
        Problem::SlotMissing => "A new one is made, and everyone is compared.",
        Problem::SlotLost => {
            "It is replaced, and everyone is compared. Raise max_slot_wal_keep_size to keep WAL longer."
        }
        Problem::SlotForeign => "Choose another name in database.slot.",
        Problem::PublicationMissing => "Run benefits-sync setup, or correct database.publication.",
        Problem::NotPermitted => "alter role ... replication",
        Problem::TooManySlots => {
            "Raise max_replication_slots, or drop slots that nobody reads (pg_replication_slots)."
        }
        Problem::TooManySenders => "Raise max_wal_senders.",
        Problem::SlotExists | Problem::ShuttingDown | Problem::Other => return error.hint.clone(),
    };
    Some(text.to_owned())
}

/// What the server's error means, by SQLSTATE and phase. An error at start that may be the slot's is looked into
/// further (`slot::diagnose`).
pub(super) fn classify(error: ServerError, phase: Phase) -> ReplicationError {
    let problem = match (error.code.as_str(), phase) {
        ("55006", _) => Problem::SlotBusy { pid: trailing_number(&error.message) },
        ("42704", Phase::Start) => Problem::SlotMissing,
        ("42704", Phase::Stream) => Problem::PublicationMissing,
        // "requested WAL segment has already been removed"
        ("58P01", Phase::Start | Phase::Stream) => Problem::SlotLost,
        ("42710", Phase::Create) => Problem::SlotExists,
        ("42501" | "28000" | "28P01", _) => Problem::NotPermitted,
        ("53400", _) => Problem::TooManySlots,
        ("53300", _) => Problem::TooManySenders,
        ("57P01" | "57P02" | "57P03" | "57P05", _) => Problem::ShuttingDown,
        _ => Problem::Other,
    };
    ReplicationError::Server { problem, error: Box::new(error) }
}

/// `replication slot "a1" is active for PID 4711` gives 4711, in any language that keeps the number last.
fn trailing_number(message: &str) -> Option<u32> {
    let head = message.trim_end_matches(|c: char| c.is_ascii_digit());
    message.strip_prefix(head)?.parse().ok()
}
