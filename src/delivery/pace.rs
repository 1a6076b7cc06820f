//! How many employees may be under way: enough to keep the platform and the ledger busy, and so few that a single change
//! does not wait long behind those that were prepared before it. Pure; the time is a parameter.
//!
//! A fast platform is limited by the ledger's flushes, and wants hundreds in each; a slow one by its own answers, and
//! everything that is prepared beyond them only waits. So the number follows the rate at which deliveries end: what ends
//! within `AHEAD`, above a floor, and of what goes beyond [`FAST_PER_SECOND`] what ends within `AHEAD_FAST`.

use std::time::{Duration, Instant};

/// Deliveries of this much time are under way at once. Several flushes of the ledger, a fraction of a second to a person.
const AHEAD: Duration = Duration::from_millis(45);
/// Of deliveries beyond [`FAST_PER_SECOND`] so much more time is under way.
const AHEAD_FAST: Duration = Duration::from_millis(50);
/// Deliveries a second from which on the ledger's flushes are the limit, and not the platform's answers.
pub const FAST_PER_SECOND: f64 = 2_000.0;
/// The rate is counted over windows of this length.
const WINDOW: Duration = Duration::from_millis(20);

/// What is left of a higher rate after each window.
const KEPT: f64 = 0.8;
/// Supposed of a platform of which nothing is known yet. A few windows are enough to learn that it is slow.
const SUPPOSED_PER_SECOND: f64 = 3.0 * FAST_PER_SECOND;

/// Follows the rate at which deliveries end.
#[derive(Debug)]
pub struct Pace {
    floor: usize,
    ceiling: usize,
    since: Instant,
    ended: u32,
    per_second: f64,
}

impl Pace {
    /// Between `floor` and `ceiling` employees under way.
    pub fn new(floor: usize, ceiling: usize, now: Instant) -> Self {
        Self { floor, ceiling: ceiling.max(floor), since: now, ended: 0, per_second: SUPPOSED_PER_SECOND }
    }

    /// A delivery has ended.
    pub fn ended(&mut self, now: Instant) {
        self.ended = self.ended.saturating_add(1);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            // Outcomes are recorded many at a time, so that a window may meet few by chance.
            let lately = f64::from(self.ended) / elapsed.as_secs_f64();
            self.per_second = lately.max(self.per_second * KEPT);
            self.since = now;
            self.ended = 0;
        }
    }

    /// Whether deliveries have been ending at less than this rate lately. Of an idle delivery nothing is known.
    pub fn is_slower_than(&self, per_second: f64, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.since) > 10 * WINDOW;
        !idle && self.per_second < per_second
    }

    /// How many may be under way.
    pub fn under_way_max(&self) -> usize {
        let fast = (self.per_second - FAST_PER_SECOND).max(0.0) * AHEAD_FAST.as_secs_f64();
        let ahead = self.per_second * AHEAD.as_secs_f64() + fast;
        let ahead = Duration::try_from_secs_f64(ahead).unwrap_or_default();
        // Whole seconds of a duration are a float's whole part, without a cast that could go wrong.
        let ahead = usize::try_from(ahead.as_secs()).unwrap_or(usize::MAX);
        self.floor.saturating_add(ahead).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace_after(per_second: u32) -> usize {
        let start = Instant::now();
        let mut pace = Pace::new(64, 2_000, start);
        for n in 1..=per_second {
            pace.ended(start + Duration::from_secs(1) * n / per_second);
        }
        pace.under_way_max()
    }

    #[test]
    fn a_slow_platform_keeps_few_under_way() {
        assert!((64..=64 + 90).contains(&pace_after(1_600)));
    }

    #[test]
    fn a_fast_platform_keeps_the_ledgers_flushes_full() {
        assert!(pace_after(20_000) > 1_000);
    }

    #[test]
    fn nothing_is_held_against_an_idle_delivery() {
        let start = Instant::now();
        let mut pace = Pace::new(64, 2_000, start);
        assert!(!pace.is_slower_than(FAST_PER_SECOND, start), "nothing is known of it");
        for n in 1..=100 {
            pace.ended(start + n * WINDOW);
        }
        let end = start + 100 * WINDOW;
        assert!(pace.is_slower_than(100.0, end) && !pace.is_slower_than(10.0, end));
        assert!(!pace.is_slower_than(100.0, end + Duration::from_secs(1)));
    }

    #[test]
    fn a_window_that_meets_few_by_chance_changes_little_and_a_faster_one_everything() {
        let start = Instant::now();
        let mut pace = Pace::new(64, 2_000, start);
        for n in 1..=50 {
            pace.ended(start + n * WINDOW);
        }
        let slow = pace.under_way_max();
        for _ in 0..400 {
            pace.ended(start + 50 * WINDOW);
        }
        pace.ended(start + 51 * WINDOW);
        let fast = pace.under_way_max();
        pace.ended(start + 52 * WINDOW);
        assert!(slow < 70 && fast > 1_000, "{slow} {fast}");
        assert!(pace.under_way_max() > fast * 3 / 4);
    }

    #[test]
    fn nothing_exceeds_the_ceiling_or_falls_below_the_floor() {
        assert_eq!(pace_after(1_000_000), 2_000);
        assert_eq!(pace_after(1), 64 + 216 + 140);
    }
}
