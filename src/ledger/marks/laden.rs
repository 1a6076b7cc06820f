//! A commit that carries more than changes of employees: commands, hires, lookups, rows that left their employee, a change
//! of the rules. It is taken by itself.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_postgres::types::ToSql;

use super::{Changes, Marked, Marks, PAGE, Whose, name_due, note, time};
use crate::ledger::doubt;
use crate::ledger::error::LedgerError;
use crate::lsn::Lsn;
use crate::selection::{Commit, KeyHash, Mark, Touches};

impl Marks {
    pub(super) async fn apply_one(
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
        if commit.end_lsn > self.settings.applied_until {
            enrolled.extend(self.enrol_starters(touches, at).await?);
        }
        let newcomers = touches.newcomers.iter().map(ToString::to_string);
        let to_seed: Vec<String> = enrolled.iter().cloned().chain(newcomers).collect();
        rows.extend(self.seed(&to_seed, &mut left, marked).await?);
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
            doubt::note(&self.session, "roster").await?;
        }
        if touches.unkeyed {
            tracing::warn!(
                lsn = %commit.end_lsn,
                "a row's key is not in the WAL as it is described: describe HR's tables as they are now; everyone is compared"
            );
            doubt::note(&self.session, "owners").await?;
            marked.gaps = true;
        }
        self.session.batch("commit marks", "commit").await?;
        if touches.everyone || touches.rules || touches.description {
            // A new source's rows are nobody's yet, and a shape that changed may have hidden to whom rows went.
            let own = touches.owners || touches.description;
            let mut left = Vec::new();
            let cause = if touches.everyone { "change" } else { "rules" };
            rows.extend(self.mark_everyone(at, cause, own.then_some(&mut left), marked).await?);
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

    async fn roster(&self, touches: &Touches) -> Result<(), LedgerError> {
        for (what, sql, ids) in [
            ("record who has gone", include_str!("../../../sql/queries/record_gone.sql"), &touches.gone),
            ("record who was hired", include_str!("../../../sql/queries/record_hires.sql"), &touches.hired),
            (
                "lower starter flags",
                include_str!("../../../sql/queries/lower_flags.sql"),
                &touches.flag_lowered,
            ),
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
            rows.extend(self.seed(&released, &mut left, marked).await?);
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
        let sql = include_str!("../../../sql/queries/release_requests.sql");
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
        let sql = include_str!("../../../sql/queries/enrol_starters.sql");
        let rows =
            self.session.query("enrol starters", sql, &[&ids, &self.settings.platform_id, &at]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
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
            let sql = include_str!("../../../sql/queries/mark_affected.sql")
                .replace("{source}", &source.to_string());
            let (minimum, fraction) = self.settings.guard;
            let parameters: [&(dyn ToSql + Sync); 4] = [&keys, &at, &minimum, &fraction];
            let marking = self.session.execute("mark whom a lookup affects", &sql, &parameters);
            if let Err(error) = self.attempt(marking).await? {
                tracing::error!(
                    %error,
                    source,
                    "whom a changed row of a lookup table affects cannot be read: describe HR's tables as they are now; \
                     everyone is compared instead"
                );
                doubt::note(&self.session, "lookup").await?;
            }
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
        marked: &mut Marked,
    ) -> Result<Vec<KeyHash>, LedgerError> {
        if cause == "rules" {
            // Whom it may help first.
            let sql = include_str!("../../../sql/queries/mark_blocked.sql");
            self.session.execute("mark who is blocked", sql, &[&at]).await?;
        }
        let batch = self.note_mass_change(&[]).await?;
        let mut rows = Vec::new();
        let mut after = Some(String::new());
        while let Some(id) = after {
            self.session.batch("begin", "begin").await?;
            if let Some(left) = &mut left {
                let sql = include_str!("../../../sql/queries/load_page.sql");
                let page = self.session.query("read a page of employees", sql, &[&id, &PAGE]).await?;
                let page: Vec<String> = page.iter().map(|row| row.get(0)).collect();
                rows.extend(self.seed(&page, left, marked).await?);
            }
            let sql = include_str!("../../../sql/queries/mark_page.sql");
            let page = self.session.query("mark everyone", sql, &[&id, &PAGE, &at, &cause, &batch]).await?;
            after = page.first().and_then(|row| row.get(0));
            self.session.batch("commit a page of everyone", "commit").await?;
        }
        self.complete_mass_change(batch).await?;
        Ok(rows)
    }
}

/// How many of a commit's requests may be released before the rest of it: of a command for thousands all but the last page,
/// if the commit does nothing else.
fn releasable_early(touches: &Touches) -> usize {
    let page = usize::try_from(PAGE).unwrap_or(1);
    if touches.requests.len() > page && touches.only_commands() { touches.requests.len() - page } else { 0 }
}
