//! One account of the platform: how it is held, how the API shows it, how tests see and seed it.

use std::collections::BTreeMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::field::{EMAIL, FIELD_COUNT, FIELDS, LEAVE_DATE, index_of};
use super::keys::BodyHash;

/// An account as the platform holds it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) external_id: Option<String>,
    pub(super) source_version: Option<i64>,
    /// The body that was accepted with `source_version`; `None` where the version was seeded.
    pub(super) accepted_body: Option<BodyHash>,
    pub(super) values: [Option<Box<str>>; FIELD_COUNT],
}

impl Account {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            external_id: None,
            source_version: None,
            accepted_body: None,
            values: [const { None }; FIELD_COUNT],
        }
    }

    pub(super) fn value(&self, at: usize) -> Option<&str> {
        self.values.get(at).and_then(Option::as_deref)
    }

    pub(super) fn set(&mut self, at: usize, value: Option<Box<str>>) {
        if let Some(place) = self.values.get_mut(at) {
            *place = value;
        }
    }

    /// The email as uniqueness sees it.
    pub(super) fn email_key(&self) -> String {
        email_key(self.value(EMAIL).unwrap_or_default())
    }

    /// `pending` until HR has linked it, `leaver` from the leave date on, `active` otherwise.
    fn status(&self) -> &'static str {
        match (&self.external_id, self.value(LEAVE_DATE)) {
            (None, _) => "pending",
            // Dates of this form compare as text. The platform's day is UTC's.
            (Some(_), Some(leave)) if leave <= today().as_str() => "leaver",
            _ => "active",
        }
    }

    /// The account for tests and the demo.
    pub(super) fn view(&self) -> AccountView {
        let set = FIELDS.iter().zip(&self.values);
        AccountView {
            id: self.id.clone(),
            external_id: self.external_id.clone(),
            source_version: self.source_version,
            status: self.status(),
            fields: set.filter_map(|(f, value)| Some((f.name, value.as_deref()?.to_owned()))).collect(),
        }
    }
}

/// An email as uniqueness sees it: ignoring case.
pub(super) fn email_key(email: &str) -> String {
    if email.is_ascii() { email.to_ascii_lowercase() } else { email.to_lowercase() }
}

fn today() -> String {
    jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date().to_string()
}

/// The document's `Employee`: a field without a value is null where the schema has null, else absent.
impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("externalId", &self.external_id)?;
        map.serialize_entry("status", self.status())?;
        map.serialize_entry("sourceVersion", &self.source_version)?;
        for (field, value) in FIELDS.iter().zip(&self.values) {
            if value.is_some() || field.nullable {
                map.serialize_entry(field.name, value)?;
            }
        }
        map.end()
    }
}

/// A copy of an account, for assertions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountView {
    /// The platform's id.
    pub id: String,
    /// The HR employee it is linked to.
    pub external_id: Option<String>,
    /// The version of the latest accepted write.
    pub source_version: Option<i64>,
    /// `pending`, `active` or `leaver`.
    pub status: &'static str,
    /// The fields that have a value, by their names in the API document.
    pub fields: BTreeMap<&'static str, String>,
}

impl AccountView {
    /// The value of a field, by its name in the API document.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }
}

/// An account that is there before HR has sent anything.
#[derive(Debug, Clone, Default)]
pub struct SeedAccount {
    pub(super) external_id: Option<String>,
    pub(super) source_version: Option<i64>,
    pub(super) fields: Vec<(String, String)>,
}

impl SeedAccount {
    /// A self-registered account, not linked to anybody.
    pub fn new(email: &str) -> Self {
        Self::default().with("email", email)
    }

    /// The same with one more field, named as in the API document.
    #[must_use]
    pub fn with(mut self, field: &str, value: &str) -> Self {
        self.fields.push((field.to_owned(), value.to_owned()));
        self
    }

    /// The same, linked to an HR employee and last written with this version.
    #[must_use]
    pub fn linked_to(mut self, external_id: &str, source_version: Option<i64>) -> Self {
        self.external_id = Some(external_id.to_owned());
        self.source_version = source_version;
        self
    }

    /// The account under this id; `Err` names a field that does not exist.
    pub(super) fn build(self, id: String) -> Result<Account, String> {
        let mut account = Account::new(id);
        account.external_id = self.external_id;
        account.source_version = self.source_version;
        for (name, value) in self.fields {
            let Some(at) = index_of(&name) else { return Err(name) };
            account.set(at, Some(value.into_boxed_str()));
        }
        Ok(account)
    }
}
