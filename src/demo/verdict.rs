//! Whether HR and Benefits are in step, told without asking the pipeline.
//!
//! Who should be at Benefits is known to the demo (who it synced) and to HR (the starter tick). Every one of them is read
//! from HR again, prepared by the site's rules, and held field by field against the platform's account. The ledger is asked
//! one thing only: what it tells people about somebody, which must agree with what is found.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::{Client, Error};

use crate::config::EmailSource;
use crate::record::{COLUMNS, Described, Fault, Field, RawRecord, Record, Rules, prepare};
use crate::sandbox::{AccountView, Sandbox};

/// Employees read from HR by one statement.
const PAGE: usize = 1_000;

/// An employee who should be at Benefits.
#[derive(Debug)]
pub struct Synced {
    /// HR's id.
    pub employee_id: String,
    /// HR's rows for the employee: one, unless something is wrong.
    pub rows: Vec<RawRecord>,
    /// What `employee_status` tells people.
    pub state: Option<String>,
    /// The code that it shows.
    pub error_code: Option<String>,
}

/// What the end of the demo found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Employees who should be at Benefits.
    pub synced: u64,
    /// Of them those whose account holds what HR holds, field by field.
    pub same: u64,
    /// Those who were rightly refused, and why.
    pub refused: Vec<(String, String)>,
    /// Those who are not in step, and what differs.
    pub differences: Vec<(String, Vec<String>)>,
}

/// Reads HR as it is now and compares. `asked` are those who were synced by hand; starters are HR's to tell: those after the
/// `loaded` first employees who have the tick.
pub async fn judge(
    hr: &Client,
    sandbox: &Sandbox,
    source: EmailSource,
    asked: &[String],
    loaded: i64,
) -> Result<Verdict, Error> {
    let rules = rules(hr, sandbox, source).await?;
    let mut wanted: BTreeSet<String> = asked.iter().cloned().collect();
    let sql = "select id::text from hr.employee where create_benefits_record and id > $1";
    wanted.extend(hr.query(sql, &[&loaded]).await?.iter().map(|row| row.get::<_, String>(0)));
    let ids: Vec<String> = wanted.into_iter().collect();
    let mut synced = Vec::with_capacity(ids.len());
    for page in ids.chunks(PAGE) {
        synced.extend(read(hr, page).await?);
    }
    Ok(compare(&synced, &sandbox.accounts(), &rules))
}

/// The site's rules and the platform's lists, read anew.
async fn rules(hr: &Client, sandbox: &Sandbox, source: EmailSource) -> Result<Rules, Error> {
    let described: Vec<String> = hr.query_one("select described from benefits.site", &[]).await?.get(0);
    let described = Described::from_columns(described.iter().map(String::as_str));
    let sql = "select field, hr_value, benefits_value from benefits.picklist_value";
    let translations = hr.query(sql, &[]).await?;
    let levels = hr.query("select level, package_id from benefits.level_package", &[]).await?;
    Ok(Rules::new(source, described)
        .with_translations(translations.iter().map(|row| (row.get(0), row.get(1), row.get(2))))
        .with_levels(levels.iter().map(|row| (row.get(0), row.get(1))))
        .with_picklists(sandbox.picklists())
        .with_packages(sandbox.packages().into_iter().map(|package| (package.id, package.name))))
}

async fn read(hr: &Client, ids: &[String]) -> Result<Vec<Synced>, Error> {
    let mut rows: HashMap<String, Vec<RawRecord>> = HashMap::new();
    for row in hr.query("select * from benefits.read_records($1)", &[&ids]).await? {
        let employee_id: String = row.get(0);
        let values = COLUMNS.iter().map(|column| row.get(*column)).collect();
        rows.entry(employee_id.clone()).or_default().push(RawRecord { employee_id, values });
    }
    let sql = "select employee_id, state, last_error_code from benefits.employee_status where employee_id = any($1)";
    let mut states: HashMap<String, (String, Option<String>)> = HashMap::new();
    for row in hr.query(sql, &[&ids]).await? {
        states.insert(row.get(0), (row.get(1), row.get(2)));
    }
    let one = |id: &String| {
        let (state, error_code) = states.remove(id).map_or((None, None), |(state, code)| (Some(state), code));
        Synced { employee_id: id.clone(), rows: rows.remove(id).unwrap_or_default(), state, error_code }
    };
    Ok(ids.iter().map(one).collect())
}

/// Compares those who should be at Benefits with the accounts that are there.
pub fn compare(synced: &[Synced], accounts: &[AccountView], rules: &Rules) -> Verdict {
    let platform = Accounts::new(accounts);
    let mut verdict = Verdict { synced: count(synced.len()), ..Verdict::default() };
    for employee in synced {
        match platform.judge(employee, rules) {
            Finding::Same => verdict.same += 1,
            Finding::Refused(why) => verdict.refused.push((employee.employee_id.clone(), why)),
            Finding::Differs(what) => verdict.differences.push((employee.employee_id.clone(), what)),
        }
    }
    let wanted: BTreeSet<&str> = synced.iter().map(|employee| employee.employee_id.as_str()).collect();
    for stranger in platform.linked.keys().filter(|id| !wanted.contains(**id)) {
        verdict
            .differences
            .push(((*stranger).to_owned(), vec!["is at Benefits; nobody asked for it".to_owned()]));
    }
    // Numbers by their size, as far as ids are numbers.
    verdict.refused.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
    verdict.differences.sort_by(|a, b| (a.0.len(), &a.0).cmp(&(b.0.len(), &b.0)));
    verdict
}

enum Finding {
    Same,
    Refused(String),
    Differs(Vec<String>),
}

struct Accounts<'a> {
    linked: HashMap<&'a str, &'a AccountView>,
    by_email: HashMap<String, &'a AccountView>,
}

impl<'a> Accounts<'a> {
    fn new(accounts: &'a [AccountView]) -> Self {
        let linked = accounts.iter().filter_map(|it| Some((it.external_id.as_deref()?, it))).collect();
        let by_email = accounts.iter().filter_map(|it| Some((it.get("email")?.to_lowercase(), it))).collect();
        Self { linked, by_email }
    }

    fn judge(&self, employee: &Synced, rules: &Rules) -> Finding {
        let account = self.linked.get(employee.employee_id.as_str()).copied();
        let differs = |what: &str| Finding::Differs(vec![what.to_owned()]);
        let [raw] = employee.rows.as_slice() else {
            return differs("HR has no record of the employee, or more than one");
        };
        match prepare(raw, rules) {
            Err(faults) => refused_here(employee, raw, account, &faults, rules.email_source()),
            Ok(record) if employee.state.as_deref() == Some("failed") => {
                // The one refusal that the platform can come to by itself here, and it must be so.
                let email = record.value(Field::Email).unwrap_or_default().to_lowercase();
                let holder = self.by_email.get(&email).and_then(|it| it.external_id.as_deref());
                match employee.error_code.as_deref() {
                    Some("email-in-use") if holder.is_some_and(|it| it != employee.employee_id) => {
                        Finding::Refused("email-in-use: another account has the email".to_owned())
                    }
                    code => differs(&format!("failed ({}) without a reason", code.unwrap_or("no code"))),
                }
            }
            Ok(record) => match account.map(|account| different(&record, account)) {
                None => differs("is not at Benefits"),
                Some(fields) if !fields.is_empty() => Finding::Differs(fields),
                Some(_) if employee.state.as_deref() != Some("successful") => {
                    let state = employee.state.as_deref().unwrap_or("unknown");
                    differs(&format!("is the same on both sides, and shown as {state}"))
                }
                Some(_) => Finding::Same,
            },
        }
    }
}

/// The names of the fields that the account holds otherwise.
fn different(record: &Record, account: &AccountView) -> Vec<String> {
    let names = record.fields().iter().filter(|field| account.get(field.api_name()) != record.value(*field));
    names.map(|field| field.api_name().to_owned()).collect()
}

/// A record with faults: people must be told the first of them, and none of the refused values may have been sent.
fn refused_here(
    employee: &Synced,
    raw: &RawRecord,
    account: Option<&AccountView>,
    faults: &[Fault],
    source: EmailSource,
) -> Finding {
    let told = faults.first().map(|fault| fault.code.as_str());
    if employee.state.as_deref() != Some("failed") || employee.error_code.as_deref() != told {
        let state = employee.state.as_deref().unwrap_or("unknown");
        return Finding::Differs(vec![format!(
            "cannot be sent ({}), and is shown as {state}",
            told.unwrap_or_default()
        )]);
    }
    let sent: Vec<String> = faults
        .iter()
        .filter(|fault| {
            let value = value_of(raw, fault.field, source);
            value.is_some() && value == account.and_then(|account| account.get(fault.field.api_name()))
        })
        .map(|fault| format!("{} was refused, and sent", fault.field.api_name()))
        .collect();
    if sent.is_empty() { Finding::Refused(in_brief(faults)) } else { Finding::Differs(sent) }
}

/// What is wrong, without the remedies and lists of values that people are shown.
fn in_brief(faults: &[Fault]) -> String {
    let brief = faults.iter().map(|fault| {
        let text = fault.to_string();
        text.split([':', '(']).next().unwrap_or_default().trim().to_owned()
    });
    brief.collect::<Vec<_>>().join("; ")
}

fn value_of(raw: &RawRecord, field: Field, source: EmailSource) -> Option<&str> {
    let at = COLUMNS.iter().position(|column| *column == field.column(source))?;
    raw.values.get(at)?.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{SandboxOptions, SeedAccount};

    const GOOD: [(&str, &str); 11] = [
        ("title", "Ms"),
        ("forenames", "Ada"),
        ("surname", "Lovelace"),
        ("date_of_birth", "1985-12-10"),
        ("gender", "Female"),
        ("work_email", "ada@kestrel.example"),
        ("annual_pay", "31250"),
        ("pay_basis", "Annual"),
        ("pay_frequency", "Monthly"),
        ("pay_change_reason", "Promotion"),
        ("benefits_level", "Standard"),
    ];

    fn employee(id: &str, state: &str, code: Option<&str>, but: &[(&str, &str)]) -> Synced {
        let mut values = vec![None; COLUMNS.len()];
        for (column, value) in GOOD.iter().chain(but) {
            let at = COLUMNS.iter().position(|known| known == column).unwrap();
            values[at] = Some((*value).to_owned());
        }
        Synced {
            employee_id: id.to_owned(),
            rows: vec![RawRecord { employee_id: id.to_owned(), values }],
            state: Some(state.to_owned()),
            error_code: code.map(ToOwned::to_owned),
        }
    }

    /// Ada's account as the pipeline would have left it.
    fn platform() -> (Sandbox, String) {
        let sandbox = Sandbox::new(SandboxOptions::default());
        let account = SeedAccount::new("ada@kestrel.example").linked_to("7", Some(1));
        let fields = [
            ("title", "Ms"),
            ("forenames", "Ada"),
            ("surname", "Lovelace"),
            ("dateOfBirth", "1985-12-10"),
            ("gender", "Female"),
            ("annualPay", "31250.00"),
            ("payBasis", "Annual"),
            ("payFrequency", "Monthly"),
            ("payChangeReason", "Promotion"),
            ("packageId", "core"),
        ];
        let account = fields.into_iter().fold(account, |account, (name, value)| account.with(name, value));
        let id = sandbox.seed(account).unwrap();
        (sandbox, id)
    }

    fn verdict(sandbox: &Sandbox, synced: &[Synced]) -> Verdict {
        let rules = Rules::new(EmailSource::Work, Described::ALL)
            .with_picklists(sandbox.picklists())
            .with_packages(sandbox.packages().into_iter().map(|package| (package.id, package.name)))
            .with_levels([("Standard".to_owned(), "core".to_owned())]);
        compare(synced, &sandbox.accounts(), &rules)
    }

    fn differences(sandbox: &Sandbox, synced: &[Synced]) -> Vec<String> {
        verdict(sandbox, synced).differences.into_iter().flat_map(|(_, what)| what).collect()
    }

    #[test]
    fn an_account_that_holds_what_hr_holds_is_in_step() {
        let (sandbox, _) = platform();
        let verdict = verdict(&sandbox, &[employee("7", "successful", None, &[])]);
        assert_eq!((verdict.synced, verdict.same), (1, 1));
        assert_eq!(verdict.differences, []);
    }

    #[test]
    fn a_field_that_was_changed_cleared_or_filled_behind_our_back_is_named() {
        let (sandbox, id) = platform();
        assert!(
            sandbox.tamper(&id, &[("surname", Some("Byron")), ("packageId", None), ("mobile", Some("1"))])
        );
        let named = differences(&sandbox, &[employee("7", "successful", None, &[])]);
        assert_eq!(named, ["surname", "mobile", "packageId"]);
    }

    #[test]
    fn an_account_that_is_missing_or_that_nobody_asked_for_is_a_difference() {
        let (sandbox, id) = platform();
        assert_eq!(differences(&sandbox, &[]), ["is at Benefits; nobody asked for it"]);
        assert!(sandbox.remove_account(&id, false));
        assert_eq!(differences(&sandbox, &[employee("7", "successful", None, &[])]), ["is not at Benefits"]);
    }

    #[test]
    fn a_record_with_a_fault_is_explained_when_people_are_told_that_fault() {
        let (sandbox, _) = platform();
        let spoilt = [("title", "Wing Cdr")];
        let told = verdict(&sandbox, &[employee("7", "failed", Some("unknown-value"), &spoilt)]);
        assert_eq!(told.differences, []);
        assert!(told.refused[0].1.contains("Wing Cdr"), "{told:?}");
        for (state, code) in [("failed", Some("required")), ("successful", None), ("in_progress", None)] {
            let named = differences(&sandbox, &[employee("7", state, code, &spoilt)]);
            assert!(named[0].starts_with("cannot be sent (unknown-value), and is shown as"), "{named:?}");
        }
    }

    #[test]
    fn a_refused_value_that_is_at_the_platform_all_the_same_is_a_difference() {
        let (sandbox, id) = platform();
        assert!(sandbox.tamper(&id, &[("title", Some("Wing Cdr"))]));
        let named = differences(
            &sandbox,
            &[employee("7", "failed", Some("unknown-value"), &[("title", "Wing Cdr")])],
        );
        assert_eq!(named, ["title was refused, and sent"]);
    }

    #[test]
    fn a_good_record_that_failed_needs_a_reason_at_the_platform() {
        let (sandbox, _) = platform();
        let without = employee("7", "failed", Some("validation"), &[]);
        assert_eq!(differences(&sandbox, &[without]), ["failed (validation) without a reason"]);
        let own = employee("7", "failed", Some("email-in-use"), &[]);
        assert_eq!(differences(&sandbox, &[own]), ["failed (email-in-use) without a reason"]);
        let other = employee("8", "failed", Some("email-in-use"), &[]);
        assert_eq!(verdict(&sandbox, &[employee("7", "successful", None, &[]), other]).refused.len(), 1);
    }

    #[test]
    fn being_in_step_and_not_shown_so_is_a_difference() {
        let (sandbox, _) = platform();
        let waiting = employee("7", "in_progress", None, &[]);
        assert_eq!(
            differences(&sandbox, &[waiting]),
            ["is the same on both sides, and shown as in_progress"]
        );
    }
}
