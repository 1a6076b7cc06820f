//! The marker: lets commits through the gate in WAL order and makes them durable in the ledger.
//!
//! The gate: a commit is handed on only once a new snapshot on the ledger's server sees it, and never before an earlier one,
//! whether that one touched anybody or not. A membership that begins with this commit then cannot miss a change that came
//! before it, and a record that is read afterwards is never older than the change that asked for the reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::health::Health;
use crate::delivery::appetite::Appetite;
use crate::delivery::dispatch::Notice;
use crate::failpoint;
use crate::ledger::in_hand::{InHand, Lost};
use crate::ledger::{LedgerError, Marked, Marks, Session, Snapshot};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::selection::{Commit, KeyHash};

/// Commits that are made durable together.
const BATCH_MAX: usize = 5_000;
/// Longest pause between two looks at whether a commit has become visible.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// How long the marker waits for room in hand before it marks instead.
const ROOM_MAX: Duration = Duration::from_millis(200);
/// Employees of a mass change that are handed over; of a larger one all are marked. They wait in memory, some hundred bytes each.
const MASS_MAX: usize = 65_536;
/// How long the marker may be behind the stream and still prefer to hand over: then it marks, which is faster.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// What the reader hands over, in WAL order.
#[derive(Debug)]
pub(super) enum Step {
    /// Committed transactions.
    Commits(Vec<Commit>),
    /// As [`Step::Commits`]: they were collected while nobody read, and are judged together.
    Collected(Vec<Commit>),
    /// The server has nothing before this LSN that was not handed over.
    Idle(Lsn),
}

/// How the marker's work ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The reader has gone; all it handed over is durable.
    WithReader,
    /// The site's description changed: start again with the new one.
    DescriptionChanged,
}

/// Why it ended otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl From<failpoint::Tripped> for MarkError {
    fn from(tripped: failpoint::Tripped) -> Self {
        Self::Ledger(tripped.into())
    }
}

/// Which way a commit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To delivery at once, without a mark.
    InHand,
    /// The same as one mass change, which waits behind everybody else.
    MassInHand,
    /// Into the ledger. `in_full`: it was perhaps in hand before an unclean stop.
    Ledger { in_full: bool },
}

/// What the reader's filter has to know.
#[derive(Debug)]
pub(super) enum Seeded {
    /// Child rows, and how many enrolling commits they cover.
    Rows(u64, Vec<KeyHash>),
    /// Child rows of somebody who is synced could not be read.
    Gaps,
}

pub(super) struct Marker {
    pub(super) session: Arc<Session>,
    pub(super) marks: Marks,
    pub(super) hand: Arc<InHand>,
    pub(super) appetite: Arc<Appetite>,
    /// Commits up to here may have been in hand when the reader before this one was stopped uncleanly.
    pub(super) replayed_until: Lsn,
    /// Commits up to here came together.
    pub(super) collected_until: Lsn,
    /// The mass change in hand.
    pub(super) mass_change: Option<i64>,
    pub(super) seeded: mpsc::UnboundedSender<Seeded>,
    pub(super) notify: mpsc::Sender<Notice>,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
}

impl Marker {
    pub(super) async fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Result<Ended, MarkError> {
        let mut waiting: Vec<Commit> = Vec::new();
        let mut received = Vec::new();
        let mut behind_since = None;
        loop {
            let count = tokio::select! {
                biased;
                lost = self.hand.until_lost() => return Err(lost.into()),
                over = self.hand.until_mass_change_is_over(), if self.mass_change.is_some() => {
                    over?;
                    self.complete_mass_change().await?;
                    continue;
                }
                count = steps.recv_many(&mut received, 64) => count,
            };
            if count == 0 {
                self.until_empty().await?;
                return Ok(Ended::WithReader);
            }
            let mut idle = None;
            for step in received.drain(..) {
                match step {
                    Step::Commits(commits) => {
                        waiting.extend(commits);
                        idle = None;
                    }
                    Step::Collected(commits) => {
                        self.collected_until = commits.last().map_or(Lsn::ZERO, |last| last.end_lsn);
                        waiting.extend(commits);
                        idle = None;
                    }
                    Step::Idle(lsn) => idle = Some(lsn),
                }
            }
            while !waiting.is_empty() {
                let behind = behind_since.is_some_and(|since: Instant| since.elapsed() > BEHIND_MAX);
                if self.pass(&mut waiting, behind).await? == Ended::DescriptionChanged {
                    return Ok(Ended::DescriptionChanged);
                }
            }
            if let Some(lsn) = idle {
                self.hand.passed(self.marks.idle(lsn));
            }
            behind_since =
                if steps.is_empty() { None } else { behind_since.or_else(|| Some(Instant::now())) };
        }
    }

    /// Lets the visible ones at the front of the queue go on: in hand, or into the ledger.
    async fn pass(&mut self, waiting: &mut Vec<Commit>, behind: bool) -> Result<Ended, MarkError> {
        let visible = self.visible(waiting.get(..waiting.len().min(BATCH_MAX)).unwrap_or_default()).await?;
        let batch: Vec<Commit> = waiting.drain(..visible).collect();
        self.metrics.commits(batch.len());
        let open = !behind && self.appetite.most() > 0;
        let collected = batch.iter().take_while(|commit| commit.end_lsn <= self.collected_until).count();
        let collected = batch.get(..collected).unwrap_or_default();
        if open {
            self.marks.learn_limit(&batch, collected).await?;
        }
        let mass_until = if self.marks.is_within_limit(collected) { Lsn::ZERO } else { self.collected_until };
        for (way, part) in parts(&batch, |commit| self.way(commit, open, mass_until)) {
            match way {
                Way::InHand => self.hand_over(part).await?,
                Way::MassInHand => self.hand_over_mass_change(part).await?,
                Way::Ledger { in_full } => {
                    // What this commit does to memberships and links must find what came before it done.
                    self.until_empty().await?;
                    if self.mark(part, in_full).await? == Ended::DescriptionChanged {
                        return Ok(Ended::DescriptionChanged);
                    }
                }
            }
        }
        Ok(Ended::WithReader)
    }

    /// `mass_until`: commits up to there are one mass change.
    fn way(&self, commit: &Commit, open: bool, mass_until: Lsn) -> Way {
        let replayed = commit.end_lsn <= self.replayed_until;
        if !open || replayed || !self.marks.is_light(commit) {
            Way::Ledger { in_full: replayed }
        } else if commit.end_lsn <= mass_until || !self.marks.is_small(commit) {
            Way::MassInHand
        } else {
            Way::InHand
        }
    }

    /// Waits until nothing is in hand: of a mass change whoever still waits is marked, so that it takes no longer than that.
    async fn until_empty(&mut self) -> Result<(), MarkError> {
        if self.mass_change.is_some() {
            drop(self.notify.send(Notice::MarkMassChange).await);
        }
        self.hand.until_empty().await?;
        self.complete_mass_change().await
    }

    /// Of the mass change in hand, if there is one, everybody is delivered or marked.
    async fn complete_mass_change(&mut self) -> Result<(), MarkError> {
        if let Some(batch) = self.mass_change.take() {
            self.marks.complete_mass_change(batch).await?;
            // Delivery judges it. Where that is behind, it looks by itself.
            drop(self.notify.try_send(Notice::Marked { employees: Vec::new(), rescan: true }));
        }
        Ok(())
    }

    /// Makes commits durable in the ledger. They are confirmed once nothing before them is in hand.
    async fn mark(&self, commits: &[Commit], in_full: bool) -> Result<Ended, MarkError> {
        let Some(marked) = self.marks.apply(commits, in_full).await? else { return Ok(Ended::WithReader) };
        failpoint::hit("pending-written").await?;
        if marked.rules {
            failpoint::hit("rules-marked").await?;
        }
        self.hand.passed(marked.persisted);
        let description = marked.description;
        self.tell(marked);
        Ok(if description { Ended::DescriptionChanged } else { Ended::WithReader })
    }

    /// Hands commits to delivery, as many as there is room for; where there is none and none is to be had soon, the rest is
    /// marked.
    async fn hand_over(&self, commits: &[Commit]) -> Result<(), MarkError> {
        let mut rest = commits;
        while let Some(first) = rest.first() {
            let room = self.appetite.most().saturating_sub(self.hand.employees());
            let (count, changes) = self.marks.changes_within(rest, room);
            let (now, later) = rest.split_at(count);
            if let Some(last) = now.last() {
                rest = later;
                let (ids, changes): (Vec<String>, Vec<_>) = changes.into_iter().unzip();
                let tickets = self.hand.hand_over(last.end_lsn, None, changes);
                if !tickets.is_empty() {
                    let employees = ids.into_iter().zip(tickets).collect();
                    // A closed channel drops the tickets: the reader session ends.
                    drop(self.notify.send(Notice::InHand(employees)).await);
                    failpoint::hit("in-hand").await?;
                }
                continue;
            }
            let wanted = first.touches.as_ref().map_or(0, |touches| touches.employees().count());
            // An eighth at once: a hand-over for each place that becomes free would cost more than it saves, and with half
            // of all there is neither the platform nor the ledger would be busy all the time.
            let most = self.appetite.most();
            let fewer = most.saturating_sub(wanted).min(most - most / 8);
            if fewer > 0
                && self.appetite.is_fast()
                && let Ok(room) = tokio::time::timeout(ROOM_MAX, self.hand.until_fewer(fewer)).await
            {
                room?;
                continue;
            }
            self.mark(rest, false).await?;
            break;
        }
        Ok(())
    }

    /// Hands over a mass change, whole: marked, its people would cost the ledger more than twice as much. One at a time, and
    /// only while delivery is fast; else it is marked, as are the pieces of one that other commits have parted.
    async fn hand_over_mass_change(&mut self, commits: &[Commit]) -> Result<(), MarkError> {
        if self.mass_change.is_none() && self.appetite.is_fast() && !self.marks.is_within_limit(commits) {
            let (count, changes) = self.marks.changes_within(commits, MASS_MAX);
            if let Some(last) = commits.last().filter(|_| count == commits.len() && !changes.is_empty()) {
                let batch = self.marks.note_mass_change(commits).await?;
                self.mass_change = Some(batch);
                let (ids, changes): (Vec<String>, Vec<_>) = changes.into_iter().unzip();
                let tickets = self.hand.hand_over(last.end_lsn, Some(batch), changes);
                let employees = ids.into_iter().zip(tickets).collect();
                // A closed channel drops the tickets: the reader session ends.
                drop(self.notify.send(Notice::InHand(employees)).await);
                failpoint::hit("mass-in-hand").await?;
                return Ok(());
            }
        }
        self.mark(commits, false).await.map(drop)
    }

    /// Waits until the first commit is visible; how many at the front are.
    async fn visible(&self, commits: &[Commit]) -> Result<usize, LedgerError> {
        let since = Instant::now();
        let mut pause = Duration::from_micros(500);
        loop {
            let snapshot = self.snapshot().await?;
            let count = commits.iter().take_while(|commit| snapshot.sees(commit.xid)).count();
            if count > 0 || commits.is_empty() {
                self.metrics.invisible(Duration::ZERO);
                self.health.set_invisible(None);
                return Ok(count);
            }
            self.metrics.invisible(since.elapsed());
            self.health.set_invisible(Some(since));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        let rows = self.session.query("take a snapshot", "select pg_current_snapshot()::text", &[]).await?;
        let text: &str = rows.first().map(|row| row.get(0)).unwrap_or_default();
        text.parse().map_err(|error: crate::ledger::SnapshotError| LedgerError::Unexpected(error.to_string()))
    }

    /// Delivery hears of it at once; where it is behind, its own scan finds it later.
    fn tell(&self, marked: Marked) {
        // Without a reader there is no filter to complete.
        if marked.gaps {
            drop(self.seeded.send(Seeded::Gaps));
        }
        if let Some((enrolments, rows)) = marked.seeded {
            drop(self.seeded.send(Seeded::Rows(enrolments, rows)));
        }
        if marked.rules || marked.description {
            drop(self.notify.try_send(Notice::Rules));
        }
        if !marked.due.is_empty() || marked.rescan {
            drop(self.notify.try_send(Notice::Marked { employees: marked.due, rescan: marked.rescan }));
        }
    }
}

/// Runs of commits that go the same way. Those that touch nobody go along with those before them.
fn parts(commits: &[Commit], way: impl Fn(&Commit) -> Way) -> Vec<(Way, &[Commit])> {
    let mut parts: Vec<(Way, &[Commit])> = Vec::new();
    let mut rest = commits;
    while let Some(first) = rest.first() {
        let own = way(first);
        let differs = |commit: &Commit| commit.touches.is_some() && way(commit) != own;
        let (part, later) = rest.split_at(rest.iter().position(differs).unwrap_or(rest.len()));
        parts.push((own, part));
        rest = later;
    }
    parts
}
