//! When to try again: exponential waits with full jitter. The only module that uses the `backoff` crate.
//!
//! Two traps of the crate are dealt with here. It gives up after 15 minutes unless told not to: a change must be retried for
//! as long as it takes. And it adds its jitter after the cap, so that waits exceed the maximum: it is asked for the ceilings
//! only (jitter 0), and the jitter is drawn below them, uniformly from nothing to the ceiling.

use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use rand::Rng;

/// After so many doublings every sensible maximum is reached.
const STEPS_MAX: u32 = 64;

/// The waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    min: Duration,
    max: Duration,
    jitter: bool,
}

impl Schedule {
    /// The first wait is at most `min`, each further one at most twice the one before, none above `max`. A `max` below
    /// `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), jitter: true }
    }

    /// The same without jitter: every wait is its ceiling.
    #[must_use]
    pub const fn without_jitter(self) -> Self {
        Self { jitter: false, ..self }
    }

    /// How long to wait after the `attempt`th attempt failed (the first is 1).
    pub fn delay(&self, attempt: u32) -> Duration {
        self.delay_with(attempt, &mut rand::thread_rng())
    }

    /// As [`Schedule::delay`], and not before the platform wants to be asked again.
    pub fn delay_after(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        self.delay(attempt).max(retry_after.unwrap_or(Duration::ZERO))
    }

    fn delay_with(&self, attempt: u32, random: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling(attempt);
        if !self.jitter {
            return ceiling;
        }
        let nanoseconds = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.gen_range(0..=nanoseconds))
    }

    fn ceiling(&self, attempt: u32) -> Duration {
        let mut waits = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.min)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_interval(self.max)
            .with_max_elapsed_time(None)
            .build();
        let mut ceiling = self.min;
        for _ in 0..attempt.clamp(1, STEPS_MAX) {
            // None only after the elapsed limit, which is off.
            ceiling = waits.next_backoff().unwrap_or(self.max).min(self.max);
        }
        ceiling
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let schedule = Schedule::new(MS(500), MS(3000)).without_jitter();
        let waits: Vec<_> = (0..=5).map(|attempt| schedule.delay(attempt)).collect();
        for (wait, expected) in waits.iter().zip([500, 500, 1000, 2000, 3000, 3000]) {
            // The crate computes in floating point and may be a nanosecond off.
            assert!(wait.abs_diff(MS(expected)) <= Duration::from_nanos(2), "{waits:?}");
        }
    }

    #[test]
    fn the_platforms_wish_is_a_floor() {
        let schedule = Schedule::new(MS(500), MS(3000)).without_jitter();
        assert_eq!(schedule.delay_after(1, Some(MS(60_000))), MS(60_000));
        assert_eq!(schedule.delay_after(1, Some(MS(1))), schedule.delay(1));
    }

    #[test]
    fn waits_spread_over_the_whole_range() {
        let schedule = Schedule::new(MS(1000), MS(8000));
        let mut random = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000).map(|_| schedule.delay_with(9, &mut random)).collect();
        assert!(waits.iter().any(|wait| *wait < MS(800)) && waits.iter().any(|wait| *wait > MS(7200)));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_above_the_maximum_nor_above_its_ceiling(
            min in 1u64..3_600_000, more in 0u64..86_400_000, attempt: u32, seed: u64,
        ) {
            let schedule = Schedule::new(MS(min), MS(min + more));
            let wait = schedule.delay_with(attempt, &mut StdRng::seed_from_u64(seed));
            prop_assert!(wait <= MS(min + more));
            prop_assert!(wait <= schedule.without_jitter().delay(attempt));
        }

        #[test]
        fn ceilings_never_fall(min in 1u64..3_600_000, more in 0u64..86_400_000, attempt in 0u32..100) {
            let schedule = Schedule::new(MS(min), MS(min + more)).without_jitter();
            prop_assert!(schedule.delay(attempt) <= schedule.delay(attempt + 1));
        }
    }
}
