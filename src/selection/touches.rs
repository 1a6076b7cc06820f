//! What one transaction touched: bounded by headcount, however many rows it wrote.

use std::collections::BTreeSet;

use super::description::SourceId;
use super::hash::{KeyHash, KeyMap};

/// Beyond this many hires in one transaction the roster is read again instead of being collected.
const HIRES_MAX: usize = 100_000;
/// Beyond this many rows of unknown owner, or changed lookup keys, everyone is compared instead.
const KEYS_MAX: usize = 100_000;

/// Why an employee is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A mapped column of a row of theirs changed, or they had failed and were saved again.
    Change,
    /// The starter flag is up.
    Starter,
}

/// The employees, and the things that lead to employees, which a transaction touched.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub struct Touches {
    employees: KeyMap<(Box<str>, Mark)>,
    /// Commands passed, by `benefits.request.request_id`.
    pub requests: Vec<i64>,
    /// Employees inserted into the root table.
    pub hired: Vec<Box<str>>,
    /// Employees deleted from it.
    pub gone: Vec<Box<str>>,
    /// Employees of the baseline whose starter flag went down.
    pub flag_lowered: Vec<Box<str>>,
    owned: KeyMap<(SourceId, Box<str>, Box<str>)>,
    /// Child rows that left a synced employee: deleted, or pointed at somebody else.
    pub orphaned: BTreeSet<(SourceId, Box<str>)>,
    /// Changed rows of lookup tables.
    pub lookups: BTreeSet<(SourceId, Box<str>)>,
    /// Everyone may be out of step (TRUNCATE, too many keys).
    pub everyone: bool,
    /// Which rows belong to whom must be read again (too many of them changed).
    pub owners: bool,
    /// The list of employees must be read again (TRUNCATE of the root table, a mass hire).
    pub roster: bool,
    /// Translations or levels changed.
    pub rules: bool,
    /// The site's description changed.
    pub description: bool,
}

impl Touches {
    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Marked employees with the reason, in no order.
    pub fn employees(&self) -> impl Iterator<Item = (&str, Mark)> {
        self.employees.values().map(|(id, mark)| (id.as_ref(), *mark))
    }

    /// Child rows (source, key) with the employee they belong to now.
    pub fn owned(&self) -> impl Iterator<Item = (SourceId, &str, &str)> {
        self.owned.values().map(|(source, row, employee)| (*source, row.as_ref(), employee.as_ref()))
    }

    /// Whether somebody was enrolled.
    pub fn enrols(&self) -> bool {
        !self.requests.is_empty() || self.employees().any(|(_, mark)| mark == Mark::Starter)
    }

    pub(super) fn own(&mut self, row: KeyHash, source: SourceId, key: &[u8], employee: &[u8]) {
        if self.owned.len() < KEYS_MAX {
            self.owned.insert(row, (source, text(key), text(employee)));
        } else {
            self.everyone = true;
            self.owners = true;
        }
    }

    pub(super) fn owns(&self, row: KeyHash) -> bool {
        self.owned.contains_key(&row)
    }

    pub(super) fn owned_rows(&self) -> impl Iterator<Item = KeyHash> {
        self.owned.keys().copied()
    }

    pub(super) fn mark(&mut self, employee: KeyHash, id: &[u8], mark: Mark) {
        match self.employees.get_mut(&employee) {
            Some((_, known)) => *known = (*known).max(mark),
            None => {
                self.employees.insert(employee, (text(id), mark));
            }
        }
    }

    pub(super) fn hire(&mut self, id: &[u8]) {
        if self.hired.len() < HIRES_MAX {
            self.hired.push(text(id));
        } else {
            self.roster = true;
        }
    }

    pub(super) fn orphan(&mut self, source: SourceId, row: &[u8]) {
        if self.orphaned.len() < KEYS_MAX {
            self.orphaned.insert((source, text(row)));
        } else {
            self.everyone = true;
        }
    }

    pub(super) fn lookup(&mut self, source: SourceId, key: &[u8]) {
        if self.lookups.len() < KEYS_MAX {
            self.lookups.insert((source, text(key)));
        } else {
            self.everyone = true;
        }
    }
}

/// PostgreSQL sends text in the client's encoding, which we set to UTF-8; anything else cannot be an id that we know.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into_owned().into_boxed_str()
}
