//! Commits in hand: those whose employees delivery was given before the ledger had a mark for them.
//!
//! ```text
//!  marker ──▶ InHand::hand_over(commits) ──▶ tickets, one an employee ──▶ delivery
//!                 │                                                        │ delivered and recorded, or marked after all
//!                 ▼                                                        ▼
//!       confirmed LSN ◀── every ticket of every commit before it ◀── Ticket::settle
//! ```
//!
//! A platform that answers at once needs no mark: its employees are delivered and recorded within milliseconds, which
//! costs the ledger two row versions and one flush instead of five and three, and the change no wait for a disk. The price is
//! paid after an unclean stop: what was in hand is not known then, so that everybody in the WAL that is read again is
//! sent in full (invariant 4). Whoever cannot be delivered at once is marked in the ledger after all
//! ([`take_into_ledger`]), so that nobody holds the slot back for longer than a fraction of a second; a mass change, which is
//! handed over whole and waits behind everybody else, for a few seconds.

mod statements;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};

use super::PersistedLsn;
use crate::lsn::Lsn;

pub use statements::{Delivered, Taken, ToTake, record, take_into_ledger};

/// Delivery has dropped what it had in hand: the commits are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery that had commits in hand has ended")]
pub struct Lost;

/// The commits in hand of one reader session, in WAL order. What is finished at the front is confirmed.
#[derive(Debug)]
pub struct InHand {
    state: Mutex<State>,
    changed: Notify,
    confirmed: watch::Sender<Lsn>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the batch at the front.
    first: u64,
    batches: VecDeque<Batch>,
    /// Tickets that are out, but for those of a mass change.
    employees: usize,
    /// Tickets of a mass change that are out.
    of_mass_change: usize,
    lost: bool,
}

#[derive(Debug)]
struct Batch {
    end: Lsn,
    left: usize,
}

impl State {
    /// The tickets that are out of the same kind.
    fn count(&mut self, mass_change: Option<i64>) -> &mut usize {
        if mass_change.is_some() { &mut self.of_mass_change } else { &mut self.employees }
    }
}

impl InHand {
    /// Nothing in hand. `confirmed` is what the slot is told.
    pub fn new(confirmed: watch::Sender<Lsn>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), confirmed })
    }

    /// Everything up to here is durable, but for what is in hand still.
    pub fn passed(&self, lsn: PersistedLsn) {
        let mut state = self.state();
        state.batches.push_back(Batch { end: lsn.get(), left: 0 });
        self.confirm(&mut state);
    }

    /// Takes a batch of commits that ends at `end` in hand: a ticket for each of its employees. `mass_change`: its number in
    /// the ledger, where the batch is one.
    pub fn hand_over(
        self: &Arc<Self>,
        end: Lsn,
        mass_change: Option<i64>,
        changes: impl IntoIterator<Item = Change>,
    ) -> Vec<Ticket> {
        let mut state = self.state();
        let batch = state.first + u64::try_from(state.batches.len()).unwrap_or(0);
        let tickets: Vec<Ticket> = changes
            .into_iter()
            .map(|change| Ticket { hand: Arc::clone(self), batch, change, mass_change, settled: false })
            .collect();
        *state.count(mass_change) += tickets.len();
        state.batches.push_back(Batch { end, left: tickets.len() });
        self.confirm(&mut state);
        tickets
    }

    /// How many tickets are out, but for those of a mass change.
    pub fn employees(&self) -> usize {
        self.state().employees
    }

    /// Waits until nothing is in hand.
    pub async fn until_empty(&self) -> Result<(), Lost> {
        self.until(|state| state.employees == 0 && state.of_mass_change == 0).await
    }

    /// Waits until nothing of a mass change is in hand.
    pub async fn until_mass_change_is_over(&self) -> Result<(), Lost> {
        self.until(|state| state.of_mass_change == 0).await
    }

    /// Waits until fewer than so many tickets are out, but for those of a mass change.
    pub async fn until_fewer(&self, than: usize) -> Result<(), Lost> {
        self.until(|state| state.employees < than).await
    }

    /// Waits until a ticket is dropped unsettled: its employee is known to nobody any more.
    pub async fn until_lost(&self) -> Lost {
        self.until(|_| false).await.err().unwrap_or(Lost)
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), Lost> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.lost {
                    return Err(Lost);
                }
                if holds(&state) {
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    fn settle(&self, batch: u64, mass_change: Option<i64>) {
        let mut state = self.state();
        let count = state.count(mass_change);
        *count = count.saturating_sub(1);
        let at = batch.checked_sub(state.first).and_then(|at| usize::try_from(at).ok());
        if let Some(batch) = at.and_then(|at| state.batches.get_mut(at)) {
            batch.left = batch.left.saturating_sub(1);
        }
        self.confirm(&mut state);
    }

    fn lose(&self) {
        self.state().lost = true;
        self.changed.notify_waiters();
    }

    /// Confirms what is finished at the front, and nothing once something was lost.
    fn confirm(&self, state: &mut State) {
        let mut confirmed = None;
        while !state.lost && state.batches.front().is_some_and(|batch| batch.left == 0) {
            confirmed = state.batches.pop_front().map(|batch| batch.end).max(confirmed);
            state.first += 1;
        }
        if let Some(lsn) = confirmed {
            crate::pipeline::advance(&self.confirmed, lsn);
        }
        self.changed.notify_waiters();
    }

    /// The state is valid between any two statements, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When an employee's changes in a batch of commits were committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The first of them.
    pub first: SystemTime,
    /// The last of them.
    pub last: SystemTime,
}

/// An employee in hand. Dropped unsettled, it ends the reader session, which reads the commit again.
#[derive(Debug)]
#[must_use = "a ticket that is dropped ends the reader session"]
pub struct Ticket {
    hand: Arc<InHand>,
    batch: u64,
    change: Change,
    mass_change: Option<i64>,
    settled: bool,
}

impl Ticket {
    /// When the changes were committed.
    pub fn change(&self) -> Change {
        self.change
    }

    /// `benefits.mass_change.batch`, where the commits are one: whoever is marked after all is judged with it.
    pub fn mass_change(&self) -> Option<i64> {
        self.mass_change
    }

    /// The employee is in step with these commits and recorded so, or is marked in the ledger: durably, either.
    pub fn settle(mut self) {
        self.settled = true;
        self.hand.settle(self.batch, self.mass_change);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.hand.lose();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: Change = Change { first: SystemTime::UNIX_EPOCH, last: SystemTime::UNIX_EPOCH };

    fn hand() -> (Arc<InHand>, watch::Receiver<Lsn>) {
        let (confirmed, seen) = watch::channel(Lsn::ZERO);
        (InHand::new(confirmed), seen)
    }

    fn passed(hand: &InHand, lsn: u64) {
        hand.passed(PersistedLsn::after_commit(Lsn(lsn)));
    }

    #[tokio::test]
    async fn nothing_is_confirmed_before_what_came_before_it() {
        let (hand, seen) = hand();
        let first = hand.hand_over(Lsn(10), None, [CHANGE, CHANGE]);
        let second = hand.hand_over(Lsn(20), None, [CHANGE]);
        passed(&hand, 30);
        second.into_iter().for_each(Ticket::settle);
        assert_eq!(*seen.borrow(), Lsn::ZERO);
        let mut first = first.into_iter();
        first.next().unwrap().settle();
        assert_eq!((*seen.borrow(), hand.employees()), (Lsn::ZERO, 1));
        first.next().unwrap().settle();
        assert_eq!(*seen.borrow(), Lsn(30));
        hand.until_empty().await.unwrap();
    }

    #[tokio::test]
    async fn commits_that_touch_nobody_are_confirmed_in_their_turn() {
        let (hand, seen) = hand();
        let tickets = hand.hand_over(Lsn(10), None, []);
        assert!(tickets.is_empty());
        assert_eq!(*seen.borrow(), Lsn(10));
        passed(&hand, 15);
        assert_eq!(*seen.borrow(), Lsn(15));
    }

    #[tokio::test]
    async fn a_dropped_ticket_ends_everything_and_confirms_nothing_more() {
        let (hand, seen) = hand();
        let mut tickets = hand.hand_over(Lsn(10), None, [CHANGE, CHANGE]).into_iter();
        drop(tickets.next());
        assert_eq!(hand.until_lost().await, Lost);
        tickets.next().unwrap().settle();
        passed(&hand, 20);
        assert_eq!(*seen.borrow(), Lsn::ZERO);
        assert!(hand.until_empty().await.is_err());
    }

    #[tokio::test]
    async fn a_mass_change_takes_nobody_s_room_and_holds_back_what_came_after_it() {
        let (hand, seen) = hand();
        let mass = hand.hand_over(Lsn(10), Some(7), [CHANGE, CHANGE]);
        let single = hand.hand_over(Lsn(20), None, [CHANGE]);
        assert_eq!((hand.employees(), mass[0].mass_change()), (1, Some(7)));
        single.into_iter().for_each(Ticket::settle);
        assert_eq!((*seen.borrow(), hand.employees()), (Lsn::ZERO, 0));
        let (over, ()) = tokio::join!(hand.until_mass_change_is_over(), async {
            mass.into_iter().for_each(Ticket::settle);
        });
        over.unwrap();
        assert_eq!(*seen.borrow(), Lsn(20));
        hand.until_empty().await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken() {
        let (hand, _seen) = hand();
        let mut tickets = hand.hand_over(Lsn(10), None, [CHANGE, CHANGE]).into_iter();
        let (waited, ()) = tokio::join!(hand.until_fewer(2), async { tickets.next().unwrap().settle() });
        waited.unwrap();
        tickets.next().unwrap().settle();
    }
}
