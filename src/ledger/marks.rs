//! Commits become pending rows: each touched employee is marked, and the checkpoint moves, in one transaction.
//!
//! Commits that only touch employees (nearly all) are merged, so that a backlog costs one statement a batch. A commit that
//! also carries commands, hires, lookups or rows that left their employee is taken by itself, in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::PgLsn;

use super::checkpoint::PersistedLsn;
use super::error::LedgerError;
use super::in_hand::Change;
use super::session::Session;
use super::users::TransactionUsers;
use crate::lsn::Lsn;
use crate::pgoutput::Timestamp;
use crate::selection::{Commit, KeyHash, KeyHasher, Mark, Touches};

/// Employees a page when everyone is marked, or when child rows are read.
const PAGE: i64 = 2_000;
/// Between two counts of linked employees.
const LIMIT_EVERY: Duration = Duration::from_secs(10);
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
    /// The site's description changed: the stream has to start again with the new one.
    pub description: bool,
    /// Translations or levels changed.
    pub rules: bool,
    /// Something only a comparison of everyone can answer.
    pub reconcile: bool,
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

    /// Whether a commit only touches employees, and no more of them than may go without being judged as a mass change.
    pub fn is_light(&self, commit: &Commit) -> bool {
        is_plain(commit)
            && commit.touches.as_ref().is_none_or(|touches| {
                touches.owned().next().is_none() && touches.employees().count() <= self.limit
            })
    }

    /// Counts as many linked employees as it takes to know whether the batch's largest commit is a mass change.
    pub async fn learn_limit(&mut self, batch: &[Commit]) -> Result<(), LedgerError> {
        let sizes = batch
            .iter()
            .filter_map(|commit| commit.touches.as_ref())
            .map(|touches| touches.employees().count());
        let largest = sizes.max().unwrap_or(0);
        if largest <= self.limit || self.limit_learnt.is_some_and(|at| at.elapsed() < LIMIT_EVERY) {
            return Ok(());
        }
        self.limit_learnt = Some(Instant::now());
        let (minimum, fraction) = self.settings.guard;
        let sql = include_str!("../../sql/queries/learn_limit.sql");
        let largest = i64::try_from(largest).unwrap_or(i64::MAX);
        let rows = self.session.query("count linked employees", sql, &[&largest, &fraction]).await?;
        let within = rows.first().map_or(0, |row| row.get::<_, i64>(0)).max(i64::from(minimum));
        self.limit = usize::try_from(within).unwrap_or(0);
        Ok(())
    }

    /// As many commits at the front as touch no more than `room` employees, and those employees with their changes.
    pub fn changes_within(&self, commits: &[Commit], room: usize) -> (usize, Vec<(String, Change)>) {
        let mut found: Vec<(String, Change)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (count, commit) in commits.iter().enumerate() {
            let employees = || commit.touches.iter().flat_map(|touches| touches.employees());
            let more = employees().filter(|(id, _)| !places.contains_key(id)).count();
            if more > 0 && found.len() + more > room {
                return (count, found);
            }
            let at = time(commit.committed_at);
            for (id, _) in employees() {
                let place = *places.entry(id).or_insert(found.len());
                match found.get_mut(place) {
                    Some((_, change)) => change.last = change.last.max(at),
                    None => found.push((id.to_owned(), Change { first: at, last: at })),
                }
            }
        }
        (commits.len(), found)
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
            description: false,
            rules: false,
            reconcile: false,
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

    async fn apply_one(
        &self,
        commit: &Commit,
        in_full: bool,
        marked: &mut Marked,
    ) -> Result<(), LedgerError> {
        let Some(touches) = &commit.touches else { return Ok(()) };
        let at = time(commit.committed_at);
        let (early, requests) = touches.requests.split_at(releasable_early(touches));
        let mut rows = self.release_early(early, commit, marked).await?;
        self.session.batch("begin", "begin").await?;
        self.roster(touches).await?;
        // First whose the rows were, then whose they are: a row may pass to somebody who is enrolled by this commit.
        let mut left = self.take_orphans(touches).await?;
        let mut enrolled = self.release(requests, at).await?;
        enrolled.extend(self.enrol_starters(touches, at).await?);
        let newcomers = touches.newcomers.iter().map(ToString::to_string);
        let to_seed: Vec<String> = enrolled.iter().cloned().chain(newcomers).collect();
        rows.extend(self.seed(&to_seed, &mut left).await?);
        let mut changes = Changes::new();
        for (id, _) in touches.employees() {
            note(&mut changes, id, commit.committed_at);
        }
        let owned = touches.owned().map(|(source, row, employee)| ((source, row), employee)).collect();
        left.extend(self.own(&owned).await?);
        for id in &left {
            note(&mut changes, id, commit.committed_at);
        }
        self.mark_lookups(touches, at, marked).await?;
        let user = self.settings.users.of(std::iter::once(commit.xid));
        let whose = Whose { user, lsn: commit.end_lsn, in_full };
        self.mark(&changes, whose.clone(), marked).await?;
        if touches.rules || touches.description {
            // Before anybody is marked for it: who is then read with older rules is seen to be, and read again.
            let sql = "update benefits.site set rules_version = rules_version + 1";
            self.session.execute("count a change of the rules", sql, &[]).await?;
        }
        if touches.roster {
            super::doubt::note(&self.session, "roster").await?;
            marked.reconcile = true;
        }
        self.session.batch("commit marks", "commit").await?;
        if touches.everyone || touches.rules || touches.description {
            // A new source's rows are nobody's yet, and a shape that changed may have hidden to whom rows went.
            let own = touches.owners || touches.description;
            let mut left = Vec::new();
            let cause = if touches.everyone { "change" } else { "rules" };
            rows.extend(self.mark_everyone(at, cause, own.then_some(&mut left)).await?);
            let mut changes = Changes::new();
            for id in &left {
                note(&mut changes, id, commit.committed_at);
            }
            if !changes.is_empty() {
                self.mark(&changes, whose, marked).await?;
            }
            marked.rescan = true;
        }
        marked.rules |= touches.rules;
        marked.description |= touches.description;
        if touches.enrols() || touches.owners {
            let known = marked.seeded.take().map(|(_, rows)| rows).unwrap_or_default();
            marked.seeded = Some((commit.enrolments, known.into_iter().chain(rows).collect()));
        }
        name_due(marked, enrolled);
        Ok(())
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
                include_str!("../../sql/queries/mark_employees.sql"),
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

    async fn roster(&self, touches: &Touches) -> Result<(), LedgerError> {
        for (what, sql, ids) in [
            ("record who has gone", include_str!("../../sql/queries/record_gone.sql"), &touches.gone),
            ("record who was hired", include_str!("../../sql/queries/record_hires.sql"), &touches.hired),
            ("lower starter flags", include_str!("../../sql/queries/lower_flags.sql"), &touches.flag_lowered),
        ] {
            let mut ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
            ids.sort_unstable();
            ids.dedup();
            if !ids.is_empty() {
                self.session.execute(what, sql, &[&ids]).await?;
            }
        }
        Ok(())
    }

    /// A command for thousands is released page by page, each committed with its people's child rows: no statement is long,
    /// and delivery begins with the first page. After a death in between the rest is released when the commit comes again.
    async fn release_early(
        &self,
        requests: &[i64],
        commit: &Commit,
        marked: &mut Marked,
    ) -> Result<Vec<KeyHash>, LedgerError> {
        let mut rows = Vec::new();
        for page in requests.chunks(usize::try_from(PAGE).unwrap_or(1)) {
            self.session.batch("begin", "begin").await?;
            let released = self.release(page, time(commit.committed_at)).await?;
            let mut left = Vec::new();
            rows.extend(self.seed(&released, &mut left).await?);
            let mut changes = Changes::new();
            for id in &left {
                note(&mut changes, id, commit.committed_at);
            }
            if !changes.is_empty() {
                // The checkpoint moves with the rest of the commit.
                let whose = Whose { user: None, lsn: Lsn::ZERO, in_full: false };
                self.mark(&changes, whose, marked).await?;
            }
            self.session.batch("commit a page of a command", "commit").await?;
            crate::failpoint::hit("command-page").await?;
            marked.rescan = true;
        }
        Ok(rows)
    }

    async fn release(&self, requests: &[i64], at: SystemTime) -> Result<Vec<String>, LedgerError> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let platform = &self.settings.platform_id;
        let sql = include_str!("../../sql/queries/release_requests.sql");
        let rows = self.session.query("release requests", sql, &[&requests, platform, &at]).await?;
        let mut released: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let sql = "select * from benefits.apply_links($1, $2, $3)";
        let rows = self.session.query("change links", sql, &[&requests, platform, &at]).await?;
        released.extend(rows.iter().map(|row| row.get(0)));
        let sql = "select * from benefits.apply_holds($1)";
        let rows = self.session.query("close holds", sql, &[&requests]).await?;
        released.extend(rows.iter().map(|row| row.get(0)));
        Ok(released)
    }

    async fn enrol_starters(&self, touches: &Touches, at: SystemTime) -> Result<Vec<String>, LedgerError> {
        let mut ids: Vec<&str> =
            touches.employees().filter(|(_, mark)| *mark == Mark::Starter).map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        ids.sort_unstable();
        let sql = include_str!("../../sql/queries/enrol_starters.sql");
        let rows =
            self.session.query("enrol starters", sql, &[&ids, &self.settings.platform_id, &at]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Reads and records the child rows of employees. Whom a row has left is added to `left`: the reader will meet that
    /// change later, and will not be able to tell any more.
    async fn seed(&self, enrolled: &[String], left: &mut Vec<String>) -> Result<Vec<KeyHash>, LedgerError> {
        let mut hashes = Vec::new();
        let page = usize::try_from(PAGE).unwrap_or(1);
        for ids in enrolled.chunks(page) {
            let sql = include_str!("../../sql/queries/seed_owners.sql");
            let rows = self.session.query("read whose rows are", sql, &[&ids]).await?;
            left.extend(rows.iter().filter_map(|row| row.get::<_, Option<String>>(2)));
            hashes
                .extend(rows.iter().map(|row| self.hasher.row(row.get(0), row.get::<_, &str>(1).as_bytes())));
        }
        Ok(hashes)
    }

    async fn own(&self, owned: &BTreeMap<(i32, &str), &str>) -> Result<Vec<String>, LedgerError> {
        if owned.is_empty() {
            return Ok(Vec::new());
        }
        let sources: Vec<i32> = owned.keys().map(|(source, _)| *source).collect();
        let rows: Vec<&str> = owned.keys().map(|(_, row)| *row).collect();
        let employees: Vec<&str> = owned.values().copied().collect();
        let sql = include_str!("../../sql/queries/own_rows.sql");
        let left = self.session.query("record whose rows are", sql, &[&sources, &rows, &employees]).await?;
        Ok(left.iter().map(|row| row.get(0)).collect())
    }

    async fn take_orphans(&self, touches: &Touches) -> Result<Vec<String>, LedgerError> {
        if touches.orphaned.is_empty() {
            return Ok(Vec::new());
        }
        let sources: Vec<i32> = touches.orphaned.iter().map(|(source, _)| *source).collect();
        let rows: Vec<&str> = touches.orphaned.iter().map(|(_, row)| row.as_ref()).collect();
        let sql = include_str!("../../sql/queries/take_orphans.sql");
        let owners = self.session.query("find whose rows were", sql, &[&sources, &rows]).await?;
        Ok(owners.iter().map(|row| row.get(0)).collect())
    }

    async fn mark_lookups(
        &self,
        touches: &Touches,
        at: SystemTime,
        marked: &mut Marked,
    ) -> Result<(), LedgerError> {
        let mut by_source: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
        for (source, key) in &touches.lookups {
            by_source.entry(*source).or_default().push(key);
        }
        for (source, keys) in by_source {
            let sql =
                include_str!("../../sql/queries/mark_affected.sql").replace("{source}", &source.to_string());
            let (minimum, fraction) = self.settings.guard;
            self.session
                .execute("mark whom a lookup affects", &sql, &[&keys, &at, &minimum, &fraction])
                .await?;
            marked.rescan = true;
        }
        Ok(())
    }

    /// In pages, each committed by itself: to mark somebody twice is harmless, a long transaction is not.
    /// With `left` their child rows are read again, each page's before it is marked: a row that is gone by the time of the
    /// reading is then gone from the record that the mark asks for.
    async fn mark_everyone(
        &self,
        at: SystemTime,
        cause: &str,
        mut left: Option<&mut Vec<String>>,
    ) -> Result<Vec<KeyHash>, LedgerError> {
        if cause == "rules" {
            // Whom it may help first.
            let sql = include_str!("../../sql/queries/mark_blocked.sql");
            self.session.execute("mark who is blocked", sql, &[&at]).await?;
        }
        let sql = "insert into benefits.mass_change (complete) values (false) returning batch";
        let change = self.session.query("note a mass change", sql, &[]).await?;
        let batch: Option<i64> = change.first().map(|row| row.get(0));
        let mut rows = Vec::new();
        let mut after = Some(String::new());
        while let Some(id) = after {
            if let Some(left) = &mut left {
                let sql = include_str!("../../sql/queries/load_page.sql");
                let page = self.session.query("read a page of employees", sql, &[&id, &PAGE]).await?;
                let page: Vec<String> = page.iter().map(|row| row.get(0)).collect();
                rows.extend(self.seed(&page, left).await?);
            }
            let sql = include_str!("../../sql/queries/mark_page.sql");
            let page = self.session.query("mark everyone", sql, &[&id, &PAGE, &at, &cause, &batch]).await?;
            after = page.first().and_then(|row| row.get(0));
        }
        let sql = "update benefits.mass_change set complete = true where batch = $1";
        self.session.execute("complete a mass change", sql, &[&batch]).await?;
        Ok(rows)
    }
}

/// How many of a commit's requests may be released before the rest of it: of a command for thousands all but the last page,
/// if the commit does nothing else.
fn releasable_early(touches: &Touches) -> usize {
    let page = usize::try_from(PAGE).unwrap_or(1);
    if touches.requests.len() > page && touches.only_commands() { touches.requests.len() - page } else { 0 }
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
            && !(touches.everyone || touches.owners || touches.roster || touches.rules || touches.description)
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
