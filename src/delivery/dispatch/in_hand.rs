//! Employees in hand: how long they may wait, what may be done for them, and how the rest is marked after all.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::loading::draft;
use super::{Dispatcher, Errand, Event, Parcel, Update};
use crate::delivery::batcher::Ended;
use crate::delivery::decide::{Decision, Opening};
use crate::delivery::job;
use crate::delivery::tickets::Tickets;
use crate::ledger::in_hand::Ticket;
use crate::ledger::work::Work;

/// How long an employee in hand may wait for their turn before the ledger is told of them.
pub(super) const IN_HAND_MAX: Duration = Duration::from_millis(500);
/// The same of a mass change, but not at a platform that would take minutes for it.
pub(super) const MASS_IN_HAND_MAX: Duration = Duration::from_secs(5);
/// Employees that are marked at once.
const MARKED_AT_ONCE: usize = 512;

/// An employee in hand who waits in the lanes.
pub(super) struct Held {
    pub(super) tickets: Tickets,
    since: Instant,
}

impl Held {
    pub(super) fn is_of_mass_change(&self) -> bool {
        self.tickets.mass_change().is_some()
    }
}

impl Dispatcher<'_> {
    pub(super) fn take_in_hand(&mut self, id: String, ticket: Ticket) {
        self.lanes.push_in_hand(id.clone(), ticket.mass_change().is_some());
        match self.in_hand.entry(id) {
            Entry::Occupied(mut held) => held.get_mut().tickets.add(ticket.into()),
            Entry::Vacant(place) => {
                place.insert(Held { tickets: ticket.into(), since: Instant::now() });
            }
        }
    }

    /// In hand nothing is done but an ordinary update. Everything else is marked, and comes again from the ledger.
    pub(super) fn decided_in_hand(
        &mut self,
        work: Work,
        decision: Decision,
        ends: bool,
        hand: Tickets,
    ) -> Result<(), Ended> {
        if ends && hand.mass_change().is_some() {
            // It is judged whole, in the ledger.
            self.mark_held(|_, held| held.is_of_mass_change());
        }
        let ordinary = work.is_unmarked() && work.is_in_order() && !ends;
        match decision {
            Decision::InStep if ordinary => {
                hand.settle();
                self.lanes.finish(&work.employee_id, false);
                Ok(())
            }
            Decision::Send(plan) if ordinary && plan.opening == Opening::Update => {
                self.carry(Parcel::Update(Update::new(draft(work, plan), hand)))
            }
            _ => self.mark(work.employee_id, hand),
        }
    }

    /// Marks an employee in hand after all.
    pub(super) fn mark(&mut self, id: String, hand: Tickets) -> Result<(), Ended> {
        self.carry(Parcel::Errand { id, errand: Errand::Mark(hand) })
    }

    /// Whether somebody has been in hand for too long: nobody holds the slot back while delivery has other work, or none.
    pub(super) fn is_overdue(&self, held: &Held) -> bool {
        held.since.elapsed() >= if held.is_of_mass_change() { self.mass_patience } else { IN_HAND_MAX }
    }

    /// Marks those in hand who wait and are of one kind.
    pub(super) fn mark_held(&mut self, which: impl Fn(&Self, &Held) -> bool) {
        let ids: Vec<String> =
            self.in_hand.iter().filter(|(_, held)| which(self, held)).map(|(id, _)| id.clone()).collect();
        let mut held: Vec<(String, Tickets)> = Vec::with_capacity(ids.len());
        for id in ids {
            // Due again once they are marked.
            self.lanes.forget(&id);
            held.extend(self.in_hand.remove(&id).map(|held| (id, held.tickets)));
        }
        if held.is_empty() {
            return;
        }
        let context = Arc::clone(&self.context);
        self.events.spawn(async move {
            let mut marked = Vec::with_capacity(held.len());
            while !held.is_empty() {
                let some = held.split_off(held.len().saturating_sub(MARKED_AT_ONCE));
                let marks = some.into_iter().map(async |(id, hand)| {
                    let bulk = hand.mass_change().is_some();
                    job::mark(&context, &id, hand, None, false).await.map(|_| (id, bulk))
                });
                match try_join_all(marks).await {
                    Ok(some) => marked.extend(some),
                    Err(ended) => return Event::MarkedHeld(Err(ended)),
                }
            }
            Event::MarkedHeld(Ok(marked))
        });
    }
}
