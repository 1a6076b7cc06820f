//! Reading many records of which one may make the query fail, or take so long that PostgreSQL ends it.

use std::ops::Range;

use super::error::{LedgerError, Trouble};

/// What is still to be read: positions in the caller's list.
pub struct Halves {
    batches: Vec<Range<usize>>,
    cancelled_before: bool,
}

/// What follows from a batch that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It comes again, whole or in halves.
    Again,
    /// It is one alone, which cannot be read.
    Unreadable,
    /// It is not about a record.
    NotOfARecord,
}

impl Halves {
    /// All of so many, at first together.
    pub fn of(count: usize) -> Self {
        let all = std::iter::once(0..count).filter(|all| !all.is_empty());
        Self { batches: all.collect(), cancelled_before: false }
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Option<Range<usize>> {
        self.batches.pop()
    }

    /// A batch was read.
    pub fn read(&mut self) {
        self.cancelled_before = false;
    }

    /// A batch was not read. One that takes too long is tried twice: the server may have been busy.
    pub fn failed(&mut self, batch: Range<usize>, error: &LedgerError) -> Fate {
        let cancelled = error.was_cancelled();
        let again = cancelled && !self.cancelled_before;
        self.cancelled_before = cancelled;
        match error.trouble() {
            _ if again => self.batches.push(batch),
            Trouble::Passing if !cancelled => return Fate::NotOfARecord,
            Trouble::Site => return Fate::NotOfARecord,
            Trouble::Data | Trouble::Passing if batch.len() > 1 => {
                let middle = batch.start + batch.len() / 2;
                self.batches.extend([middle..batch.end, batch.start..middle]);
            }
            Trouble::Data | Trouble::Passing => return Fate::Unreadable,
        }
        Fate::Again
    }
}
