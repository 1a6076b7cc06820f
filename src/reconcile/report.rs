//! What a comparison found, for people and programs: counts only.

use serde::Serialize;

/// What a comparison found and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Nothing was changed.
    pub dry_run: bool,
    /// The doubt that it answers.
    pub doubt: Option<String>,
    /// A newer doubt came up meanwhile.
    pub doubt_remains: bool,
    /// Employees in HR.
    pub roster: u64,
    /// Employees whom the ledger did not know.
    pub hired: u64,
    /// Employees whom HR does not have any more.
    pub gone: u64,
    /// Missed starters, asked for.
    pub starters: u64,
    /// Requests that nobody had passed, handed to the reader again.
    pub requests: u64,
    /// Synced employees compared.
    pub compared: u64,
    /// Of them, those out of step: marked to be delivered.
    pub differing: u64,
    /// Of them, Failed ones whose record is still the one that was refused.
    pub left_alone: u64,
    /// Child rows whose owner was put right.
    pub owners_corrected: u64,
    /// The comparison with the platform, where there was one.
    pub platform: Option<PlatformReport>,
    /// How long it took.
    pub seconds: f64,
}

/// What a comparison with the platform found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlatformReport {
    /// Accounts on the platform.
    pub accounts: u64,
    /// Of them, accounts of synced employees.
    pub ours: u64,
    /// Accounts that do not hold what they acknowledged.
    pub drifted: u64,
    /// Links that the platform does not confirm.
    pub unlinked: u64,
    /// Accounts that carry another employee's id now: a person has to decide.
    pub conflicts: u64,
    /// Employees whose account is not listed.
    pub missing: u64,
    /// Accounts that carry an employee's id without the ledger knowing why; never adopted by that alone.
    pub strangers: u64,
    /// Found out of step and not put right, because a delivery came in between; the next comparison looks again.
    pub overtaken: u64,
}

impl Report {
    /// One line.
    pub(super) fn log(&self) {
        let platform = self.platform.clone().unwrap_or_default();
        tracing::info!(
            compared = self.compared,
            differing = self.differing,
            left_alone = self.left_alone,
            hired = self.hired,
            gone = self.gone,
            starters = self.starters,
            requests = self.requests,
            owners_corrected = self.owners_corrected,
            drifted = platform.drifted,
            conflicts = platform.conflicts,
            missing = platform.missing,
            seconds = self.seconds,
            "everyone was compared"
        );
    }

    /// Whether anything was found.
    pub fn has_differences(&self) -> bool {
        let platform =
            self.platform.as_ref().is_some_and(|p| p.drifted + p.unlinked + p.conflicts + p.missing > 0);
        platform || self.hired + self.gone + self.starters + self.requests + self.differing > 0
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut lines = Vec::new();
        let mut line = |count: u64, text: &str| lines.push(format!("{count:>9}  {text}"));
        if let Some(platform) = &self.platform {
            line(platform.accounts, "accounts on the platform");
            line(platform.ours, "of them linked to synced employees");
            line(platform.drifted, "do not hold what they acknowledged");
            line(platform.unlinked, "links that the platform does not confirm");
            line(platform.conflicts, "accounts that carry another employee's id: a person decides");
            line(platform.missing, "employees whose account is not listed");
            line(platform.strangers, "accounts that carry an employee's id and are not known to the ledger");
        }
        line(self.roster, "employees in HR");
        line(self.hired, "of them new to the ledger");
        line(self.gone, "gone from HR");
        line(self.starters, "starters that were missed");
        line(self.requests, "requests that nobody had passed");
        line(self.compared, "synced employees compared");
        line(self.differing, "out of step");
        line(self.left_alone, "failed, and their record is still the one that was refused");
        let end = match (self.dry_run, self.has_differences()) {
            (true, true) => "Differences were found; nothing was changed (--dry-run).",
            (false, true) => "Who is out of step is pending now; benefits-sync run delivers.",
            (_, false) => "Everyone is in step.",
        };
        lines.push(format!("{end} ({:.1} s)", self.seconds));
        if self.doubt_remains {
            lines.push("A new doubt came up meanwhile: the service compares once more.".to_owned());
        }
        lines.join("\n")
    }
}
