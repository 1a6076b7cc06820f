//! From the lanes to a decision: employees are loaded in batches, and each goes the way that its work asks for.

use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;

use super::{
    ASK_EVERY, DeliveryError, Dispatcher, Errand, Event, LISTS_MAX_AGE_BLOCKED, Parcel, RECORD_QUERY,
};
use crate::delivery::batcher::Ended;
use crate::delivery::decide::{Decision, Draft, Plan, Terms, decide};
use crate::delivery::guard;
use crate::delivery::tickets::Tickets;
use crate::failpoint;
use crate::ledger::work::{self, Wanted, Work, WorkError};

/// Employees that one statement loads.
const LOAD_MAX: usize = 512;
/// While so many are under way nobody is loaded until a whole statement's worth is free: it costs by what it begins with, and there
/// is enough to do.
const WELL_SUPPLIED: usize = 2 * LOAD_MAX;
/// Loads under way at once: one is read while another one's rows are on their way.
const LOADS_MAX: usize = 2;

/// What a load brings back.
pub(super) struct Loaded {
    /// Who was asked for, and what they hold in hand.
    pub(super) asked: HashMap<String, Option<Tickets>>,
    works: Result<Vec<Work>, WorkError>,
}

impl Dispatcher<'_> {
    pub(super) fn load_more(&mut self) -> Result<(), Ended> {
        let busy = self.lanes.under_way();
        if busy > 0 && self.context.gate.is_on_trial() {
            return Ok(());
        }
        let free = self.pace.under_way_max().saturating_sub(busy).min(LOAD_MAX);
        if free < LOAD_MAX && busy >= WELL_SUPPLIED {
            return Ok(());
        }
        let room = if self.paused || !self.asked { 0 } else { self.context.gate.room(free) };
        if room == 0 || self.loading >= LOADS_MAX || !self.lanes.is_waiting() {
            return Ok(());
        }
        let mut asked: HashMap<String, Option<Tickets>> = HashMap::default();
        let mut wanted = Vec::new();
        for employee_id in self.lanes.take(room) {
            let hand = match self.in_hand.remove(&employee_id) {
                // This process was stopped, or slept: another may have the slot, and be further.
                Some(held) if self.is_overdue(&held) => {
                    self.mark(employee_id, held.tickets)?;
                    continue;
                }
                held => held.map(|held| held.tickets),
            };
            wanted.push(Wanted { employee_id: employee_id.clone(), in_hand: hand.is_some() });
            asked.insert(employee_id, hand);
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let session = Arc::clone(&self.session);
        self.loading += 1;
        self.events.spawn(async move {
            let works = match work::load(&session, &wanted).await {
                Ok(works) => match failpoint::hit("record-read").await {
                    Ok(()) => Ok(works),
                    Err(tripped) => Err(WorkError::Away(tripped.into())),
                },
                Err(error) => Err(error),
            };
            Event::Loaded(Loaded { asked, works })
        });
        Ok(())
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) -> Result<(), DeliveryError> {
        let Loaded { mut asked, works } = loaded;
        let works = match works {
            Ok(works) => works,
            Err(WorkError::Away(error)) => return Err(error.into()),
            Err(WorkError::Query(error)) => {
                tracing::error!(%error, "the record query does not work: delivery is halted, changes are still collected");
                self.halt(RECORD_QUERY);
                for (id, hand) in asked {
                    match hand {
                        Some(hand) => self.mark(id, hand)?,
                        None => self.lanes.postpone(&id, Instant::now() + ASK_EVERY),
                    }
                }
                return Ok(());
            }
        };
        for work in works {
            let hand = asked.remove(&work.employee_id).flatten();
            if work.rules_version > self.rules_version {
                // Decided by the rules of before, a refusal that the new ones lift would stay for good.
                self.rules_stale = true;
                match hand {
                    Some(hand) => self.mark(work.employee_id, hand)?,
                    None => self.lanes.finish(&work.employee_id, true),
                }
            } else {
                self.decided(work, hand)?;
            }
        }
        for (id, hand) in asked {
            match hand {
                // Somebody else delivers them, or they have to wait.
                Some(hand) => self.mark(id, hand)?,
                // Delivered by somebody else meanwhile, or not due yet: the scan knows.
                None => self.lanes.finish(&id, false),
            }
        }
        Ok(())
    }

    fn decided(&mut self, work: Work, hand: Option<Tickets>) -> Result<(), Ended> {
        let terms = Terms {
            rules: &self.rules,
            key: &self.context.key,
            min_interval: self.outfit.config.delivery.min_interval,
        };
        let decision = decide(&work, &terms);
        let ending = guard::ending(&work, &decision, &self.context.key);
        if let Some(hand) = hand {
            return self.decided_in_hand(work, decision, ending.is_some(), hand);
        }
        let id = work.employee_id.clone();
        let errand = match decision {
            // In the ledger too: what only memory knew to wait would be found due by every scan.
            Decision::Wait(wait) => Errand::Wait(Box::new(work), wait),
            Decision::InStep => Errand::InStep(Box::new(work)),
            Decision::Reject(rejection) => {
                if matches!(rejection.code.as_str(), "unknown-value" | "no-package") {
                    self.lists_max_age = LISTS_MAX_AGE_BLOCKED;
                }
                Errand::Reject(Box::new(work), rejection, ending)
            }
            Decision::Send(plan) => Errand::Send(draft(work, plan), ending),
        };
        self.carry(Parcel::Errand { id, errand })
    }

    /// There is room for everybody under way: a courier that takes nothing has ended.
    pub(super) fn carry(&mut self, parcel: Parcel) -> Result<(), Ended> {
        self.parcels.try_send(parcel).or(Err(Ended))?;
        self.carried += 1;
        Ok(())
    }
}

pub(super) fn draft(work: Work, plan: Box<Plan>) -> Box<Draft> {
    Box::new(Draft { work, plan: *plan })
}
