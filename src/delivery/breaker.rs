//! Stops all sending while the platform is ill, so that a thousand employees do not each wait for their own timeout.
//!
//! ```text
//!            N failures in a row                 the wait is over
//!   closed ───────────────────────▶ open ───────────────────────────▶ half-open: exactly one probe
//!     ▲                              ▲                                     │          │
//!     └── the probe finds it well ───┼─────────────────────────────────────┘          │
//!                                    └── the probe fails: a longer wait ──────────────┘
//! ```
//!
//! Closed = flowing, open = stopped. A pure state machine: the time is a parameter. Only failures that say something of the
//! whole platform count ([`super::outcome::Failure::signal`]); a 429 is the platform's word that it lives, and no success.

use std::time::{Duration, Instant};

use super::retry::Schedule;

/// What an attempt says of the platform's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It answered, whether it accepted or not.
    Well,
    /// No connection, no answer, a 5xx.
    Ill,
    /// Nothing either way: a 429, a halt, an attempt that was given up.
    Neither,
}

/// What the gauge shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Flowing.
    Closed,
    /// One probe at a time.
    HalfOpen,
    /// Stopped.
    Open,
}

/// Leave to make one attempt; handed back with what came of it.
#[derive(Debug)]
#[must_use = "an attempt is reported with Breaker::report"]
pub struct Permit {
    epoch: u64,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// `probe`: since when one is under way.
    HalfOpen {
        probe: Option<Instant>,
    },
}

/// The state machine.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    schedule: Schedule,
    probe_max: Duration,
    state: State,
    /// Failed openings in a row: how far the schedule is.
    openings: u32,
    /// Raised with every change of state and every probe, so that what was sent before it no longer counts.
    epoch: u64,
}

impl Breaker {
    /// Opens after `threshold` failures in a row (at least 1), for the waits of `schedule`. A probe that has not been
    /// reported after `probe_max` is given up, and another may go.
    pub fn new(threshold: u32, schedule: Schedule, probe_max: Duration) -> Self {
        Self {
            threshold: threshold.max(1),
            schedule,
            probe_max,
            state: State::Closed { failures: 0 },
            openings: 0,
            epoch: 0,
        }
    }

    /// Leave to send now, or how long to wait before asking again.
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Duration> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return Err(until.duration_since(now)),
            State::HalfOpen { probe: Some(since) } if now < since + self.probe_max => {
                return Err((since + self.probe_max).duration_since(now));
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { probe: Some(now) };
                self.epoch += 1;
            }
        }
        Ok(Permit { epoch: self.epoch })
    }

    /// What came of an attempt. One that was admitted before the state last changed says nothing any more.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is used up")]
    pub fn report(&mut self, permit: Permit, signal: Signal, now: Instant) {
        if permit.epoch != self.epoch {
            return;
        }
        match (&mut self.state, signal) {
            (State::Closed { failures }, Signal::Well) => *failures = 0,
            (State::Closed { failures }, Signal::Ill) => {
                *failures += 1;
                if *failures >= self.threshold {
                    self.open(now);
                }
            }
            (State::HalfOpen { .. }, Signal::Well) => {
                self.openings = 0;
                self.epoch += 1;
                self.state = State::Closed { failures: 0 };
            }
            (State::HalfOpen { .. }, Signal::Ill) => self.open(now),
            (State::HalfOpen { probe }, Signal::Neither) => *probe = None,
            (State::Closed { .. }, Signal::Neither) | (State::Open { .. }, _) => {}
        }
    }

    /// Until when nothing goes: the wait of an open breaker, or the probe that is under way.
    pub fn blocked_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::HalfOpen { probe } => probe.map(|since| since + self.probe_max),
            State::Closed { .. } => None,
        }
    }

    /// For the gauge and for people. An open breaker whose wait is over shows open until somebody asks to send.
    pub const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, now: Instant) {
        self.openings = self.openings.saturating_add(1);
        self.epoch += 1;
        self.state = State::Open { until: now + self.schedule.delay(self.openings) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn breaker() -> (Breaker, Instant) {
        let schedule = Schedule::new(S(1), S(8)).without_jitter();
        (Breaker::new(3, schedule, S(10)), Instant::now())
    }

    fn attempt(breaker: &mut Breaker, signal: Signal, now: Instant) {
        let permit = breaker.admit(now).unwrap();
        breaker.report(permit, signal, now);
    }

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        for _ in 0..3 {
            attempt(&mut breaker, Signal::Ill, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        (breaker, now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (mut breaker, now) = breaker();
        for signal in [Signal::Ill, Signal::Ill, Signal::Well, Signal::Ill, Signal::Ill] {
            attempt(&mut breaker, signal, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        attempt(&mut breaker, Signal::Ill, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit(now).unwrap_err() <= S(1));
    }

    #[test]
    fn throttling_neither_opens_it_nor_forgives_failures() {
        let (mut breaker, now) = breaker();
        for signal in [Signal::Ill, Signal::Ill, Signal::Neither, Signal::Neither, Signal::Neither] {
            attempt(&mut breaker, signal, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        attempt(&mut breaker, Signal::Ill, now);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn exactly_one_probe_goes_when_the_wait_is_over() {
        let (mut breaker, now) = opened();
        let now = now + S(2);
        let probe = breaker.admit(now).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(now).is_err());
        breaker.report(probe, Signal::Well, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        attempt(&mut breaker, Signal::Well, now);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_and_a_good_one_forgets_it() {
        let (mut breaker, mut now) = opened();
        for wait in [1, 2, 4, 8, 8] {
            let left = breaker.admit(now).unwrap_err();
            assert!(left.abs_diff(S(wait)) < Duration::from_micros(1), "{left:?} is not {wait} s");
            now += left;
            attempt(&mut breaker, Signal::Ill, now);
        }
        now += S(8);
        attempt(&mut breaker, Signal::Well, now);
        for _ in 0..3 {
            attempt(&mut breaker, Signal::Ill, now);
        }
        assert!(breaker.admit(now).unwrap_err() <= S(1));
    }

    #[test]
    fn what_was_sent_before_it_opened_no_longer_counts() {
        let (mut breaker, now) = breaker();
        let late = breaker.admit(now).unwrap();
        for _ in 0..3 {
            attempt(&mut breaker, Signal::Ill, now);
        }
        breaker.report(late, Signal::Well, now);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn a_throttled_probe_leaves_room_for_the_next() {
        let (mut breaker, now) = opened();
        attempt(&mut breaker, Signal::Neither, now + S(2));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        attempt(&mut breaker, Signal::Well, now + S(2));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_never_reports_does_not_stop_the_site_for_ever() {
        let (mut breaker, now) = opened();
        let lost = breaker.admit(now + S(2)).unwrap();
        assert!(breaker.admit(now + S(11)).is_err());
        let probe = breaker.admit(now + S(13)).unwrap();
        breaker.report(lost, Signal::Ill, now + S(13));
        breaker.report(probe, Signal::Well, now + S(14));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
