//! How many employees delivery takes at once before the ledger has a mark for them. Delivery says, the marker asks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by one delivery and one reader.
#[derive(Debug, Default)]
pub struct Appetite {
    most: AtomicUsize,
    fast: AtomicBool,
}

impl Appetite {
    /// So many may be in hand. `fast`: they are delivered so fast that it is better to wait for room than to mark.
    pub fn set(&self, most: usize, fast: bool) {
        self.most.store(most, Ordering::Relaxed);
        self.fast.store(fast, Ordering::Relaxed);
    }

    /// Nobody is taken: everybody has to be marked.
    pub fn close(&self) {
        self.set(0, false);
    }

    /// How many may be in hand.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Whether room is worth waiting for.
    pub fn is_fast(&self) -> bool {
        self.fast.load(Ordering::Relaxed)
    }
}
