//! How many requests a second may go, and that none goes before the platform wants to be asked again.
//!
//! A token bucket with room for one token: requests are evenly spaced, so that no second holds more than the ceiling. A 429
//! with `Retry-After` holds back the whole site, since the platform counts the site's requests and not one employee's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Spaces the site's requests.
#[derive(Debug)]
pub struct Rate {
    /// Between two requests; zero without a ceiling.
    interval: Duration,
    times: Mutex<Times>,
}

#[derive(Debug)]
struct Times {
    /// When the next request may go.
    next: Instant,
    /// No request goes before.
    held_until: Instant,
}

impl Rate {
    /// With a ceiling on requests a second, or none.
    pub fn new(requests_per_second: Option<f64>) -> Self {
        let interval = requests_per_second
            .and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok())
            .unwrap_or(Duration::ZERO);
        let now = Instant::now();
        Self { interval, times: Mutex::new(Times { next: now, held_until: now }) }
    }

    /// Waits until one request may go. A caller that stops waiting loses its turn and nothing else.
    pub async fn acquire(&self) {
        loop {
            let turn = {
                let mut times = self.times();
                let now = Instant::now();
                let turn = times.next.max(times.held_until).max(now);
                times.next = turn + self.interval;
                if turn == now {
                    // Not even a sleep of no length: the timer counts in milliseconds, and rounds up.
                    return;
                }
                turn
            };
            sleep_until(turn).await;
            // A hold that came while this one waited: everybody queues anew behind it, evenly spaced.
            if self.times().held_until <= turn {
                return;
            }
        }
    }

    /// Lets no request go for so long. Never shortens a hold.
    pub fn hold(&self, wait: Duration) {
        let mut times = self.times();
        let until = Instant::now() + wait;
        if until > times.held_until {
            times.held_until = until;
            // Turns that were given away already, after the hold, stay so: who has to queue anew comes behind them.
            times.next = times.next.max(until);
        }
    }

    /// How long requests are still held back; none where they are not.
    pub fn held_for(&self) -> Option<Duration> {
        let left = self.times().held_until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The state is two plain values that are valid at any moment, so a poisoned lock is as good as any.
    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_ceiling() {
        let rate = Rate::new(Some(50.0));
        let start = Instant::now();
        for _ in 0..101 {
            rate.acquire().await;
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    }

    /// On the real clock: a paused one stands exactly at a tick, where a sleep of no length ends at once.
    #[tokio::test]
    async fn without_a_ceiling_nobody_waits_for_a_tick_of_the_timer() {
        use futures_util::FutureExt as _;
        let rate = Rate::new(None);
        for _ in 0..100 {
            assert!(rate.acquire().now_or_never().is_some());
        }
        rate.hold(Duration::from_secs(1));
        assert!(rate.acquire().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_time_is_not_saved_up() {
        let rate = Rate::new(Some(10.0));
        tokio::time::advance(Duration::from_mins(1)).await;
        let start = Instant::now();
        for _ in 0..11 {
            rate.acquire().await;
        }
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_ceiling_nobody_waits() {
        let rate = Rate::new(None);
        let start = Instant::now();
        for _ in 0..10_000 {
            rate.acquire().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_hold_those_who_waited_through_it_are_spaced_too() {
        let rate = Arc::new(Rate::new(Some(2.0)));
        let start = Instant::now();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let rate = Arc::clone(&rate);
            waiting.spawn(async move {
                rate.acquire().await;
                start.elapsed()
            });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        rate.hold(Duration::from_secs(3));
        let mut went = waiting.join_all().await;
        went.sort_unstable();
        assert!(
            went.iter().all(|at| *at <= Duration::from_secs(1) || *at >= Duration::from_secs(4)),
            "{went:?}"
        );
        for pair in went.windows(2) {
            assert!(pair[1].saturating_sub(pair[0]) >= Duration::from_millis(499), "{went:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_everybody_those_who_wait_too_and_is_never_shortened() {
        let rate = Arc::new(Rate::new(Some(1.0)));
        let start = Instant::now();
        rate.acquire().await;
        let waiting = tokio::spawn({
            let rate = Arc::clone(&rate);
            async move {
                rate.acquire().await;
                start.elapsed()
            }
        });
        tokio::task::yield_now().await;
        rate.hold(Duration::from_secs(30));
        rate.hold(Duration::from_secs(5));
        assert_eq!(rate.held_for(), Some(Duration::from_secs(30)));
        let waited = waiting.await.unwrap();
        assert!(waited >= Duration::from_secs(30), "{waited:?}");
        rate.acquire().await;
        assert!(start.elapsed() >= Duration::from_secs(31));
    }
}
