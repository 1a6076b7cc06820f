//! Fail points: named steps at which a test lets the program die, fail or wait. Only in builds with the feature
//! `failpoints`, which nothing but the tests' own build turns on; everywhere else [`hit`] is an empty function.
//!
//! `BENEFITS_SYNC_FAILPOINTS` holds them, between semicolons: `STEP=ACTION[@N]`, at the step's Nth time (default: the first).
//!
//! | action | does |
//! |---|---|
//! | `abort` | ends the process at once, as kill -9 would: nothing is cleaned up, no connection is closed in order |
//! | `error` | the step fails |
//! | `pause:PATH` | makes the file `PATH.reached`, then waits for the file `PATH` |
//!
//! Steps in the order a change walks through them: `row-read`, `commit-handed`, `pending-written`, `lsn-confirmed` (reader);
//! `record-read`, `intent-written`, `request-sent` (about to leave), `answer-received`, `outcome-recorded` (delivery). The
//! outcome is recorded and the pending row cleared by one statement, so between the two there is no step. In hand,
//! `in-hand`, or `mass-in-hand`, takes the place of `pending-written`, and `update-accepted` stands before `outcome-recorded`. `slot-taken` comes before the stream begins, `command-page` after each page of a command for thousands but the last, and
//! `rules-marked` is `pending-written` of changed translations, levels or packages.

#[cfg(feature = "failpoints")]
pub use armed::{Tripped, hit};

#[cfg(not(feature = "failpoints"))]
pub use absent::{Tripped, hit};

#[cfg(not(feature = "failpoints"))]
mod absent {
    /// Cannot be.
    #[derive(Debug, thiserror::Error)]
    pub enum Tripped {}

    /// Nothing.
    #[inline]
    #[expect(clippy::unused_async, reason = "with fail points it may wait")]
    pub async fn hit(_step: &str) -> Result<(), Tripped> {
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// A fail point has made this step fail.
    #[derive(Debug, thiserror::Error)]
    #[error("the fail point {0} has tripped")]
    pub struct Tripped(String);

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        Abort,
        Fail,
        Pause(PathBuf),
    }

    #[derive(Debug)]
    struct Point {
        step: String,
        action: Action,
        /// Which time; counts from 1.
        at: u64,
        times: AtomicU64,
    }

    /// Does what is armed for the step, if anything is.
    pub async fn hit(step: &str) -> Result<(), Tripped> {
        static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
        let points =
            POINTS.get_or_init(|| parse(&std::env::var("BENEFITS_SYNC_FAILPOINTS").unwrap_or_default()));
        for point in points.iter().filter(|point| point.step == step) {
            if point.times.fetch_add(1, Ordering::Relaxed) + 1 == point.at {
                act(point).await?;
            }
        }
        Ok(())
    }

    async fn act(point: &Point) -> Result<(), Tripped> {
        match &point.action {
            Action::Abort => std::process::abort(),
            Action::Fail => Err(Tripped(point.step.clone())),
            Action::Pause(path) => {
                pause(path).await;
                Ok(())
            }
        }
    }

    async fn pause(path: &Path) {
        let mut reached = path.as_os_str().to_owned();
        reached.push(".reached");
        drop(std::fs::write(reached, ""));
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What cannot be read is left out and said: the test that set it then fails for want of its fault.
    fn parse(text: &str) -> Vec<Point> {
        let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
        let points = items.filter_map(|item| {
            let point = point(item);
            if point.is_none() {
                tracing::error!(item, "BENEFITS_SYNC_FAILPOINTS: not a fail point");
            }
            point
        });
        points.collect()
    }

    fn point(item: &str) -> Option<Point> {
        let (step, action) = item.split_once('=')?;
        let (action, at) = match action.rsplit_once('@') {
            Some((action, at)) => (action, at.parse().ok()?),
            None => (action, 1),
        };
        let action = match action.split_once(':') {
            None if action == "abort" => Action::Abort,
            None if action == "error" => Action::Fail,
            Some(("pause", path)) => Action::Pause(PathBuf::from(path)),
            _ => return None,
        };
        Some(Point { step: step.to_owned(), action, at, times: AtomicU64::new(0) })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_an_action_and_which_time() {
            let points = parse("row-read=abort; intent-written=error@3 ;x=pause:/tmp/p@2;nonsense;y=z");
            let seen: Vec<_> = points.iter().map(|p| (p.step.as_str(), &p.action, p.at)).collect();
            assert_eq!(
                seen,
                [
                    ("row-read", &Action::Abort, 1),
                    ("intent-written", &Action::Fail, 3),
                    ("x", &Action::Pause(PathBuf::from("/tmp/p")), 2),
                ]
            );
        }
    }
}
