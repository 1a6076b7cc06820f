//! What a row change does to memberships and to the ownership of rows.
//!
//! To mark somebody in vain is harmless, to enrol somebody in vain is not, and neither is to forget whose a row is. A
//! streamed transaction shows the work of subtransactions that roll back later; so these deeds wait there for the
//! transaction's end, each under its subtransaction's id, and those of a subtransaction that rolled back are left out.
//! Outside of streaming PostgreSQL sends nothing that was rolled back, and they are done at once.

use std::collections::HashSet;

use super::description::SourceId;
use super::hash::{KeyHash, KeyMap};
use super::touches::Touches;

/// Rows that changed hands and people who came or went in one streamed transaction, beyond which all are read again.
const DEEDS_MAX: usize = 200_000;

/// One such thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// An employee was inserted into the root table.
    Hired(Box<str>),
    /// An employee was deleted from it.
    Gone(Box<str>),
    /// A starter flag, as it is now.
    Flag { employee: KeyHash, id: Box<str>, up: bool },
    /// A command about an employee.
    Requested { request: i64, employee: KeyHash, id: Box<str> },
    /// A child row belongs to a synced employee now.
    Owned { row: KeyHash, source: SourceId, key: Box<str>, employee: Box<str> },
    /// A child row belongs to no synced employee any more.
    Orphaned { row: KeyHash, source: SourceId, key: Box<str> },
}

/// The deeds of a streamed transaction that is still open, in their order.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    log: Vec<(u32, Deed)>,
    /// The last flag of each employee, and whose it was: many rows that say the same again are one deed.
    flagged: KeyMap<(u32, bool)>,
    rolled_back: HashSet<u32>,
    /// Too many to keep.
    overflowed: bool,
}

impl Deeds {
    /// Notes a deed of the subtransaction `xid`.
    pub(super) fn note(&mut self, xid: u32, deed: Deed) {
        match &deed {
            // As many as there are people.
            Deed::Requested { .. } => {}
            Deed::Flag { employee, up, .. } => {
                let before = self.flagged.insert(*employee, (xid, *up));
                if before == Some((xid, *up)) {
                    return;
                }
            }
            _ if self.log.len() >= DEEDS_MAX => {
                self.overflowed = true;
                return;
            }
            _ => {}
        }
        self.log.push((xid, deed));
    }

    /// Whether the transaction has shown a starter flag of this employee.
    pub(super) fn has_flag_of(&self, employee: KeyHash) -> bool {
        self.flagged.contains_key(&employee)
    }

    /// The subtransaction rolled back. Nothing more comes from it.
    pub(super) fn roll_back(&mut self, xid: u32) {
        if !self.log.is_empty() {
            self.rolled_back.insert(xid);
        }
    }

    /// The transaction has committed: does what was not rolled back.
    pub(super) fn perform(self, touches: &mut Touches) {
        if self.overflowed {
            touches.read_owners_again();
            touches.roster = true;
        }
        for (xid, deed) in self.log {
            if !self.rolled_back.contains(&xid) {
                touches.perform(deed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::KeyHasher;

    #[test]
    fn a_flag_that_says_the_same_again_is_one_deed_and_the_last_that_stands_is_done() {
        let employee = KeyHasher::with_key([7; 16]).employee(b"1");
        let flag = |up| Deed::Flag { employee, id: "1".into(), up };
        let mut deeds = Deeds::default();
        for _ in 0..1_000 {
            deeds.note(50, flag(true));
        }
        assert_eq!(deeds.log.len(), 1);
        // A subtransaction that rolls back, and the same again after it.
        deeds.note(51, flag(false));
        deeds.note(50, flag(false));
        deeds.note(52, flag(true));
        deeds.roll_back(52);
        let mut touches = Touches::default();
        deeds.perform(&mut touches);
        assert_eq!(touches.take_flags().remove(&employee).map(|(_, up)| up), Some(false));
    }
}
