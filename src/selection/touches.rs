//! What one transaction touched: bounded by headcount, however many rows it wrote.

use std::collections::BTreeSet;

use super::deeds::Deed;
use super::description::SourceId;
use super::hash::{KeyHash, KeyMap};

/// Beyond this many hires or deletions in one transaction the roster is read again instead of being collected.
const ROSTER_MAX: usize = 100_000;
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
    /// Employees inserted into the root table, and still there at the end of the transaction.
    pub hired: BTreeSet<Box<str>>,
    /// Employees deleted from it.
    pub gone: BTreeSet<Box<str>>,
    /// Employees of the baseline whose starter flag went down.
    pub flag_lowered: BTreeSet<Box<str>>,
    /// Employees who were enrolled while this streamed transaction was open: what it wrote of theirs before was passed
    /// over, so that they are marked, and their rows have to be read again.
    pub newcomers: BTreeSet<Box<str>>,
    /// Employees whom commands name.
    requested: KeyMap<Box<str>>,
    /// Starter flags as the transaction leaves them, of employees who are not synced.
    flags: KeyMap<(Box<str>, bool)>,
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
    /// A row's key is not in the WAL as it is described: whom the row concerns, only a comparison of everyone tells.
    pub unkeyed: bool,
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

    /// Whether commands were passed and nothing else was touched.
    pub fn only_commands(&self) -> bool {
        *self == Self { requests: self.requests.clone(), ..Self::default() }
    }

    /// Marked employees with the reason, in no order.
    pub fn employees(&self) -> impl Iterator<Item = (&str, Mark)> {
        self.employees.values().map(|(id, mark)| (id.as_ref(), *mark))
    }

    /// Child rows (source, key) with the employee they belong to now.
    pub fn owned(&self) -> impl Iterator<Item = (SourceId, &str, &str)> {
        self.owned.values().map(|(source, row, employee)| (*source, row.as_ref(), employee.as_ref()))
    }

    /// Whether somebody was enrolled, here or while this was under way: their child rows have to be read.
    pub fn enrols(&self) -> bool {
        !self.requests.is_empty()
            || !self.newcomers.is_empty()
            || self.employees().any(|(_, mark)| mark == Mark::Starter)
    }

    /// Does it: the transaction has committed, and this part of it with it.
    pub(super) fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Hired(id) if self.hired.len() < ROSTER_MAX => {
                self.gone.remove(&id);
                self.hired.insert(id);
            }
            Deed::Gone(id) if self.gone.len() < ROSTER_MAX => {
                self.hired.remove(&id);
                self.gone.insert(id);
            }
            Deed::Hired(_) | Deed::Gone(_) => self.roster = true,
            Deed::Flag { employee, id, up } => {
                self.flags.insert(employee, (id, up));
            }
            Deed::Requested { request, employee, id } => {
                self.requests.push(request);
                self.requested.insert(employee, id);
            }
            Deed::Owned { row, source, key, employee } => {
                if self.owned.len() >= KEYS_MAX && !self.owned.contains_key(&row) {
                    self.read_owners_again();
                    return;
                }
                // Whom it left before that, in this transaction, is told by the ledger's `row_owner` as it was.
                let orphan = (source, key);
                self.orphaned.remove(&orphan);
                self.owned.insert(row, (source, orphan.1, employee));
            }
            Deed::Orphaned { row, source, key } => {
                self.owned.remove(&row);
                if self.orphaned.len() < KEYS_MAX {
                    self.orphaned.insert((source, key));
                } else {
                    self.everyone = true;
                }
            }
        }
    }

    /// Too many rows changed hands to be remembered one by one.
    pub(super) fn read_owners_again(&mut self) {
        self.everyone = true;
        self.owners = true;
    }

    /// Whether the transaction has shown a starter flag of this employee.
    pub(super) fn has_flag_of(&self, employee: KeyHash) -> bool {
        self.flags.contains_key(&employee)
    }

    /// The starter flags as the transaction leaves them; they are the caller's to judge.
    pub(super) fn take_flags(&mut self) -> KeyMap<(Box<str>, bool)> {
        std::mem::take(&mut self.flags)
    }

    /// Employees whom commands name.
    pub(super) fn take_requested(&mut self) -> KeyMap<Box<str>> {
        std::mem::take(&mut self.requested)
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
