//! Halts, pauses and doubts: what stops delivery for the site, and how it is found to be over.

use std::sync::Arc;
use std::time::Instant;

use super::{ANOTHER_WRITER, DeliveryError, Dispatcher, Event, LISTS_MAX_AGE, PLATFORM_DOUBT};
use crate::delivery::halt;
use crate::delivery::outcome::{Class, Failure, HaltReason};
use crate::delivery::site_rules::{self, Lists};
use crate::ledger::{LedgerError, Session, Site, doubt, work};

impl Dispatcher<'_> {
    /// Whether delivery waits: paused by a person, or for the comparison with the platform.
    pub(super) async fn look_at_site(&mut self) -> Result<Site, DeliveryError> {
        let site = Site::load(&self.session).await?;
        let doubted = site.doubt.as_deref() == Some(doubt::PLATFORM);
        self.paused = is_paused(&site);
        if doubted != self.doubted {
            self.doubted = doubted;
            if doubted {
                tracing::warn!("delivery waits until everyone was compared with the platform");
            } else {
                tracing::info!("the comparison with the platform has ended; delivery goes on");
            }
            if self.context.gate.halted().is_none() {
                self.say_halted(doubted.then_some(PLATFORM_DOUBT));
            }
        }
        Ok(site)
    }

    /// Asks for the platform, its picklists and packages; a halt that the platform caused ends when it answers well.
    /// Beside everything else: a platform that is slow to say so must not stop what goes well.
    pub(super) fn ask_platform(&mut self) {
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        self.asked_at = Instant::now();
        let context = Arc::clone(&self.context);
        self.events.spawn(async move { Event::Asked(site_rules::from_platform(&context.client).await) });
    }

    pub(super) async fn platform_answered(
        &mut self,
        answer: Result<Lists, Box<Failure>>,
    ) -> Result<(), DeliveryError> {
        self.asking = false;
        self.asked = true;
        match answer {
            Ok(lists) => {
                self.rules_version = work::rules_version(&self.session).await?;
                if site_rules::store(&self.session, &lists).await? {
                    tracing::info!(
                        "the platform's picklists or packages have changed: whoever they blocked is tried again"
                    );
                    self.lanes.more_in_ledger();
                }
                self.rules =
                    Arc::new(site_rules::load(&self.session, &self.outfit.config, None).await?.with(lists));
                self.lists_at = Instant::now();
                self.lists_max_age = LISTS_MAX_AGE;
                match self.context.gate.halted().as_deref() {
                    None | Some(ANOTHER_WRITER) => {}
                    Some(code) if HaltReason::is_over_when_asked_well(code) => self.resume(),
                    // Reading proves nothing of writing, nor of our own query: one employee tries.
                    Some(_) => {
                        self.context.gate.set_trial(true);
                        self.lanes.more_in_ledger();
                    }
                }
            }
            Err(failure) => self.platform_failed(&failure),
        }
        Ok(())
    }

    fn platform_failed(&mut self, failure: &Failure) {
        match &failure.class {
            Class::Halt { reason } => {
                if self.context.gate.halted().is_none() {
                    tracing::error!(reason = %failure, "the platform does not serve us");
                }
                self.halt(reason.as_str());
            }
            _ => {
                tracing::warn!(reason = %failure, "the platform's picklists and packages cannot be had; going on without");
            }
        }
    }

    /// Stored before anything else is looked at: what the ledger does not show as halted counts as resumed by a person.
    pub(super) fn halt(&mut self, code: &str) {
        self.context.gate.set_trial(false);
        if self.context.gate.halted().is_none() {
            let remedy = halt::remedy(code);
            tracing::error!(code, remedy, "delivery is halted for the site; changes are still collected");
            self.context.gate.halt(code);
            self.say_halted(Some(code));
            self.unshown = Some(Some(code.to_owned()));
        }
    }

    pub(super) fn resume(&mut self) {
        tracing::info!("delivery goes on");
        self.context.gate.resume();
        self.say_halted(self.doubted.then_some(PLATFORM_DOUBT));
        self.unshown = Some(None);
        self.lanes.more_in_ledger();
    }

    /// For the gauge and `/readyz`.
    fn say_halted(&self, code: Option<&str>) {
        self.outfit.metrics.halted(code);
        self.outfit.halted.send_replace(code.map(str::to_owned));
    }
}

pub(super) fn is_paused(site: &Site) -> bool {
    site.paused_reason.is_some() || site.doubt.as_deref() == Some("platform")
}

/// Shows a halt to people, or its end. What only a person lifts stays, whichever instance has found it.
pub async fn show_halt(session: &Session, code: Option<&str>) -> Result<(), LedgerError> {
    let sql = "update benefits.site set halted_code = $1 \
               where halted_code is distinct from $1 and halted_code is distinct from $2";
    session.execute("show a halt", sql, &[&code, &ANOTHER_WRITER]).await.map(|_| ())
}
