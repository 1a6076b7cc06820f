//! What the stream remembers of rows: fingerprints of mapped columns, and which child rows belong to synced employees.

use super::hash::{KeyHash, KeyMap};

/// Fingerprints of the mapped columns as last seen, for rows of synced employees and lookups.
///
/// Bounded: two generations of half the capacity each; when the young one is full, the old one is dropped. A row that was
/// forgotten counts as changed.
#[derive(Debug)]
pub(super) struct RowCache {
    young: KeyMap<u64>,
    old: KeyMap<u64>,
    half: usize,
}

impl RowCache {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { young: KeyMap::default(), old: KeyMap::default(), half: (rows / 2).max(1) }
    }

    /// Remembers the fingerprint; whether it is another one than was known (or none was known).
    pub(super) fn replace(&mut self, row: KeyHash, fingerprint: u64) -> bool {
        let known = match self.young.get_mut(&row) {
            Some(seen) => return std::mem::replace(seen, fingerprint) != fingerprint,
            None => self.old.remove(&row),
        };
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(row, fingerprint);
        known != Some(fingerprint)
    }

    /// Forgets a row: what comes next counts as changed.
    pub(super) fn forget(&mut self, row: KeyHash) {
        self.young.remove(&row);
        self.old.remove(&row);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// A Bloom filter over child rows of synced employees: a row that is not in it left nobody who matters.
///
/// Ten bits and six probes a row keep false positives near one in a hundred; each costs one look into the ledger's
/// `row_owner`.
#[derive(Debug)]
pub struct RowFilter {
    words: Vec<u64>,
}

const BITS_PER_ROW: usize = 10;
const PROBES: u64 = 6;

impl RowFilter {
    /// A filter with room for `rows`; with many more it answers "perhaps" more often, never "no" wrongly.
    pub fn with_capacity(rows: usize) -> Self {
        let words = rows.max(10_000).saturating_mul(BITS_PER_ROW) / 64 + 1;
        Self { words: vec![0; words] }
    }

    /// Adds a row.
    pub fn insert(&mut self, row: KeyHash) {
        for probe in 0..PROBES {
            let (word, bit) = self.place(row, probe);
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether the row may be one of a synced employee.
    pub fn may_contain(&self, row: KeyHash) -> bool {
        (0..PROBES).all(|probe| {
            let (word, bit) = self.place(row, probe);
            self.words.get(word).is_some_and(|word| word & bit != 0)
        })
    }

    /// Double hashing (Kirsch and Mitzenmacher): two halves of one good hash make any number of probes.
    fn place(&self, row: KeyHash, probe: u64) -> (usize, u64) {
        let hash = row.get();
        let mixed = hash.wrapping_add(probe.wrapping_mul(hash.rotate_left(32) | 1));
        let words = u64::try_from(self.words.len()).unwrap_or(u64::MAX);
        let word = usize::try_from((mixed >> 6) % words).unwrap_or(0);
        (word, 1 << (mixed & 63))
    }
}
