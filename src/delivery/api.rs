//! What the platform answers (`benefits-api.yaml`), read with tolerance.
//!
//! An answer may hold more than the document says, and members in kinds that it does not; an account must still be usable
//! then, or one odd property would keep a person In progress for ever. So only what is needed is required. Personal values
//! are in [`Employee`] alone, and `Debug` never shows them.

use std::collections::BTreeMap;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::record::{FIELD_COUNT, Field, FieldSet, FingerprintKey, Fingerprints};

/// Allowed values by field name.
pub type Picklists = BTreeMap<String, Vec<String>>;

/// The platform itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Its id, as in the paths.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether it takes writes.
    pub status: PlatformStatus,
}

/// Whether a platform takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformStatus {
    /// It does.
    Active,
    /// It refuses everything but `getPlatform`.
    Suspended,
}

/// A benefits package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// What `packageId` holds.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// A list without pages.
#[derive(Deserialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

/// Some of all accounts.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The accounts.
    pub items: Vec<Employee>,
    /// What to ask the next page with; none after the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// What the platform makes of a leave date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccountStatus {
    /// Not begun.
    Pending,
    /// In force.
    Active,
    /// Ended.
    Leaver,
    /// Anything that this version does not know.
    #[default]
    Other,
}

/// An account as the platform holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Employee {
    /// The platform's id of the account.
    pub id: String,
    /// HR's id that it is linked to.
    pub external_id: Option<String>,
    /// Its status.
    pub status: AccountStatus,
    /// The version of the last write; none where it was never written by HR.
    pub source_version: Option<i64>,
    known: FieldSet,
    values: [Option<String>; FIELD_COUNT],
}

impl Employee {
    /// The fields whose state the answer tells: text or null.
    pub const fn known(&self) -> FieldSet {
        self.known
    }

    /// A field's value; `None` is null, or not told (see [`Employee::known`]).
    pub fn value(&self, field: Field) -> Option<&str> {
        self.values.get(field.index())?.as_deref()
    }

    fn learn(&mut self, field: Field, value: Loose) {
        let value = match value {
            Loose::Text(text) => Some(text),
            Loose::Null(()) => None,
            Loose::Other(_) => return,
        };
        if let Some(slot) = self.values.get_mut(field.index()) {
            *slot = value;
            self.known.insert(field);
        }
    }

    /// The fingerprints of what the platform holds, as if HR's employee had been acknowledged with it.
    pub fn fingerprints(&self, key: &FingerprintKey, employee_id: &str) -> Fingerprints {
        Fingerprints::of_values(key, employee_id, self.known, |field| self.value(field))
    }
}

/// Shows ids and version, no value.
impl std::fmt::Debug for Employee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Employee")
            .field("id", &self.id)
            .field("external_id", &self.external_id)
            .field("source_version", &self.source_version)
            .finish_non_exhaustive()
    }
}

/// What the answer to a write has to tell: which account was written to. The rest is what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Written {
    /// The platform's id of the account.
    #[serde(deserialize_with = "usable_id")]
    pub id: String,
}

fn usable_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    if is_usable_id(&id) { Ok(id) } else { Err(D::Error::custom("no usable id")) }
}

impl<'de> Deserialize<'de> for Employee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EmployeeVisitor)
    }
}

struct EmployeeVisitor;

impl<'de> Visitor<'de> for EmployeeVisitor {
    type Value = Employee;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an employee")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Employee, A::Error> {
        let mut id = None;
        let mut employee = Employee {
            id: String::new(),
            external_id: None,
            status: AccountStatus::default(),
            source_version: None,
            known: FieldSet::EMPTY,
            values: [const { None }; FIELD_COUNT],
        };
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "id" => id = Some(map.next_value::<String>()?),
                "externalId" => employee.external_id = map.next_value()?,
                "sourceVersion" => employee.source_version = map.next_value()?,
                "status" => employee.status = map.next_value::<Loose>()?.status(),
                _ => match Field::all().find(|field| field.api_name() == name) {
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                    Some(field) => employee.learn(field, map.next_value()?),
                },
            }
        }
        employee.id = id.filter(|id| is_usable_id(id)).ok_or_else(|| A::Error::custom("no usable id"))?;
        Ok(employee)
    }
}

/// A value that should be text or null and may be anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Text(String),
    Null(()),
    Other(IgnoredAny),
}

impl Loose {
    fn status(&self) -> AccountStatus {
        match self {
            Self::Text(text) if text == "pending" => AccountStatus::Pending,
            Self::Text(text) if text == "active" => AccountStatus::Active,
            Self::Text(text) if text == "leaver" => AccountStatus::Leaver,
            _ => AccountStatus::Other,
        }
    }
}

/// Whether an account's id can stand in a path: `.` and `..` would leave it, percent-encoded or not.
pub(super) fn is_usable_id(id: &str) -> bool {
    !matches!(id, "" | "." | "..") && id.len() <= 200 && !id.contains(char::is_control)
}

/// An RFC 9457 problem document, less the prose, which is not ours and may quote personal values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Problem {
    /// The last segment of `type`: `email-in-use`. Sanitised.
    pub(super) kind: Option<String>,
    /// (field, code) of `errors`.
    pub(super) errors: Vec<(String, String)>,
}

/// The most errors of one problem that are read.
const ERRORS_MAX: usize = 64;

impl Problem {
    /// From a body; none where it is no JSON object. A member of the wrong kind is as good as missing.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
        let kind = json.get("type").and_then(|kind| kind.as_str()).and_then(segment);
        let errors = json.get("errors").and_then(|errors| errors.as_array()).map_or(&[][..], Vec::as_slice);
        let errors = errors
            .iter()
            .take(ERRORS_MAX)
            .filter_map(|error| {
                let text = |name| error.get(name)?.as_str().map(str::to_owned);
                Some((text("field")?, text("code")?))
            })
            .collect();
        Some(Self { kind, errors })
    }
}

/// The last segment of a problem type, if it can be a code: lower-case words. Anything else could quote a value.
fn segment(kind: &str) -> Option<String> {
    let last = kind.trim_end_matches('/').rsplit('/').next()?;
    let code = (1..=40).contains(&last.len()) && last.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    code.then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn employee(json: &str) -> Result<Employee, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn an_account_tells_text_and_null_apart_from_silence() {
        let account = employee(
            r#"{"id":"b1","status":"active","email":"a@b.c","mobile":null,"grade":7,"sourceVersion":5,
                "externalId":"1042","enrolledAt":{"x":[1]}}"#,
        )
        .unwrap();
        assert_eq!(account.known().names(), ["email", "mobile"]);
        assert_eq!(account.value(Field::Email), Some("a@b.c"));
        assert_eq!((account.source_version, account.external_id.as_deref()), (Some(5), Some("1042")));
        assert_eq!(account.status, AccountStatus::Active);
        assert!(!format!("{account:?}").contains("a@b.c"));
    }

    #[test]
    fn an_account_without_a_usable_id_is_no_answer() {
        for json in
            [r#"{"status":"active"}"#, r#"{"id":"","status":"active"}"#, r#"{"id":".."}"#, r#"{"id":5}"#]
        {
            assert!(employee(json).is_err(), "{json}");
            assert!(serde_json::from_str::<Written>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_problem_keeps_codes_and_no_prose() {
        let problem = Problem::parse(
            br#"{"type":"https://x.example/problems/validation","title":"T","status":422,"detail":"bob@x.org is bad",
                 "errors":[{"field":"email","code":"format","message":"bob@x.org"},{"field":7},"x"]}"#,
        )
        .unwrap();
        assert_eq!(problem.kind.as_deref(), Some("validation"));
        assert_eq!(problem.errors, [("email".to_owned(), "format".to_owned())]);
    }

    #[test]
    fn a_type_that_could_quote_a_value_is_dropped() {
        for kind in ["about:blank", "/problems/bob@x.org", "/problems/QQ123456C", "", "/", &"a".repeat(41)] {
            assert_eq!(segment(kind), None, "{kind}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_problem_document() {
        for body in ["", "[]", "null", "<html>", "{\"type\":"] {
            assert_eq!(Problem::parse(body.as_bytes()), None);
        }
        assert_eq!(Problem::parse(b"{\"type\":5,\"errors\":{}}"), Some(Problem::default()));
    }
}
