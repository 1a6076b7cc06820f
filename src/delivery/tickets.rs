//! What one employee in hand holds: the tickets of every batch of commits that touched them.

use crate::ledger::in_hand::{Change, Ticket};

/// Tickets of one employee; at least one.
#[derive(Debug)]
pub struct Tickets {
    first: Ticket,
    more: Vec<Ticket>,
}

impl From<Ticket> for Tickets {
    fn from(first: Ticket) -> Self {
        Self { first, more: Vec::new() }
    }
}

impl Tickets {
    /// Those of the same employee's that came later.
    pub fn add(&mut self, later: Self) {
        self.more.push(later.first);
        self.more.extend(later.more);
    }

    /// From the first change to the last.
    pub fn change(&self) -> Change {
        self.more.iter().map(Ticket::change).fold(self.first.change(), |change, next| Change {
            first: change.first.min(next.first),
            last: change.last.max(next.last),
        })
    }

    /// The mass change that the employee came with, if with one.
    pub fn mass_change(&self) -> Option<i64> {
        std::iter::once(&self.first).chain(&self.more).find_map(Ticket::mass_change)
    }

    /// All is recorded, or marked, durably.
    pub fn settle(self) {
        self.first.settle();
        self.more.into_iter().for_each(Ticket::settle);
    }
}
