//! 64-bit keyed hashes of employee ids and row keys.
//!
//! A million members are eight bytes each instead of a string each. Two ids may share a hash: then one of them is marked
//! in vain, and the ledger, which knows the text, drops the mark. The key is random for each process, so nobody can
//! prepare ids that collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip::SipHasher13;

/// The hash of an employee's id or of a row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Makes [`KeyHash`]es with one key.
#[derive(Clone)]
pub struct KeyHasher {
    seeded: SipHasher13,
}

impl KeyHasher {
    /// A hasher with the given key; random in production, fixed in tests.
    pub fn with_key(key: [u8; 16]) -> Self {
        Self { seeded: SipHasher13::new_with_key(&key) }
    }

    /// The hash of an employee's id, as the text that PostgreSQL shows.
    pub fn employee(&self, id: &[u8]) -> KeyHash {
        let mut hasher = self.seeded;
        hasher.write(id);
        KeyHash(hasher.finish())
    }

    /// A hasher to be fed several length-delimited parts.
    pub(super) fn parts(&self) -> Parts {
        Parts(self.seeded)
    }

    /// The hash of a child row's key, as kept in the ledger's `row_owner`.
    pub fn row(&self, source: i32, row_key: &[u8]) -> KeyHash {
        let mut parts = self.parts();
        parts.number(u64::from(source.unsigned_abs()));
        parts.bytes(row_key);
        parts.finish()
    }
}

/// A hash in the making.
pub(super) struct Parts(SipHasher13);

impl Parts {
    /// Adds bytes with their length, so that ("ab", "c") and ("a", "bc") differ.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_usize(bytes.len());
        self.0.write(bytes);
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.write_u64(number);
    }

    pub(super) fn finish(&self) -> KeyHash {
        KeyHash(self.0.finish())
    }
}

/// Passes a [`KeyHash`] through: it is a good hash already.
#[derive(Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // KeyHash only ever writes a u64; anything else still has to hash to something.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A set of hashes.
pub(super) type KeySet = HashSet<KeyHash, BuildHasherDefault<Identity>>;
/// A map by hash.
pub(super) type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<Identity>>;
