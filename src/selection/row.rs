//! One row change: whom it touches, and whether it matters.

use super::binding::{Binding, Columns};
use super::deeds::{Deed, Deeds};
use super::hash::{KeyHash, KeyHasher};
use super::members::Members;
use super::rows::{RowCache, RowFilter};
use super::selector::Decisions;
use super::touches::{Mark, Touches, text};
use crate::pgoutput::{OldTuple, Tuple};

/// One row change in its transaction.
pub(super) struct Row<'s> {
    pub(super) binding: &'s Binding,
    pub(super) generation: u64,
    pub(super) touches: &'s mut Touches,
    /// In a streamed transaction, which may still abort: the subtransaction, and what waits for the end. What such a
    /// transaction shows is not remembered as seen.
    pub(super) chunk: Option<(u32, &'s mut Deeds)>,
    pub(super) hasher: &'s KeyHasher,
    pub(super) members: &'s mut Members,
    pub(super) cache: &'s mut RowCache,
    pub(super) filter: &'s RowFilter,
    pub(super) filter_is_complete: bool,
    pub(super) decisions: &'s mut Decisions,
    pub(super) scratch: &'s mut Vec<u8>,
}

impl Row<'_> {
    fn perform(&mut self, deed: Deed) {
        match &mut self.chunk {
            Some((xid, deeds)) => deeds.note(*xid, deed),
            None => self.touches.perform(deed),
        }
    }

    /// A command: its employee is a member once the transaction has committed.
    pub(super) fn requested(&mut self, columns: &Columns, new: Tuple<'_>) {
        let _ = columns.row_key(new, self.scratch);
        let request = std::str::from_utf8(self.scratch).ok().and_then(|id| id.parse().ok());
        if let (Some(request), Some(id)) = (request, columns.outline(new).employee) {
            let employee = self.hasher.employee(id);
            self.perform(Deed::Requested { request, employee, id: text(id) });
            self.decisions.marked += 1;
        }
    }

    /// The ledger's own word, in WAL order: a save that comes later retries, whatever it edits.
    pub(super) fn failed(&mut self, columns: &Columns, tuple: Tuple<'_>, failed: bool) {
        if let Some(id) = columns.outline(tuple).employee {
            let employee = self.hasher.employee(id);
            if failed {
                self.members.fail(employee);
            } else {
                self.members.mend(employee);
            }
        }
    }

    pub(super) fn hired(&mut self, columns: &Columns, new: Tuple<'_>) {
        if columns.root
            && let Some(id) = columns.outline(new).employee
        {
            self.perform(Deed::Hired(text(id)));
        }
    }

    /// A row that names its employee, as it is now.
    pub(super) fn written(&mut self, columns: &Columns, new: Tuple<'_>, old: Option<OldTuple<'_>>) {
        let outline = columns.outline(new);
        let Some(id) = outline.employee else { return self.passed_on(columns, new, old) };
        let employee = self.hasher.employee(id);
        if !self.members.is_synced(employee) {
            if columns.has_flag() {
                self.flag_seen(id, employee, outline.flag == Some(true));
            }
            return self.passed_on(columns, new, old);
        }
        if !self.is_changed(columns, new, old) && !self.members.is_failed(employee) {
            self.decisions.unchanged += 1;
            return;
        }
        self.decisions.marked += 1;
        self.touches.mark(employee, id, Mark::Change);
        if columns.hides_owner {
            let Some(row) = columns.row(self.hasher, new, self.scratch) else {
                self.touches.unkeyed = true;
                return;
            };
            let (key, employee) = (text(self.scratch), text(id));
            self.perform(Deed::Owned { row, source: columns.source, key, employee });
        }
    }

    /// A row that is nobody's, or a non-member's: it may have been a member's before.
    fn passed_on(&mut self, columns: &Columns, new: Tuple<'_>, old: Option<OldTuple<'_>>) {
        if old != Some(OldTuple::KeyUnchanged) || columns.keyed_by_employee {
            self.decisions.not_synced += 1;
        } else if columns.hides_owner {
            self.perhaps_orphaned(columns, new);
        } else {
            if let Some(row) = columns.row(self.hasher, new, self.scratch) {
                self.cache.forget(row);
            }
            self.decisions.not_synced += 1;
        }
    }

    /// What a flag comes to is decided by how the transaction leaves it.
    fn flag_seen(&mut self, id: &[u8], employee: KeyHash, up: bool) {
        let seen = match &self.chunk {
            Some((_, deeds)) => deeds.has_flag_of(employee),
            None => self.touches.has_flag_of(employee),
        };
        if seen || up != self.members.is_baseline(employee) {
            self.decisions.marked += u64::from(up);
            self.perform(Deed::Flag { employee, id: text(id), up });
        }
    }

    fn is_changed(&mut self, columns: &Columns, new: Tuple<'_>, old: Option<OldTuple<'_>>) -> bool {
        if let Some(OldTuple::Full(old)) = old {
            return !columns.complete || columns.differs(old, new);
        }
        let Some(row) = columns.row(self.hasher, new, self.scratch) else { return true };
        if self.chunk.is_some() || !columns.complete {
            self.cache.forget(row);
            return true;
        }
        let differs = self.cache.replace(row, columns.fingerprint(self.hasher, self.generation, new));
        differs || old.is_none_or(|old| old != OldTuple::KeyUnchanged)
    }

    /// The old version of a row that is updated: it may have belonged to another employee.
    pub(super) fn left(&mut self, columns: &Columns, old: Tuple<'_>, new: Tuple<'_>) {
        let (before, after) = (columns.outline(old).employee, columns.outline(new).employee);
        if let Some(id) = before
            && before != after
        {
            let employee = self.hasher.employee(id);
            if self.members.is_synced(employee) {
                self.touches.mark(employee, id, Mark::Change);
            } else if columns.has_flag() {
                self.flag_seen(id, employee, false);
            }
            if columns.root {
                // The employee's own id was changed: one has gone, another is new.
                self.perform(Deed::Gone(text(id)));
                if let Some(id) = after {
                    self.perform(Deed::Hired(text(id)));
                }
            }
        }
        if before.is_none() && columns.hides_owner {
            self.perhaps_orphaned(columns, old);
        }
    }

    pub(super) fn erased(&mut self, columns: &Columns, old: Tuple<'_>) {
        if let Some(row) = columns.row(self.hasher, old, self.scratch) {
            self.cache.forget(row);
        }
        match columns.outline(old).employee {
            Some(id) => {
                let employee = self.hasher.employee(id);
                if self.members.is_synced(employee) {
                    self.decisions.marked += 1;
                    self.touches.mark(employee, id, Mark::Change);
                } else {
                    self.decisions.not_synced += 1;
                    if columns.has_flag() {
                        self.flag_seen(id, employee, false);
                    }
                }
                if columns.root {
                    self.perform(Deed::Gone(text(id)));
                }
            }
            None if columns.hides_owner => self.perhaps_orphaned(columns, old),
            None => self.decisions.not_synced += 1,
        }
    }

    /// A row that no longer names a synced employee may have belonged to one.
    fn perhaps_orphaned(&mut self, columns: &Columns, tuple: Tuple<'_>) {
        let Some(row) = columns.row(self.hasher, tuple, self.scratch) else {
            self.decisions.marked += 1;
            self.touches.unkeyed = true;
            return;
        };
        if !self.filter_is_complete || self.filter.may_contain(row) || self.touches.owns(row) {
            self.cache.forget(row);
            self.decisions.marked += 1;
            let key = text(self.scratch);
            self.perform(Deed::Orphaned { row, source: columns.source, key });
        } else {
            self.decisions.not_synced += 1;
        }
    }

    pub(super) fn looked_up(&mut self, columns: &Columns, new: Tuple<'_>) {
        if self.is_changed(columns, new, Some(OldTuple::KeyUnchanged)) {
            self.decisions.marked += 1;
            self.refers(columns, new);
        } else {
            self.decisions.unchanged += 1;
        }
    }

    pub(super) fn lookup_moved(&mut self, columns: &Columns, old: Tuple<'_>, new: Tuple<'_>) {
        let before = columns.row(self.hasher, old, self.scratch);
        if before != columns.row(self.hasher, new, self.scratch) {
            self.lookup_gone(columns, old);
        }
    }

    pub(super) fn lookup_gone(&mut self, columns: &Columns, old: Tuple<'_>) {
        if let Some(row) = columns.row(self.hasher, old, self.scratch) {
            self.cache.forget(row);
        }
        self.decisions.marked += 1;
        self.refers(columns, old);
    }

    /// Whoever refers to a lookup table's row is to be marked.
    fn refers(&mut self, columns: &Columns, tuple: Tuple<'_>) {
        if columns.row_key(tuple, self.scratch) {
            self.touches.lookup(columns.source, self.scratch);
        } else {
            self.touches.unkeyed = true;
        }
    }
}
