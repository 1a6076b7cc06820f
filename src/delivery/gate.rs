//! Whether a request may go now: not halted, within the rate, within the concurrency, the breaker not open.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::breaker::{Breaker, BreakerState, Permit, Signal};
use super::rate::Rate;
use super::retry::Schedule;
use crate::config::Delivery;

/// Failures in a row that open the breaker.
const FAILURES_MAX: u32 = 10;
/// How long delivery of a halted site waits before the platform is asked again.
const HALT_WAIT: Duration = Duration::from_secs(5);

/// The way out to the platform, shared by all deliveries of an instance.
pub struct Gate {
    slots: Semaphore,
    rate: Rate,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// Nothing goes before.
    blocked_until: Option<Instant>,
    halted: Option<String>,
}

/// Leave for one request.
pub struct Pass<'g> {
    _slot: SemaphorePermit<'g>,
    permit: Permit,
}

impl Gate {
    /// As configured.
    pub fn new(delivery: &Delivery) -> Self {
        let schedule = Schedule::new(delivery.backoff_min, delivery.backoff_max);
        let breaker = Breaker::new(FAILURES_MAX, schedule, delivery.timeout.saturating_mul(2));
        Self {
            slots: Semaphore::new(delivery.concurrency),
            rate: Rate::new(delivery.requests_per_second),
            state: Mutex::new(State { breaker, blocked_until: None, halted: None }),
        }
    }

    /// Waits for a turn. An error is how long to leave the platform alone.
    pub async fn enter(&self) -> Result<Pass<'_>, Duration> {
        self.refusal()?;
        let Ok(slot) = self.slots.acquire().await else { return Err(HALT_WAIT) };
        self.rate.acquire().await;
        self.refusal()?;
        let now = Instant::now();
        let mut state = self.state();
        match state.breaker.admit(now) {
            Ok(permit) => {
                state.blocked_until = None;
                Ok(Pass { _slot: slot, permit })
            }
            Err(wait) => {
                state.blocked_until = Some(now + wait);
                Err(wait)
            }
        }
    }

    /// What came of a request.
    pub fn leave(&self, pass: Pass<'_>, signal: Signal) {
        let now = Instant::now();
        let mut state = self.state();
        state.breaker.report(pass.permit, signal, now);
        if state.breaker.state() == BreakerState::Closed {
            state.blocked_until = None;
        }
    }

    /// The platform asks to be left alone.
    pub fn hold(&self, wait: Duration) {
        self.rate.hold(wait);
    }

    /// Stops delivery for the site.
    pub fn halt(&self, code: &str) {
        self.state().halted = Some(code.to_owned());
    }

    /// Goes on after a halt.
    pub fn resume(&self) {
        self.state().halted = None;
    }

    /// Why delivery is halted.
    pub fn halted(&self) -> Option<String> {
        self.state().halted.clone()
    }

    /// The breaker's state, for the gauge.
    pub fn breaker(&self) -> BreakerState {
        self.state().breaker.state()
    }

    /// How many employees may be prepared beyond those under way: none while it is known that nothing can go, one where
    /// the breaker wants a probe.
    pub fn room(&self, wanted: usize) -> usize {
        let state = self.state();
        let blocked = state.blocked_until.is_some_and(|until| Instant::now() < until);
        if blocked || state.halted.is_some() || self.rate.held_for().is_some() {
            0
        } else if state.breaker.state() == BreakerState::Closed {
            wanted
        } else {
            wanted.min(1)
        }
    }

    fn refusal(&self) -> Result<(), Duration> {
        let state = self.state();
        if state.halted.is_some() {
            return Err(HALT_WAIT);
        }
        match state.blocked_until.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// The state is valid between any two statements, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
