//! Whether a request may go now: not halted, within the rate, within the concurrency, the breaker not open.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, BreakerState, Permit, Signal};
use super::rate::Rate;
use super::retry::Schedule;
use crate::config::Delivery;

/// Employees in a row whose requests fail, without one that is answered, before the breaker opens. One employee whose
/// record the platform chokes on is held back by their own backoff and says nothing of the others.
const FAILURES_MAX: u32 = 10;
/// How long delivery of a halted site waits before the platform is asked again.
const HALT_WAIT: Duration = Duration::from_secs(5);
/// Who meets a probe under way waits no longer than this: the probe may be over in a moment.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// The shortest wait after a 429 that does not name one.
const THROTTLED_MIN: Duration = Duration::from_secs(1);

/// The way out to the platform, shared by all deliveries of an instance.
pub struct Gate {
    slots: Semaphore,
    /// Whoever goes in turn waits here, so that no more than one of them is before a single change at the slots and the rate.
    line: tokio::sync::Mutex<()>,
    rate: Rate,
    schedule: Schedule,
    /// Cancelled when the instance stops: nobody else enters.
    closed: CancellationToken,
    state: Mutex<State>,
}

/// Who goes first where many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// A single change: before all who go in turn.
    Ahead,
    /// Everybody else: a backlog, a first sync, a mass change.
    InTurn,
}

struct State {
    breaker: Breaker,
    /// Whose requests have failed since the last that was answered.
    ill: HashSet<u64>,
    /// 429s without a wait of their own since the last request that was answered otherwise.
    throttled: u32,
    halted: Option<String>,
    /// Halted, and one employee may go nevertheless: to see whether the cause is mended.
    trial: bool,
}

/// Leave for one request.
pub struct Pass<'g> {
    _slot: SemaphorePermit<'g>,
    permit: Permit,
    who: u64,
}

impl Gate {
    /// As configured.
    pub fn new(delivery: &Delivery) -> Self {
        let schedule = Schedule::new(delivery.backoff_min, delivery.backoff_max);
        let breaker = Breaker::new(FAILURES_MAX, schedule, delivery.timeout.saturating_mul(2));
        Self {
            slots: Semaphore::new(delivery.concurrency),
            line: tokio::sync::Mutex::default(),
            rate: Rate::new(delivery.requests_per_second),
            schedule,
            closed: CancellationToken::new(),
            state: Mutex::new(State {
                breaker,
                ill: HashSet::new(),
                throttled: 0,
                halted: None,
                trial: false,
            }),
        }
    }

    /// Waits for a turn of this employee's. An error is how long to leave the platform alone.
    pub async fn enter(&self, employee: &str, precedence: Precedence) -> Result<Pass<'_>, Duration> {
        self.refusal()?;
        let turn = async {
            let in_line = match precedence {
                Precedence::Ahead => None,
                Precedence::InTurn => Some(self.line.lock().await),
            };
            let slot = self.slots.acquire().await;
            // A ceiling gives turns in the order in which they are asked for: no more than one of the line has one.
            self.rate.acquire().await;
            drop(in_line);
            slot
        };
        let Some(Ok(slot)) = self.closed.run_until_cancelled(turn).await else { return Err(Duration::ZERO) };
        self.refusal()?;
        let mut hasher = DefaultHasher::new();
        employee.hash(&mut hasher);
        let permit = self.state().breaker.admit(Instant::now()).map_err(|wait| wait.min(PROBE_WAIT))?;
        Ok(Pass { _slot: slot, permit, who: hasher.finish() })
    }

    /// What came of a request.
    pub fn leave(&self, pass: Pass<'_>, signal: Signal) {
        let mut state = self.state();
        let counts = match signal {
            Signal::Ill => state.ill.insert(pass.who) || state.breaker.state() != BreakerState::Closed,
            Signal::Well => {
                state.ill.clear();
                state.throttled = 0;
                true
            }
            Signal::Neither => true,
        };
        let signal = if counts { signal } else { Signal::Neither };
        state.breaker.report(pass.permit, signal, Instant::now());
    }

    /// The platform asks to be left alone, for so long or for a while; how long that is.
    pub fn throttled(&self, asked: Option<Duration>) -> Duration {
        // "At once", or a time that has passed by our clock, names no wait: to obey it would be to hammer.
        let wait = asked.filter(|wait| !wait.is_zero()).unwrap_or_else(|| {
            let mut state = self.state();
            // Those that were under way together are one answer.
            if self.rate.held_for().is_none() {
                state.throttled = state.throttled.saturating_add(1);
            }
            self.schedule.delay(state.throttled).max(THROTTLED_MIN)
        });
        self.rate.hold(wait);
        wait
    }

    /// Stops delivery for the site.
    pub fn halt(&self, code: &str) {
        let mut state = self.state();
        state.halted = Some(code.to_owned());
        state.trial = false;
    }

    /// Lets one employee go although the site is halted, or ends that.
    pub fn set_trial(&self, on: bool) {
        self.state().trial = on;
    }

    /// Whether the site is halted and one employee may go nevertheless.
    pub fn is_on_trial(&self) -> bool {
        let state = self.state();
        state.trial && state.halted.is_some()
    }

    /// Goes on after a halt.
    pub fn resume(&self) {
        let mut state = self.state();
        state.halted = None;
        state.trial = false;
    }

    /// Lets nobody in any more; who is in ends.
    pub fn close(&self) {
        self.closed.cancel();
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
    /// the breaker wants a probe or a halt is on trial.
    pub fn room(&self, wanted: usize) -> usize {
        if self.refusal().is_err() {
            0
        } else if self.breaker() == BreakerState::Closed && !self.is_on_trial() {
            wanted
        } else {
            wanted.min(1)
        }
    }

    fn refusal(&self) -> Result<(), Duration> {
        if let Some(wait) = self.rate.held_for() {
            return Err(wait);
        }
        let state = self.state();
        if state.halted.is_some() && !state.trial {
            return Err(HALT_WAIT);
        }
        let left = state.breaker.blocked_until().map(|until| until.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(left) if state.breaker.state() == BreakerState::HalfOpen => Err(left.min(PROBE_WAIT)),
            Some(left) => Err(left),
            None => Ok(()),
        }
    }

    /// The state is valid between any two statements, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Delivery {
        let text = "[database]\nurl = \"postgresql://u@h/d\"\n[benefits]\nplatform_id = \"p\"\nsubdomain = \"s\"\n\
                    token_file = \"t\"\nemail_source = \"work\"\n[delivery]\nbackoff_min = \"50ms\"\nbackoff_max = \"100ms\"\n";
        crate::config::Config::parse(text, "test", []).unwrap().delivery
    }

    fn gate() -> Gate {
        Gate::new(&delivery())
    }

    async fn attempt(gate: &Gate, who: &str, signal: Signal) {
        let pass = gate.enter(who, Precedence::InTurn).await.unwrap();
        gate.leave(pass, signal);
    }

    /// Opened by ten employees' failures, its wait over: the next to enter is the probe.
    async fn wanting_a_probe() -> Gate {
        let gate = gate();
        for who in 0..10 {
            attempt(&gate, &who.to_string(), Signal::Ill).await;
        }
        assert_eq!(gate.breaker(), BreakerState::Open);
        while gate.room(5) == 0 {
            tokio::task::yield_now().await;
        }
        gate
    }

    #[tokio::test]
    async fn one_employee_who_always_fails_opens_nothing_for_the_others() {
        let gate = gate();
        for _ in 0..100 {
            attempt(&gate, "1", Signal::Ill).await;
        }
        assert_eq!((gate.breaker(), gate.room(5)), (BreakerState::Closed, 5));
    }

    #[tokio::test]
    async fn who_meets_the_probe_waits_for_the_probe_and_not_for_its_time_limit() {
        let gate = wanting_a_probe().await;
        assert_eq!(gate.room(5), 1);
        let probe = gate.enter("a", Precedence::InTurn).await.unwrap();
        assert_eq!(gate.room(5), 0);
        assert!(gate.enter("b", Precedence::InTurn).await.is_err_and(|wait| wait <= PROBE_WAIT));
        gate.leave(probe, Signal::Well);
        assert_eq!(gate.room(5), 5);
        attempt(&gate, "b", Signal::Well).await;
    }

    #[tokio::test]
    async fn a_failed_probe_blocks_for_the_breakers_wait_and_no_longer() {
        let gate = wanting_a_probe().await;
        let probe = gate.enter("a", Precedence::InTurn).await.unwrap();
        assert!(gate.enter("b", Precedence::InTurn).await.is_err());
        gate.leave(probe, Signal::Ill);
        // The schedule's longest wait, and not twice the request's timeout.
        assert!(
            gate.enter("b", Precedence::InTurn).await.is_err_and(|wait| wait <= Duration::from_millis(100))
        );
    }

    #[tokio::test]
    async fn throttling_without_a_wait_backs_off_and_holds_everybody() {
        let gate = gate();
        assert!(gate.throttled(None) >= THROTTLED_MIN);
        assert_eq!(gate.room(5), 0);
        assert!(gate.enter("a", Precedence::InTurn).await.is_err());
        assert_eq!(gate.throttled(Some(Duration::from_secs(7))), Duration::from_secs(7));
    }

    #[tokio::test]
    async fn a_wait_of_nothing_is_no_wait_that_was_named() {
        let gate = gate();
        assert!(gate.throttled(Some(Duration::ZERO)) >= THROTTLED_MIN);
        assert_eq!(gate.room(5), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn under_a_ceiling_a_single_change_goes_before_all_who_wait_in_turn_but_one() {
        let delivery = Delivery { requests_per_second: Some(2.0), ..delivery() };
        let gate = Gate::new(&delivery);
        let start = tokio::time::Instant::now();
        let backlog = futures_util::future::join_all((0..20).map(|who| {
            let gate = &gate;
            async move { gate.enter(&who.to_string(), Precedence::InTurn).await.unwrap() }
        }));
        let single = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(gate.enter("single", Precedence::Ahead).await.unwrap());
            start.elapsed()
        };
        let (inside, waited) = tokio::join!(backlog, single);
        assert!(waited <= Duration::from_millis(1100), "{waited:?}");
        drop(inside);
    }

    #[tokio::test]
    async fn a_single_change_goes_before_all_who_wait_in_turn_but_one() {
        let gate = gate();
        let mut inside = Vec::new();
        for who in 0..32 {
            inside.push(gate.enter(&who.to_string(), Precedence::InTurn).await.unwrap());
        }
        let order = Mutex::new(Vec::new());
        let wait = async |who: &'static str, precedence| {
            let pass = gate.enter(who, precedence).await.unwrap();
            order.lock().unwrap().push(who);
            pass
        };
        let in_turn = Precedence::InTurn;
        let entered = tokio::join!(
            wait("first", in_turn),
            wait("second", in_turn),
            wait("third", in_turn),
            wait("single", Precedence::Ahead),
            async {
                for pass in inside {
                    gate.leave(pass, Signal::Well);
                    tokio::task::yield_now().await;
                }
            },
        );
        assert_eq!(*order.lock().unwrap(), ["first", "single", "second", "third"]);
        drop(entered);
    }

    #[tokio::test]
    async fn a_closed_gate_lets_nobody_in_and_leaves_nobody_waiting() {
        let gate = gate();
        let inside: Vec<_> = futures_util::future::join_all((0..32).map(|who| {
            let gate = &gate;
            async move { gate.enter(&who.to_string(), Precedence::InTurn).await.unwrap() }
        }))
        .await;
        let (waiting, ()) = tokio::join!(gate.enter("late", Precedence::InTurn), async { gate.close() });
        assert!(waiting.is_err_and(|wait| wait.is_zero()));
        drop(inside);
    }
}
