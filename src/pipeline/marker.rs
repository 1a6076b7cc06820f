//! The marker: lets commits through the gate in WAL order and makes them durable in the ledger.
//!
//! The gate: a commit is handed on only once a new snapshot on the ledger's server sees it, and never before an earlier one,
//! whether that one touched anybody or not. A membership that begins with this commit then cannot miss a change that came
//! before it, and a record that is read afterwards is never older than the change that asked for the reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::health::Health;
use crate::delivery::dispatch::Notice;
use crate::failpoint;
use crate::ledger::{LedgerError, Marked, Marks, Session, Snapshot};
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::selection::{Commit, KeyHash};

/// Commits that are made durable together.
const BATCH_MAX: usize = 5_000;
/// Longest pause between two looks at whether a commit has become visible.
const LOOK_MAX: Duration = Duration::from_millis(50);

/// What the reader hands over, in WAL order.
#[derive(Debug)]
pub(super) enum Step {
    /// Committed transactions.
    Commits(Vec<Commit>),
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

/// Child rows that the reader's filter has to know, and how many enrolling commits they cover.
pub(super) type Seeded = (u64, Vec<KeyHash>);

pub(super) struct Marker {
    pub(super) session: Arc<Session>,
    pub(super) marks: Marks,
    pub(super) confirmed: watch::Sender<Lsn>,
    pub(super) seeded: mpsc::UnboundedSender<Seeded>,
    pub(super) notify: mpsc::Sender<Notice>,
    pub(super) metrics: Metrics,
    pub(super) health: Arc<Health>,
}

impl Marker {
    pub(super) async fn run(self, mut steps: mpsc::Receiver<Step>) -> Result<Ended, LedgerError> {
        let mut waiting: Vec<Commit> = Vec::new();
        let mut received = Vec::new();
        while steps.recv_many(&mut received, 64).await > 0 {
            let mut idle = None;
            for step in received.drain(..) {
                match step {
                    Step::Commits(commits) => {
                        waiting.extend(commits);
                        idle = None;
                    }
                    Step::Idle(lsn) => idle = Some(lsn),
                }
            }
            while !waiting.is_empty() {
                if self.pass(&mut waiting).await? == Ended::DescriptionChanged {
                    return Ok(Ended::DescriptionChanged);
                }
            }
            if let Some(lsn) = idle {
                super::advance(&self.confirmed, self.marks.idle(lsn).get());
            }
        }
        Ok(Ended::WithReader)
    }

    /// Makes the visible ones at the front of the queue durable, and confirms them.
    async fn pass(&self, waiting: &mut Vec<Commit>) -> Result<Ended, LedgerError> {
        let visible = self.visible(waiting.get(..waiting.len().min(BATCH_MAX)).unwrap_or_default()).await?;
        let batch: Vec<Commit> = waiting.drain(..visible).collect();
        self.metrics.commits(batch.len());
        let Some(marked) = self.marks.apply(&batch).await? else { return Ok(Ended::WithReader) };
        failpoint::hit("pending-written").await?;
        if marked.rules {
            failpoint::hit("rules-marked").await?;
        }
        super::advance(&self.confirmed, marked.persisted.get());
        let description = marked.description;
        self.tell(marked);
        Ok(if description { Ended::DescriptionChanged } else { Ended::WithReader })
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
        if let Some(seeded) = marked.seeded {
            // Without a reader there is no filter to complete.
            drop(self.seeded.send(seeded));
        }
        if marked.rules || marked.description {
            drop(self.notify.try_send(Notice::Rules));
        }
        if !marked.due.is_empty() || marked.rescan {
            drop(self.notify.try_send(Notice::Marked { employees: marked.due, rescan: marked.rescan }));
        }
    }
}
