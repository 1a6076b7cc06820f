//! What must hold whatever happened: the platform's records are HR's, nobody was created twice, versions only rise.

use std::collections::{BTreeMap, HashMap};

use benefits_sync::config::EmailSource;
use benefits_sync::record::{COLUMNS, Described, Field, RawRecord, Rules, prepare};
use benefits_sync::sandbox::Operation;

use super::site::Site;

/// How the platform differs from HR, a line each: of every synced employee whose record can be sent. Nothing may be pending.
pub async fn differences(site: &Site) -> Vec<String> {
    let rules = rules(site).await;
    let sql = "select s.employee_id, s.state, s.last_error_code from benefits.employee_status as s \
               where s.state <> 'not_syncing' order by 1";
    let mut found = Vec::new();
    for row in site.hr.query(sql, &[]).await.unwrap() {
        let (id, state, code): (String, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let records = site.hr.query("select * from benefits.read_records(array[$1])", &[&id]).await.unwrap();
        let Some(record) = records.first() else {
            found.push(format!("{id}: no record"));
            continue;
        };
        let first = record.len() - COLUMNS.len();
        let values = (first..record.len()).map(|at| record.get(at)).collect();
        let raw = RawRecord { employee_id: id.clone(), values };
        let Ok(expected) = prepare(&raw, &rules) else {
            if state != "failed" {
                found.push(format!("{id}: cannot be sent, and is {state}"));
            }
            continue;
        };
        if state != "successful" {
            found.push(format!("{id}: {state} ({code:?})"));
            continue;
        }
        let Some(account) = site.sandbox.account_of(&id) else {
            found.push(format!("{id}: no account"));
            continue;
        };
        for field in Field::all().filter(|field| expected.fields().contains(*field)) {
            let held = account.get(field.api_name());
            if held != expected.value(field) {
                found.push(format!("{id}: {} is not HR's", field.api_name()));
            }
        }
    }
    found
}

/// The site's own rules, without the platform's lists.
pub async fn rules(site: &Site) -> Rules {
    let row = site.hr.query_one("select described from benefits.site", &[]).await.unwrap();
    let columns: Vec<String> = row.get(0);
    let described = Described::from_columns(columns.iter().map(String::as_str));
    let sql = "select field, hr_value, benefits_value from benefits.picklist_value";
    let translations = site.hr.query(sql, &[]).await.unwrap();
    let levels = site.hr.query("select level, package_id from benefits.level_package", &[]).await.unwrap();
    Rules::new(EmailSource::Work, described)
        .with_translations(translations.iter().map(|row| (row.get(0), row.get(1), row.get(2))))
        .with_levels(levels.iter().map(|row| (row.get(0), row.get(1))))
}

/// What the platform saw that it must never see, a line each. The sandbox must keep bodies, and its whole journal.
pub fn offences(site: &Site) -> Vec<String> {
    let mut found = Vec::new();
    let mut creates: BTreeMap<String, u32> = BTreeMap::new();
    let mut accepted: BTreeMap<String, i64> = BTreeMap::new();
    let mut keys: HashMap<String, _> = HashMap::new();
    for entry in site.sandbox.journal() {
        let who = entry.external_id.clone().unwrap_or_default();
        if let Some(earlier) = keys.insert(entry.key.clone(), entry.body.clone())
            && earlier != entry.body
        {
            found.push(format!("{who}: key {} was used for two bodies", entry.key));
        }
        if entry.problem == Some("idempotency-key-reused") || entry.problem == Some("stale-source-version") {
            found.push(format!("{who}: {:?} at {}", entry.problem, entry.sequence));
        }
        if !entry.acted() {
            continue;
        }
        if entry.operation == Operation::Create {
            *creates.entry(who.clone()).or_default() += 1;
        }
        let version = entry.source_version.unwrap_or(0);
        let before = accepted.insert(who.clone(), version).unwrap_or(-1);
        if before >= version {
            found.push(format!("{who}: version {version} after {before}"));
        }
    }
    found.extend(creates.iter().filter(|(_, n)| **n > 1).map(|(who, n)| format!("{who}: created {n} times")));
    found
}

/// Both, and the site at rest.
pub async fn prove(site: &Site) {
    site.settled().await;
    let wrong: Vec<String> = differences(site).await.into_iter().chain(offences(site)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
