//! Whether the long-lived tasks turn over: what `/livez` and systemd's watchdog answer from.
//!
//! A task beats each time that it has been polled to the end of what it could do, which all of them are every few seconds,
//! whatever is away. One that is not has lost its wake-up, blocks its thread or has panicked: only a restart mends that.

use std::future::{Future, poll_fn};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a task may take to turn over. Longer than any statement of ours may take (90 s), which is the longest wait of all.
pub const TURNS_OVER_MAX: Duration = Duration::from_mins(2);

/// The tasks that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Reads the WAL and marks.
    Reader,
    /// Sends.
    Delivery,
    /// Keeps the gauges true.
    Observer,
}

impl Task {
    const ALL: [Self; 3] = [Self::Reader, Self::Delivery, Self::Observer];

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Delivery => "delivery",
            Self::Observer => "observer",
        }
    }
}

/// A task that has not turned over for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// Which.
    pub task: Task,
    /// For how long it should have.
    pub overdue: Duration,
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let silent = self.overdue + TURNS_OVER_MAX;
        write!(f, "the {} has not turned over for {} s", self.task.name(), silent.as_secs())
    }
}

/// When each task has to have turned over; `None` for one that does not run.
#[derive(Debug, Default)]
pub struct Pulse {
    due: [Mutex<Option<Instant>>; Task::ALL.len()],
}

impl Pulse {
    /// Runs a task and notes each time that it turns over.
    pub async fn watch<F: Future>(&self, task: Task, future: F) -> F::Output {
        let output = self.beat_with(task, future).await;
        self.with(task, |due| *due = None);
        output
    }

    /// Runs a part of a task, which the rest of it may wait for as long as the part makes progress.
    pub async fn beat_with<F: Future>(&self, task: Task, future: F) -> F::Output {
        let mut future = Box::pin(future);
        self.rest(task, Duration::ZERO);
        poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            self.rest(task, Duration::ZERO);
            polled
        })
        .await
    }

    /// The task means to do nothing for so long.
    pub fn rest(&self, task: Task, wait: Duration) {
        let until = Instant::now() + wait + TURNS_OVER_MAX;
        self.with(task, |due| *due = Some(due.map_or(until, |due| due.max(until))));
    }

    /// The tasks that are overdue.
    pub fn stalled(&self) -> Vec<Stalled> {
        let now = Instant::now();
        let overdue = |task| {
            let due = self.with(task, |due| *due)?;
            let overdue = now.checked_duration_since(due).filter(|overdue| !overdue.is_zero())?;
            Some(Stalled { task, overdue })
        };
        Task::ALL.into_iter().filter_map(overdue).collect()
    }

    fn with<T>(&self, task: Task, change: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        let [reader, delivery, observer] = &self.due;
        let due = match task {
            Task::Reader => reader,
            Task::Delivery => delivery,
            Task::Observer => observer,
        };
        change(&mut due.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
        tokio::task::yield_now().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ticks_is_well_and_one_that_waits_for_ever_is_named() {
        let pulse = Arc::new(Pulse::default());
        let (ticking, stuck) = (Arc::clone(&pulse), Arc::clone(&pulse));
        tokio::spawn(async move {
            ticking
                .watch(Task::Observer, async {
                    loop {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                })
                .await;
        });
        tokio::spawn(async move { stuck.watch(Task::Reader, std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        pass(Duration::from_secs(100)).await;
        assert_eq!(pulse.stalled(), [], "nobody is late yet, and delivery does not run");
        for _ in 0..10 {
            pass(Duration::from_secs(5)).await;
        }
        let stalled = pulse.stalled();
        assert_eq!(stalled.len(), 1);
        assert_eq!(stalled[0].to_string(), "the reader has not turned over for 150 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_a_part_of_itself_is_well_as_long_as_that_makes_progress() {
        let pulse = Arc::new(Pulse::default());
        let (whole, part) = (Arc::clone(&pulse), Arc::clone(&pulse));
        let (held, waited_for) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move { whole.watch(Task::Reader, waited_for).await });
        tokio::spawn(async move {
            let steps = async {
                for _ in 0..100 {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                std::future::pending::<()>().await;
            };
            part.beat_with(Task::Reader, steps).await;
        });
        tokio::task::yield_now().await;
        for _ in 0..100 {
            pass(Duration::from_secs(5)).await;
            assert_eq!(pulse.stalled(), []);
        }
        pass(Duration::from_mins(3)).await;
        assert_eq!(pulse.stalled().len(), 1, "neither does anything any more");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_may_rest_for_as_long_as_it_says_and_one_that_has_ended_is_not_missed() {
        let pulse = Pulse::default();
        pulse.rest(Task::Reader, Duration::from_mins(10));
        pulse.rest(Task::Reader, Duration::ZERO);
        pass(Duration::from_mins(11)).await;
        assert_eq!(pulse.stalled(), []);
        pass(Duration::from_mins(2)).await;
        assert_eq!(pulse.stalled().len(), 1);
        pulse.watch(Task::Reader, async {}).await;
        pass(Duration::from_hours(1)).await;
        assert_eq!(pulse.stalled(), []);
    }
}
