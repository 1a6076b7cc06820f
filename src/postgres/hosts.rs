//! Going through several hosts until one will do.
//!
//! As libpq does: hosts are tried in order; one that cannot be reached or is of the wrong kind is passed over; a refusal
//! that another server would repeat (a wrong password) ends the search. `prefer-standby` goes through the list twice.

use std::vec;

use super::error::{ConnectError, ConnectErrorClass};
use super::target::{Endpoint, SessionAttributes, Target};

/// What a server is at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Role {
    /// `pg_is_in_recovery()`.
    pub(crate) in_recovery: bool,
    /// `transaction_read_only`.
    pub(crate) read_only: bool,
}

impl Role {
    /// Asks for both.
    pub(crate) const QUERY: &'static str =
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";

    /// From the query's answer in text form.
    pub(crate) fn from_text(in_recovery: Option<&str>, read_only: Option<&str>) -> Self {
        Self { in_recovery: in_recovery == Some("t"), read_only: read_only == Some("on") }
    }
}

/// One server to try.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Endpoint,
    wanted: SessionAttributes,
}

impl Candidate {
    /// Whether the server must be asked what it is.
    pub(crate) fn is_choosy(&self) -> bool {
        self.wanted != SessionAttributes::Any
    }

    /// Whether a server in this role will do.
    pub(crate) fn accepts(&self, role: Role) -> bool {
        match self.wanted {
            SessionAttributes::Any => true,
            SessionAttributes::ReadWrite => !role.in_recovery && !role.read_only,
            SessionAttributes::ReadOnly => role.in_recovery || role.read_only,
            SessionAttributes::Primary => !role.in_recovery,
            SessionAttributes::Standby | SessionAttributes::PreferStandby => role.in_recovery,
        }
    }
}

/// The search: candidates yet to try, and why the last one failed.
pub(crate) struct Search {
    candidates: vec::IntoIter<Candidate>,
    last_error: Option<ConnectError>,
    wanted: SessionAttributes,
}

impl Search {
    pub(crate) fn new(target: &Target) -> Self {
        let pass = |wanted: SessionAttributes| {
            target.endpoints.iter().cloned().map(move |endpoint| Candidate { endpoint, wanted })
        };
        let mut candidates: Vec<_> = pass(target.session).collect();
        if target.session == SessionAttributes::PreferStandby {
            candidates.extend(pass(SessionAttributes::Any));
        }
        Self { candidates: candidates.into_iter(), last_error: None, wanted: target.session }
    }

    pub(crate) fn next(&mut self) -> Option<Candidate> {
        self.candidates.next()
    }

    /// The candidate failed: go on, unless the next one would fail in the same way.
    pub(crate) fn failed(&mut self, error: ConnectError) -> Result<(), ConnectError> {
        if matches!(error, ConnectError::Refused { .. }) && error.class() == ConnectErrorClass::Usage {
            return Err(error);
        }
        self.last_error = Some(error);
        Ok(())
    }

    /// The candidate answered, but is of the wrong kind.
    pub(crate) fn unsuitable(&mut self) {
        self.last_error = Some(ConnectError::Unsuitable { wanted: self.wanted.name() });
    }

    /// Nobody will do: the last reason.
    pub(crate) fn into_error(self) -> ConnectError {
        self.last_error.unwrap_or(ConnectError::Unsuitable { wanted: self.wanted.name() })
    }
}
