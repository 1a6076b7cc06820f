//! Commits that delivery may have in hand: which they are, and whom they touch; and the mass changes among them.

use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};

use super::{Marks, is_plain, time};
use crate::ledger::error::LedgerError;
use crate::ledger::in_hand::Change;
use crate::selection::Commit;

/// Between two counts of linked employees.
const LIMIT_EVERY: Duration = Duration::from_secs(10);

impl Marks {
    /// Whether a commit only touches employees: nothing has to be known or done before they are delivered.
    pub fn is_light(&self, commit: &Commit) -> bool {
        is_plain(commit) && commit.touches.as_ref().is_none_or(|touches| touches.owned().next().is_none())
    }

    /// Whether a commit touches no more employees than may go without being judged as a mass change.
    pub fn is_small(&self, commit: &Commit) -> bool {
        commit.touches.as_ref().is_none_or(|touches| touches.employees().count() <= self.limit)
    }

    /// Notes a mass change that is made of these commits, or of the rules where there are none: its number. Whoever is marked with it is judged with it, once it
    /// is complete.
    pub async fn note_mass_change(&self, commits: &[Commit]) -> Result<i64, LedgerError> {
        let user = self.user(commits);
        let sql = "insert into benefits.mass_change (complete, transaction_user) values (false, $1) returning batch";
        let rows = self.session.query("note a mass change", sql, &[&user]).await?;
        rows.first()
            .map(|row| row.get(0))
            .ok_or_else(|| LedgerError::Unexpected("a mass change without a number".to_owned()))
    }

    /// Everybody of it is delivered or marked: it may be judged.
    pub async fn complete_mass_change(&self, batch: i64) -> Result<(), LedgerError> {
        let sql = "update benefits.mass_change set complete = true where batch = $1";
        self.session.execute("complete a mass change", sql, &[&batch]).await.map(drop)
    }

    /// Counts as many linked employees as it takes to know whether a commit of the batch is a mass change, or, where they
    /// are taken `together`, whether they all are one.
    pub async fn learn_limit(&mut self, batch: &[Commit], together: &[Commit]) -> Result<(), LedgerError> {
        let sizes = batch
            .iter()
            .filter_map(|commit| commit.touches.as_ref())
            .map(|touches| touches.employees().count());
        let largest = sizes.max().unwrap_or(0).max(employees_of(together));
        if largest <= self.limit || self.limit_learnt.is_some_and(|at| at.elapsed() < LIMIT_EVERY) {
            return Ok(());
        }
        self.limit_learnt = Some(Instant::now());
        let (minimum, fraction) = self.settings.guard;
        let sql = include_str!("../../../sql/queries/learn_limit.sql");
        let largest = i64::try_from(largest).unwrap_or(i64::MAX);
        let rows = self.session.query("count linked employees", sql, &[&largest, &fraction]).await?;
        let within = rows.first().map_or(0, |row| row.get::<_, i64>(0)).max(i64::from(minimum));
        self.limit = usize::try_from(within).unwrap_or(0);
        Ok(())
    }

    /// Whether commits that are taken together touch no more employees than may go without being judged as a mass change.
    pub fn is_within_limit(&self, together: &[Commit]) -> bool {
        employees_of(together) <= self.limit
    }

    /// As many commits at the front as touch no more than `room` employees, and those employees with their changes.
    pub fn changes_within(&self, commits: &[Commit], room: usize) -> (usize, Vec<(String, Change)>) {
        let mut found: Vec<(String, Change)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::default();
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
}

fn employees_of(commits: &[Commit]) -> usize {
    let touches = commits.iter().filter_map(|commit| commit.touches.as_ref());
    touches.flat_map(|touches| touches.employees()).map(|(id, _)| id).collect::<HashSet<_>>().len()
}
