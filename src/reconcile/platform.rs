//! The ledger against the platform: every account, in the platform's own pages.
//!
//! In doubt (another system, timeline or platform) delivery stands still, so that what a page says stays true until it is
//! written down. On demand deliveries go on: an account that differs is then asked for once more between two looks at the
//! ledger, and put right only where nothing was sent in between.
//!
//! A link holds where the ledger's account carries the employee's id. An account that carries an id of ours and is not in the
//! ledger is nobody's, unless the ledger holds an unresolved create for that employee.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{Comparison, PAGE, PlatformReport, ReconcileError};
use crate::delivery::api::{Employee, Page};
use crate::delivery::client::{Client, PAGE_MAX};
use crate::delivery::outcome::{Class, Failure};
use crate::delivery::rate::Rate;
use crate::delivery::retry::Schedule;
use crate::ledger::accounts::{self, Correction, Fate, Held};
use crate::ledger::doubt::Doubt;
use crate::record::{FieldSet, FingerprintKey, Fingerprints, diff};
use crate::selection::{KeyHash, KeyHasher};

/// How long deliveries of before the doubt may take to end.
const UNDER_WAY_MAX: Duration = Duration::from_mins(2);
/// Attempts at one page.
const ATTEMPTS_MAX: u32 = 8;

const CONFLICT: &str = "The linked account carries another employee's id now, as after a transfer that this database does \
                        not know of: decide whose it is, and relink.";

/// What an account makes of what the ledger holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// The ledger is right.
    Agrees,
    /// Values or versions differ; the link holds.
    Drifted(Correction),
    /// The ledger knows less or more than the platform, with no drift to speak of.
    Settled(Correction),
    /// The platform does not confirm the link.
    Unlinked(Correction),
    /// The account is somebody else's now.
    Conflict(Correction),
    /// Our create made it, its answer was lost.
    Created(Correction),
    /// The account carries our id and the ledger does not know why.
    Stranger,
}

impl Comparison<'_> {
    pub(super) async fn compare_platform(
        &self,
        client: &Client,
        doubt: &Doubt,
        dry: bool,
    ) -> Result<PlatformReport, ReconcileError> {
        let quiet = doubt.is_of_platform();
        if quiet && !dry {
            self.wait_until_quiet().await?;
        }
        client.platform().await.map_err(ReconcileError::Platform)?;
        let mut walk = Walk {
            comparison: self,
            client,
            quiet,
            dry,
            rate: Rate::new(self.config.delivery.requests_per_second),
            hasher: KeyHasher::with_key(rand::random()),
            listed: HashSet::new(),
            report: PlatformReport::default(),
        };
        walk.accounts().await?;
        walk.missing(doubt.now).await?;
        Ok(walk.report)
    }

    /// Nothing is claimed any more once the doubt is noted (see `write_intents.sql`); what was under way ends.
    async fn wait_until_quiet(&self) -> Result<(), ReconcileError> {
        let began = Instant::now();
        let mut quiet = 0;
        loop {
            self.go_on()?;
            let count = accounts::under_way(&self.session).await?;
            quiet = if count == 0 { quiet + 1 } else { 0 };
            // Twice: a claim of the very moment may have been committed after the first look.
            if quiet >= 2 {
                return Ok(());
            }
            if began.elapsed() > UNDER_WAY_MAX {
                return Err(ReconcileError::UnderWay(count));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

struct Walk<'w> {
    comparison: &'w Comparison<'w>,
    client: &'w Client,
    /// Nobody delivers.
    quiet: bool,
    dry: bool,
    rate: Rate,
    hasher: KeyHasher,
    /// Employees whose account was listed, as hashes: nine bytes each.
    listed: HashSet<KeyHash>,
    report: PlatformReport,
}

impl Walk<'_> {
    async fn accounts(&mut self) -> Result<(), ReconcileError> {
        let mut cursor: Option<String> = None;
        let mut cursors = HashSet::new();
        let mut pages = 0;
        loop {
            self.comparison.go_on()?;
            let page = self.page(cursor.as_deref()).await.map_err(ReconcileError::Platform)?;
            pages += 1;
            self.compare(&page.items).await?;
            self.comparison.progress.add(page.items.len());
            let Some(next) = page.next_cursor else { return Ok(()) };
            if !cursors.insert(self.hasher.employee(next.as_bytes())) {
                return Err(ReconcileError::Endless(pages));
            }
            cursor = Some(next);
        }
    }

    async fn page(&self, cursor: Option<&str>) -> Result<Page, Box<Failure>> {
        let mut attempt = 0;
        loop {
            self.rate.acquire().await;
            match self.client.page(cursor, PAGE_MAX).await {
                Ok(answer) => return Ok(answer.value),
                Err(failure) => self.put_up_with(failure, &mut attempt).await?,
            }
        }
    }

    async fn account(&self, benefits_id: &str) -> Result<Employee, Box<Failure>> {
        let mut attempt = 0;
        loop {
            self.rate.acquire().await;
            match self.client.get(benefits_id).await {
                Ok(answer) => return Ok(answer.value),
                Err(failure) => self.put_up_with(failure, &mut attempt).await?,
            }
        }
    }

    /// Waits where asking again may help; else the failure stands.
    async fn put_up_with(&self, failure: Box<Failure>, attempt: &mut u32) -> Result<(), Box<Failure>> {
        *attempt += 1;
        let may_help =
            matches!(failure.class, Class::Busy | Class::Throttled { .. } | Class::Unavailable { .. });
        if !may_help || *attempt >= ATTEMPTS_MAX || self.comparison.shutdown.is_cancelled() {
            return Err(failure);
        }
        let delivery = &self.comparison.config.delivery;
        let schedule = Schedule::new(delivery.backoff_min, delivery.backoff_max.min(Duration::from_secs(30)));
        let wait = schedule.delay_after(*attempt, failure.retry_after());
        self.comparison.shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
        Ok(())
    }

    async fn compare(&mut self, items: &[Employee]) -> Result<(), ReconcileError> {
        self.report.accounts += u64::try_from(items.len()).unwrap_or(0);
        let held = self.held(items).await?;
        let mut corrections = Vec::new();
        for (account, held) in pairs(items, &held) {
            self.listed.insert(self.hasher.employee(held.employee_id.as_bytes()));
            let mut finding = find(account, held, self.comparison.key);
            if !self.quiet && !matches!(finding, Finding::Agrees | Finding::Stranger) {
                finding = self.once_more(account, finding).await?;
            }
            corrections.extend(self.count(finding, held));
        }
        self.correct(&corrections).await
    }

    async fn held(&self, items: &[Employee]) -> Result<Vec<Held>, ReconcileError> {
        let ids: Vec<&str> = items.iter().map(|account| account.id.as_str()).collect();
        let named: Vec<&str> = items.iter().filter_map(|account| account.external_id.as_deref()).collect();
        let platform_id = &self.comparison.config.benefits.platform_id;
        Ok(accounts::load(&self.comparison.session, &ids, &named, platform_id).await?)
    }

    /// Deliveries go on meanwhile: the ledger first, then the account, so that a write in between shows in the ledger's
    /// version when the correction is recorded.
    async fn once_more(&self, account: &Employee, first: Finding) -> Result<Finding, ReconcileError> {
        let held = self.held(std::slice::from_ref(account)).await?;
        match self.account(&account.id).await {
            Ok(now) => {
                let found = pairs(std::slice::from_ref(&now), &held)
                    .map(|(now, held)| find(now, held, self.comparison.key))
                    .next();
                Ok(found.unwrap_or(Finding::Agrees))
            }
            // Gone since: delivery finds out.
            Err(failure) if failure.class == Class::AccountMissing => Ok(first),
            Err(failure) => Err(ReconcileError::Platform(failure)),
        }
    }

    fn count(&mut self, finding: Finding, held: &Held) -> Option<Correction> {
        let report = &mut self.report;
        if held.linked {
            report.ours += 1;
        }
        match finding {
            Finding::Agrees => None,
            Finding::Stranger => {
                report.strangers += 1;
                None
            }
            Finding::Drifted(correction) => {
                report.drifted += 1;
                Some(correction)
            }
            Finding::Unlinked(correction) => {
                report.unlinked += 1;
                Some(correction)
            }
            Finding::Conflict(correction) => {
                report.conflicts += 1;
                tracing::warn!(
                    employee = held.employee_id,
                    "the linked account carries another employee's id now; a person has to decide"
                );
                Some(correction)
            }
            Finding::Settled(correction) | Finding::Created(correction) => Some(correction),
        }
    }

    async fn correct(&mut self, corrections: &[Correction]) -> Result<(), ReconcileError> {
        if self.dry || corrections.is_empty() {
            return Ok(());
        }
        let corrected = accounts::record(&self.comparison.session, corrections, CONFLICT).await?;
        let overtaken = corrections.len().saturating_sub(corrected);
        self.report.overtaken += u64::try_from(overtaken).unwrap_or(0);
        if overtaken > 0 && self.quiet {
            // Somebody delivers who should not: the pages are not to be trusted.
            return Err(ReconcileError::UnderWay(i64::try_from(overtaken).unwrap_or(i64::MAX)));
        }
        Ok(())
    }

    /// Employees linked before the walk whose account was on no page.
    async fn missing(&mut self, before: f64) -> Result<(), ReconcileError> {
        let session = &self.comparison.session;
        let mut after = String::new();
        loop {
            self.comparison.go_on()?;
            let page = accounts::linked(session, &after, i64::try_from(PAGE).unwrap_or(1), before).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            let unlisted: Vec<(String, bool)> = page
                .into_iter()
                .filter(|(id, _)| !self.listed.contains(&self.hasher.employee(id.as_bytes())))
                .collect();
            self.report.missing += u64::try_from(unlisted.len()).unwrap_or(0);
            // Whoever has nothing acknowledged was found missing before, and delivery knows.
            let forgotten: Vec<String> =
                unlisted.into_iter().filter(|(_, acknowledged)| *acknowledged).map(|(id, _)| id).collect();
            if !self.dry {
                accounts::forget(session, &forgotten).await?;
            }
        }
    }
}

/// Accounts with what the ledger holds about them: by account, else by the employee whom they name.
fn pairs<'p>(items: &'p [Employee], held: &'p [Held]) -> impl Iterator<Item = (&'p Employee, &'p Held)> {
    let by_account: HashMap<&str, &Held> =
        held.iter().filter_map(|held| Some((held.benefits_id.as_deref()?, held))).collect();
    let by_employee: HashMap<&str, &Held> = held
        .iter()
        .filter(|held| held.benefits_id.is_none())
        .map(|held| (held.employee_id.as_str(), held))
        .collect();
    items.iter().filter_map(move |account| {
        let held = by_account.get(account.id.as_str());
        let named = || by_employee.get(account.external_id.as_deref()?);
        Some((account, *held.or_else(named)?))
    })
}

/// Judges an account. Pure.
pub(super) fn find(account: &Employee, held: &Held, key: &FingerprintKey) -> Finding {
    if held.claimed {
        // Under way at this moment.
        return Finding::Agrees;
    }
    let version = held.version.max(account.source_version.unwrap_or(0));
    let carries_our_id = account.external_id.as_deref() == Some(held.employee_id.as_str());
    let correction = Correction {
        employee_id: held.employee_id.clone(),
        loaded_version: held.version,
        loaded_intent: held.intent.map(|(_, version)| version),
        version,
        acknowledged: None,
        benefits_id: Some(account.id.clone()),
        linked: true,
        fate: Fate::Kept,
    };
    let Some(_) = &held.benefits_id else {
        // The account names the employee. Only an unresolved create of ours explains that; it is linked as one that was
        // found, with everything sent anew.
        return if held.create_unresolved {
            Finding::Created(Correction { linked: false, fate: Fate::Due, ..correction })
        } else {
            Finding::Stranger
        };
    };
    if !carries_our_id {
        let unlinked = Correction { benefits_id: None, linked: false, ..correction };
        return match (&account.external_id, held.linked) {
            (Some(_), true) => Finding::Conflict(Correction { fate: Fate::Conflict, ..unlinked }),
            (None, true) | (Some(_), false) => Finding::Unlinked(Correction { fate: Fate::Due, ..unlinked }),
            // Reserved, and the link was not written: it will be.
            (None, false) => Finding::Agrees,
        };
    }
    // A write up to the account's version has arrived, or will be refused as stale.
    let settles = held.intent.is_some_and(|(_, intent)| intent <= account.source_version.unwrap_or(0));
    let now = account.fingerprints(key, &held.employee_id);
    let known = FieldSet::ALL.difference(held.acknowledged.unknown());
    let drifted = !diff(&now, FieldSet::EMPTY, &held.acknowledged, known).is_empty();
    let kept = Fingerprints::UNKNOWN.with(account.known(), &now);
    let right = Correction {
        acknowledged: Some(kept),
        fate: if settles { Fate::Due } else { Fate::Kept },
        ..correction
    };
    if drifted && held.linked && held.intent.is_none() && held.unknown.is_empty() {
        return Finding::Drifted(right);
    }
    let same = held.linked && version == held.version && held.acknowledged == kept && held.unknown.is_empty();
    if same && !settles { Finding::Agrees } else { Finding::Settled(right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::work::IntentKind;

    fn key() -> FingerprintKey {
        FingerprintKey::from_hex(&"ab".repeat(32)).unwrap()
    }

    /// Account `b1` with a surname, written last with version 50.
    fn account(external_id: Option<&str>, surname: &str) -> Employee {
        let json = serde_json::json!({
            "id": "b1", "externalId": external_id, "sourceVersion": 50, "status": "active", "surname": surname,
        });
        serde_json::from_value(json).unwrap()
    }

    /// What the ledger holds of employee 7, who is linked to `b1` and in step with it.
    fn held() -> Held {
        Held {
            employee_id: "7".to_owned(),
            benefits_id: Some("b1".to_owned()),
            linked: true,
            version: 50,
            acknowledged: account(Some("7"), "Lovelace").fingerprints(&key(), "7"),
            unknown: FieldSet::EMPTY,
            intent: None,
            create_unresolved: false,
            claimed: false,
        }
    }

    fn found(account: &Employee, held: &Held) -> Finding {
        find(account, held, &key())
    }

    #[test]
    fn an_account_that_holds_what_it_acknowledged_agrees() {
        assert_eq!(found(&account(Some("7"), "Lovelace"), &held()), Finding::Agrees);
    }

    #[test]
    fn the_accounts_own_values_and_the_higher_version_are_taken_over() {
        let behind = Held { version: 20, ..held() };
        let Finding::Settled(settled) = found(&account(Some("7"), "Lovelace"), &behind) else { panic!() };
        assert_eq!((settled.version, settled.loaded_version, settled.linked), (50, 20, true));
        let Finding::Drifted(drifted) = found(&account(Some("7"), "Byron"), &held()) else { panic!() };
        assert_eq!(drifted.acknowledged, Some(account(Some("7"), "Byron").fingerprints(&key(), "7")));
        assert_eq!(drifted.version, 50);
    }

    #[test]
    fn a_link_that_the_account_does_not_confirm_is_dropped_and_never_written_to() {
        let Finding::Unlinked(unlinked) = found(&account(None, "Lovelace"), &held()) else { panic!() };
        assert_eq!((unlinked.benefits_id, unlinked.linked, unlinked.fate), (None, false, Fate::Due));
        let Finding::Conflict(conflict) = found(&account(Some("8"), "Lovelace"), &held()) else { panic!() };
        assert_eq!((conflict.benefits_id, conflict.linked, conflict.fate), (None, false, Fate::Conflict));
        assert_eq!(conflict.acknowledged, None);
    }

    #[test]
    fn an_account_with_our_id_is_adopted_for_an_unresolved_create_and_for_nothing_else() {
        let unknown = Held { benefits_id: None, linked: false, version: 0, ..held() };
        assert_eq!(found(&account(Some("7"), "Lovelace"), &unknown), Finding::Stranger);
        let update = Held { intent: Some((IntentKind::Update, 40)), ..unknown.clone() };
        assert_eq!(found(&account(Some("7"), "Lovelace"), &update), Finding::Stranger);
        let create = Held { intent: Some((IntentKind::Create, 40)), create_unresolved: true, ..unknown };
        let Finding::Created(created) = found(&account(Some("7"), "Lovelace"), &create) else { panic!() };
        assert_eq!((created.benefits_id.as_deref(), created.linked), (Some("b1"), false));
        assert_eq!((created.fate, created.version), (Fate::Due, 50));
    }

    #[test]
    fn a_write_that_the_account_has_passed_is_settled_and_a_later_one_is_not() {
        for (version, fate) in [(40, Fate::Due), (50, Fate::Due), (51, Fate::Kept)] {
            let held = Held { intent: Some((IntentKind::Update, version)), version: 40, ..held() };
            let Finding::Settled(settled) = found(&account(Some("7"), "Lovelace"), &held) else { panic!() };
            assert_eq!((settled.fate, settled.loaded_intent), (fate, Some(version)));
        }
    }

    #[test]
    fn whoever_is_being_delivered_is_left_to_delivery() {
        let claimed = Held { claimed: true, ..held() };
        assert_eq!(found(&account(Some("8"), "Byron"), &claimed), Finding::Agrees);
    }

    #[test]
    fn accounts_are_matched_by_the_ledgers_link_before_the_id_that_they_carry() {
        let other = Held { employee_id: "8".to_owned(), benefits_id: None, linked: false, ..held() };
        let (account, held) = ([account(Some("8"), "Lovelace")], [other, held()]);
        let matched: Vec<_> = pairs(&account, &held).map(|(_, held)| held.employee_id.as_str()).collect();
        assert_eq!(matched, ["7"]);
    }
}
