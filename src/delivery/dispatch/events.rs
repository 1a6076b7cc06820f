//! What comes of the tasks that a dispatcher spawns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loading::Loaded;
use super::{DeliveryError, Dispatcher, RECORD_QUERY, SCAN_EVERY};
use crate::delivery::batcher::Ended;
use crate::delivery::decide::Terms;
use crate::delivery::guard::{self, Judged};
use crate::delivery::job::End;
use crate::delivery::outcome::Failure;
use crate::delivery::site_rules::Lists;
use crate::ledger::work::WorkError;

/// How long a mass change may wait to be judged while people are delivered.
const JUDGE_AFTER: Duration = Duration::from_secs(3);

/// What a spawned task brings back.
pub(super) enum Event {
    Loaded(Loaded),
    /// Who was marked, and whether as part of a mass change.
    MarkedHeld(Result<Vec<(String, bool)>, Ended>),
    Judged(Result<Judged, WorkError>),
    Asked(Result<Lists, Box<Failure>>),
}

impl Dispatcher<'_> {
    pub(super) async fn happened(&mut self, event: Event) -> Result<(), DeliveryError> {
        match event {
            Event::Loaded(loaded) => {
                self.loading -= 1;
                self.loaded(loaded)
            }
            Event::MarkedHeld(marked) => {
                for (id, bulk) in marked? {
                    self.lanes.push(id, bulk);
                }
                Ok(())
            }
            Event::Asked(answer) => self.platform_answered(answer).await,
            Event::Judged(judged) => {
                self.judging = false;
                self.judged(judged)
            }
        }
    }

    /// A parcel has come to its end.
    pub(super) fn ended(&mut self, id: &str, end: End) {
        self.carried = self.carried.saturating_sub(1);
        self.pace.ended(Instant::now());
        if self.context.gate.is_on_trial() {
            match end {
                End::Settled { wrote: true, .. } => self.resume(),
                // Who needed no write has proved that records can be read.
                End::Settled { .. } if self.context.gate.halted().as_deref() == Some(RECORD_QUERY) => {
                    self.resume();
                }
                // Proved nothing, or the contrary: the halt was never over, and the platform is asked anew.
                End::Settled { .. }
                | End::Recording
                | End::Postponed(_)
                | End::Held
                | End::Unjudged
                | End::Marked
                | End::Halt(_) => {
                    self.context.gate.set_trial(false);
                }
            }
        }
        match end {
            End::Settled { recorded, .. } => {
                self.lanes.finish(id, !recorded.last);
            }
            End::Marked => self.lanes.finish(id, true),
            End::Postponed(wait) => self.lanes.postpone(id, Instant::now() + wait),
            // Only the ledger knows when: the scan finds them. What is being recorded is no end.
            End::Held | End::Recording => self.lanes.finish(id, false),
            End::Unjudged => {
                self.lanes.finish(id, false);
                self.judge();
            }
            End::Halt(code) => {
                self.halt(&code);
                self.lanes.postpone(id, Instant::now() + SCAN_EVERY);
            }
        }
    }

    fn judged(&mut self, judged: Result<Judged, WorkError>) -> Result<(), DeliveryError> {
        match judged {
            Ok(Judged::Settled) => self.lanes.more_in_ledger(),
            Ok(Judged::RulesAreStale) => self.rules_stale = true,
            Ok(Judged::Nothing) => {}
            Err(WorkError::Away(error)) => return Err(error.into()),
            // Delivery meets the same query, and says so.
            Err(WorkError::Query(error)) => {
                tracing::debug!(%error, "a mass change cannot be judged yet");
            }
        }
        Ok(())
    }

    /// Judges the mass changes that the ledger knows of, beside the deliveries. Who is delivered first is judged by that,
    /// and need not be read a second time.
    pub(super) fn judge(&mut self) {
        let wanted = *self.judge_wanted.get_or_insert_with(Instant::now);
        let later = self.lanes.is_waiting() && wanted.elapsed() < JUDGE_AFTER;
        if !self.asked || later || std::mem::replace(&mut self.judging, true) {
            return;
        }
        self.judge_wanted = None;
        let (session, rules, context) =
            (Arc::clone(&self.session), Arc::clone(&self.rules), Arc::clone(&self.context));
        let limits = self.outfit.config.guard.clone();
        let version = self.rules_version;
        self.events.spawn(async move {
            let terms = Terms { rules: &rules, key: &context.key, min_interval: Duration::ZERO };
            Event::Judged(guard::judge(&session, &limits, &terms, version).await)
        });
    }
}
