//! Who is synced, who has failed, who had the starter flag up from the beginning.
//!
//! Held as hashes (see [`super::hash`]); loaded from the ledger when a stream starts and kept by the stream itself, in WAL
//! order. A set may hold too many (the ledger has the last word), never too few.

use super::hash::{KeyHash, KeySet};

/// The stream's view of the employees.
#[derive(Debug, Default)]
pub struct Members {
    synced: KeySet,
    failed: KeySet,
    baseline: KeySet,
}

impl Members {
    /// From now on, this employee's changes matter.
    pub fn enrol(&mut self, employee: KeyHash) {
        self.synced.insert(employee);
    }

    /// Whether the employee's changes matter.
    pub fn is_synced(&self, employee: KeyHash) -> bool {
        self.synced.contains(&employee)
    }

    /// Number of synced employees, hashes that collide counted once.
    pub fn synced(&self) -> usize {
        self.synced.len()
    }

    /// The employee's latest attempt was rejected: every touch of theirs counts.
    pub fn fail(&mut self, employee: KeyHash) {
        self.failed.insert(employee);
    }

    /// The latest attempt was accepted.
    pub fn mend(&mut self, employee: KeyHash) {
        self.failed.remove(&employee);
    }

    /// Whether even a save that edits nothing is let through.
    pub fn is_failed(&self, employee: KeyHash) -> bool {
        self.failed.contains(&employee)
    }

    /// The starter flag was up when the integration was set up.
    pub fn set_baseline(&mut self, employee: KeyHash) {
        self.baseline.insert(employee);
    }

    /// Whether the flag was up from the beginning.
    pub fn is_baseline(&self, employee: KeyHash) -> bool {
        self.baseline.contains(&employee)
    }

    /// The flag went down: when it comes up again, that is a starter.
    pub fn clear_baseline(&mut self, employee: KeyHash) {
        self.baseline.remove(&employee);
    }
}
