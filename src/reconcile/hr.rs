//! HR against the ledger.

use super::verdict::{Verdict, judge};
use super::{Comparison, PAGE, ReconcileError, Report};
use crate::ledger::doubt::Doubt;
use crate::ledger::everyone::{self, RosterPage};
use crate::record::Rules;

/// Employees of the roster a page: two indexes are read, no record.
const ROSTER_PAGE: i32 = 2_000;
/// Requests a page.
const REQUESTS: i64 = 1_000;
/// A request that is older, in seconds, and not passed, may be stranded. In doubt all of them may be.
const STRANDED_AFTER: f64 = 60.0;

impl Comparison<'_> {
    pub(super) async fn compare_hr(
        &self,
        rules: &Rules,
        doubt: &Doubt,
        dry: bool,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        if everyone::has_roster(&self.session).await? {
            self.roster(dry, report).await?;
        }
        self.requests(doubt, dry, report).await?;
        self.progress.start(everyone::count(&self.session).await?);
        let mut after = String::new();
        loop {
            self.go_on()?;
            let page = everyone::page(&self.session, &after, i64::try_from(PAGE).unwrap_or(1)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(last);
            let count = page.len();
            self.employees(page, rules, doubt, dry, report).await?;
            self.progress.add(count);
        }
    }

    /// Who is new, whose starter flag was missed, who has gone.
    async fn roster(&self, dry: bool, report: &mut Report) -> Result<(), ReconcileError> {
        let mut after: Option<String> = None;
        loop {
            self.go_on()?;
            let page: RosterPage =
                everyone::roster(&self.session, after.as_deref(), ROSTER_PAGE, dry).await?;
            report.roster += unsigned(page.seen);
            report.hired += unsigned(page.hired);
            report.starters += unsigned(page.starters);
            after = page.last;
            if after.is_none() {
                break;
            }
        }
        let mut after = Some(String::new());
        while let Some(id) = after {
            self.go_on()?;
            let (last, gone) = everyone::gone(&self.session, &id, i64::from(ROSTER_PAGE), dry).await?;
            report.gone += unsigned(gone);
            after = last;
        }
        Ok(())
    }

    /// Requests whose commit nobody will meet in the WAL any more.
    async fn requests(&self, doubt: &Doubt, dry: bool, report: &mut Report) -> Result<(), ReconcileError> {
        let age = if doubt.why.is_some() { 0.0 } else { STRANDED_AFTER };
        let mut after = Some(0);
        while let Some(id) = after {
            self.go_on()?;
            let (last, stranded) = everyone::stranded(&self.session, id, REQUESTS, age, dry).await?;
            report.requests += unsigned(stranded);
            after = last;
        }
        Ok(())
    }

    async fn employees(
        &self,
        page: Vec<String>,
        rules: &Rules,
        doubt: &Doubt,
        dry: bool,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        let mut out_of_step = Vec::new();
        if !dry {
            // First whose the rows are, then the records: what leaves in between is seen in one of the two.
            let (corrected, left_behind) = everyone::correct_owners(&self.session, &page).await?;
            report.owners_corrected += unsigned(corrected);
            out_of_step = left_behind;
        }
        for enrolled in everyone::load(&self.session, page).await? {
            report.compared += 1;
            match judge(&enrolled, rules, self.key, doubt.why.is_some()) {
                Verdict::InStep => {}
                Verdict::LeftAlone => report.left_alone += 1,
                Verdict::Differs => {
                    report.differing += 1;
                    out_of_step.push(enrolled.employee_id);
                }
            }
        }
        if !dry {
            out_of_step.sort_unstable();
            out_of_step.dedup();
            everyone::mark(&self.session, &out_of_step).await?;
        }
        Ok(())
    }
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
