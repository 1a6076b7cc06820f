//! Commits become pending rows: each touched employee is marked, and the checkpoint moves, in one transaction.
//!
//! Commits that only touch employees (nearly all) are merged, so that a backlog costs one statement a batch. A commit that
//! also carries commands, hires, lookups or rows that left their employee is taken by itself, in order.

mod laden;
mod light;
mod owners;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::PgLsn;

use super::checkpoint::PersistedLsn;
use super::error::LedgerError;
use super::session::Session;
use super::users::TransactionUsers;
use crate::lsn::Lsn;
use crate::pgoutput::Timestamp;
use crate::selection::{Commit, KeyHash, KeyHasher, Mark};

/// Employees a page when everyone is marked, or when child rows are read.
const PAGE: i64 = 2_000;
/// Marked employees that are handed to delivery by name; more are found by its scan.
const NAMED_MAX: usize = 2_000;

/// What marking needs to know of the site.
#[derive(Debug, Clone)]
pub struct MarkSettings {
    /// The platform that new enrolments belong to.
    pub platform_id: String,
    /// `delivery.settle`.
    pub settle: Duration,
    /// `guard.minimum` and `guard.fraction`: a commit that marks more is a mass change.
    pub guard: (i32, f64),
    /// Who ran which transaction.
    pub users: Arc<TransactionUsers>,
    /// Where the ledger had come to when this session began: commits up to here that come again have enrolled their starters,
    /// and what came after them may have said that these are none.
    pub applied_until: Lsn,
}

/// What became of a batch of commits.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub struct Marked {
    /// Everything up to here is durable.
    pub persisted: PersistedLsn,
    /// Employees to be delivered; not all of them when `rescan` is set.
    pub due: Vec<String>,
    /// More is due than `due` names.
    pub rescan: bool,
    /// Child rows of employees who were enrolled, and by how many enrolling commits.
    pub seeded: Option<(u64, Vec<KeyHash>)>,
    /// Child rows of somebody could not be read, which is noted as a doubt: nobody knows whose they are.
    pub gaps: bool,
    /// The site's description changed: the stream has to start again with the new one.
    pub description: bool,
    /// Translations or levels changed.
    pub rules: bool,
}

/// Commits that were handed over together.
pub type Batch = Vec<Commit>;

/// Writes marks in one session.
pub struct Marks {
    session: Arc<Session>,
    hasher: KeyHasher,
    settings: MarkSettings,
    /// Employees that a commit may touch without being a mass change, as far as is known.
    limit: usize,
    limit_learnt: Option<Instant>,
}

/// The commit that marks employees.
#[derive(Debug, Clone)]
struct Whose {
    /// Who ran it, where that is known.
    user: Option<String>,
    /// Its end.
    lsn: Lsn,
    /// What the platform holds is not known.
    in_full: bool,
}

/// Employees with the commit times of their first and last change.
type Changes<'c> = BTreeMap<&'c str, (Timestamp, Timestamp)>;

impl Marks {
    /// A writer. `hasher` must be the stream's.
    pub fn new(session: Arc<Session>, hasher: KeyHasher, settings: MarkSettings) -> Self {
        let limit = usize::try_from(settings.guard.0).unwrap_or(0);
        Self { session, hasher, settings, limit, limit_learnt: None }
    }

    /// Completes what a marker that died has left half marked: its commit comes again, with a mass change of its own.
    pub async fn complete_mass_changes(&self) -> Result<(), LedgerError> {
        let sql = "update benefits.mass_change set complete = true where not complete and not is_comparison";
        self.session.execute("complete mass changes", sql, &[]).await.map(|_| ())
    }

    /// Makes a batch durable. Every commit in it must be visible to new snapshots already. `in_full`: whoever is marked is
    /// sent in full, whatever was acknowledged.
    pub async fn apply(&self, batch: &[Commit], in_full: bool) -> Result<Option<Marked>, LedgerError> {
        let Some(last) = batch.last() else { return Ok(None) };
        let mut marked = Marked {
            persisted: PersistedLsn::after_commit(last.end_lsn),
            due: Vec::new(),
            rescan: false,
            seeded: None,
            gaps: false,
            description: false,
            rules: false,
        };
        for segment in batch.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
            match segment {
                [commit] if !is_plain(commit) => self.apply_one(commit, in_full, &mut marked).await?,
                _ => self.apply_plain(segment, in_full, &mut marked).await?,
            }
        }
        Ok(Some(marked))
    }

    /// The LSN of a keepalive that came while nothing was under way and everything before it has been applied.
    /// Writes nothing: an idle checkpoint that wrote would make WAL of its own and never be idle.
    pub fn idle(&self, lsn: Lsn) -> PersistedLsn {
        PersistedLsn::after_commit(lsn)
    }

    async fn apply_plain(
        &self,
        segment: &[Commit],
        in_full: bool,
        marked: &mut Marked,
    ) -> Result<(), LedgerError> {
        let mut changes = Changes::new();
        let mut owned = BTreeMap::new();
        let mut lsn = Lsn::ZERO;
        for commit in segment {
            let Some(touches) = &commit.touches else { continue };
            lsn = commit.end_lsn;
            for (id, _) in touches.employees() {
                note(&mut changes, id, commit.committed_at);
            }
            owned.extend(touches.owned().map(|(source, row, employee)| ((source, row), employee)));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let user = self.user(segment);
        if owned.is_empty() {
            return self.mark(&changes, Whose { user, lsn, in_full }, marked).await;
        }
        self.session.batch("begin", "begin").await?;
        let left_behind = self.own(&owned).await?;
        let at = segment.last().map_or(Timestamp(0), |commit| commit.committed_at);
        for id in &left_behind {
            note(&mut changes, id, at);
        }
        self.mark(&changes, Whose { user, lsn, in_full }, marked).await?;
        self.session.batch("commit marks", "commit").await
    }

    /// Whose commits make a mass change of these: of those that are large, or else of all.
    fn user(&self, segment: &[Commit]) -> Option<String> {
        let most = usize::try_from(self.settings.guard.0).unwrap_or(usize::MAX);
        let count =
            |commit: &Commit| commit.touches.as_ref().map_or(0, |touches| touches.employees().count());
        let touched: Vec<(u32, usize)> = segment.iter().map(|commit| (commit.xid, count(commit))).collect();
        let any_large = touched.iter().any(|(_, count)| *count > most);
        let least = if any_large { most } else { 0 };
        self.settings.users.of(touched.iter().filter(|(_, count)| *count > least).map(|(xid, _)| *xid))
    }

    /// Marks employees; those who are not synced drop out in the statement.
    async fn mark(
        &self,
        changes: &Changes<'_>,
        whose: Whose,
        marked: &mut Marked,
    ) -> Result<(), LedgerError> {
        let ids: Vec<&str> = changes.keys().copied().collect();
        let first: Vec<SystemTime> = changes.values().map(|(first, _)| time(*first)).collect();
        let last: Vec<SystemTime> = changes.values().map(|(_, last)| time(*last)).collect();
        let bulk = ids.len() > NAMED_MAX;
        let rows = self
            .session
            .query(
                "mark employees",
                include_str!("../../../sql/queries/mark_employees.sql"),
                &[
                    &ids,
                    &first,
                    &last,
                    &"change",
                    &bulk,
                    &self.settings.settle.as_secs_f64(),
                    &PgLsn::from(whose.lsn.0),
                    &self.settings.guard.0,
                    &self.settings.guard.1,
                    &whose.user,
                    &whose.in_full,
                ],
            )
            .await?;
        // A mass change: delivery looks for it.
        marked.rescan |= rows.iter().any(|row| row.get(1));
        name_due(marked, rows.iter().map(|row| row.get(0)));
        Ok(())
    }
}

/// Whether the commit only touches employees' own rows.
fn is_plain(commit: &Commit) -> bool {
    commit.touches.as_ref().is_none_or(|touches| {
        touches.requests.is_empty()
            && touches.newcomers.is_empty()
            && touches.hired.is_empty()
            && touches.gone.is_empty()
            && touches.flag_lowered.is_empty()
            && touches.orphaned.is_empty()
            && touches.lookups.is_empty()
            && !(touches.everyone
                || touches.owners
                || touches.roster
                || touches.unkeyed
                || touches.rules
                || touches.description)
            && touches.employees().all(|(_, mark)| mark == Mark::Change)
    })
}

fn note<'c>(changes: &mut Changes<'c>, id: &'c str, at: Timestamp) {
    changes.entry(id).and_modify(|(_, last)| *last = (*last).max(at)).or_insert((at, at));
}

fn name_due(marked: &mut Marked, ids: impl IntoIterator<Item = String>) {
    for id in ids {
        if marked.due.len() >= NAMED_MAX {
            marked.rescan = true;
            return;
        }
        marked.due.push(id);
    }
}

/// A commit time as SQL takes it.
fn time(at: Timestamp) -> SystemTime {
    let micros = u64::try_from(at.unix_micros()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_micros(micros)
}
