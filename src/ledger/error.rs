//! What goes wrong with the ledger, and the one question that matters: try again, or tell somebody.

use tokio_postgres::error::{DbError, Error, SqlState};

/// What a ledger error calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// PostgreSQL is away or busy, or gave way to somebody: connect again and go on.
    Passing,
    /// The schema, a privilege or the site's description is not as it must be: a person has to act.
    Site,
    /// The values that were read make the statement fail: find the employee.
    Data,
}

/// A statement of ours failed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// PostgreSQL refused it or went away.
    #[error("{what}: {}", describe(.source))]
    Statement {
        /// What was being done.
        what: &'static str,
        /// The driver's error. Not shown as it is: its message may quote a value.
        source: Error,
    },
    /// The ledger holds something that this program cannot have written.
    #[error("the ledger is not as expected: {0}")]
    Unexpected(String),
    /// The server has not answered for longer than it lets a statement run.
    #[error("{what}: no answer for {} s", .limit.as_secs())]
    NoAnswer {
        /// What was being done.
        what: &'static str,
        /// How long was waited.
        limit: std::time::Duration,
    },
    /// A test has made it fail.
    #[error(transparent)]
    FailPoint(#[from] crate::failpoint::Tripped),
}

impl LedgerError {
    /// What it calls for.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Statement { source, .. } => trouble(source),
            Self::Unexpected(_) => Trouble::Site,
            Self::NoAnswer { .. } | Self::FailPoint(_) => Trouble::Passing,
        }
    }

    /// With the message and hint of what our own SQL raises, which quote nobody's values: for statements that call nothing of
    /// HR's.
    pub(crate) fn with_raised(&self) -> String {
        match self {
            Self::Statement { what, source } if is_raised(source) => {
                let raised = source.as_db_error().map(with_hint).unwrap_or_default();
                format!("{what}: {raised}")
            }
            _ => self.to_string(),
        }
    }

    /// Whether the statement ran for too long, or somebody ended it.
    pub(crate) fn was_cancelled(&self) -> bool {
        matches!(self, Self::Statement { source, .. } if source.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Whether PostgreSQL ended the statement in favour of another session's locks: a deadlock, or a wait that took too long.
    pub(crate) fn gave_way(&self) -> bool {
        let Self::Statement { source, .. } = self else { return false };
        source.code().is_some_and(|state| {
            [SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE].contains(state)
        })
    }
}

fn trouble(error: &Error) -> Trouble {
    let Some(state) = error.code() else { return Trouble::Passing };
    // A function of HR's under the record query raises what it likes, in whatever class it likes: it is about the record, and
    // nobody else's would be read if it counted as PostgreSQL's own trouble.
    if is_raised(error) {
        return Trouble::Data;
    }
    match state.code().get(..2) {
        // Connection, rollback (deadlock, serialization), resources, prerequisite state (lock timeout), operator.
        Some("08" | "40" | "53" | "55" | "57" | "58" | "XX" | "25") => Trouble::Passing,
        Some("42" | "3F" | "3D" | "28" | "0L" | "26") => Trouble::Site,
        // "row_security = off" meets a policy.
        _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => Trouble::Site,
        _ => Trouble::Data,
    }
}

fn is_raised(error: &Error) -> bool {
    error.as_db_error().and_then(|db| db.routine()) == Some("exec_stmt_raise")
}

/// A database error without personal values: PostgreSQL quotes the offending value in the messages of data errors.
pub(super) fn describe(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        // Not from the server: a closed connection, a timeout. The driver's text holds no value.
        return match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let state = db.code().code();
    match trouble(error) {
        Trouble::Data => format!("SQLSTATE {state} (the message is not shown: it may quote a value)"),
        Trouble::Passing | Trouble::Site => with_hint(db),
    }
}

fn with_hint(db: &DbError) -> String {
    let (state, message) = (db.code().code(), db.message());
    match db.hint() {
        Some(hint) => format!("SQLSTATE {state}: {message} ({hint})"),
        None => format!("SQLSTATE {state}: {message}"),
    }
}

/// Attaches what was being done.
pub(super) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, LedgerError>;
}

impl<T> Doing<T> for Result<T, Error> {
    fn doing(self, what: &'static str) -> Result<T, LedgerError> {
        self.map_err(|source| LedgerError::Statement { what, source })
    }
}
