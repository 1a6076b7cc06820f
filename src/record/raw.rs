//! An employee as the site's record query answers: text as PostgreSQL prints it, nothing judged yet.
//!
//! [`super::prepare()`] turns it into what is sent. Values stand in the order of [`COLUMNS`], whatever columns the site's query has;
//! [`Described`] says which it has, because a column that is not described is never sent, not even as a null.

use super::field::{COLUMNS, Field};
use super::field_set::FieldSet;
use super::fingerprint::FingerprintKey;
use crate::config::EmailSource;

/// One row of the record query.
#[derive(Clone)]
pub struct RawRecord {
    /// HR's id of the employee, as text.
    pub employee_id: String,
    /// One value for each of [`COLUMNS`]; `None` is a null or a column the query does not have.
    pub values: Vec<Option<String>>,
}

impl RawRecord {
    /// The value of a column by its place in [`COLUMNS`].
    pub(super) fn value(&self, field: Field, source: EmailSource) -> Option<&str> {
        self.values.get(field.column_index(source))?.as_deref()
    }

    /// Tells whether HR's row is still the same, all columns together. Keyed, as every hash that is stored.
    pub fn hash(&self, key: &FingerprintKey) -> [u8; 16] {
        let values: Vec<&[u8]> = std::iter::once(self.employee_id.as_bytes())
            .chain(self.values.iter().flat_map(|value| match value {
                Some(text) => [&b"1"[..], text.as_bytes()],
                None => [&b"0"[..], b""],
            }))
            .collect();
        key.derived(b"benefits-sync row 1", &values)
    }
}

/// Shows whose record it is and how wide, no value of it.
impl std::fmt::Debug for RawRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawRecord")
            .field("employee_id", &self.employee_id)
            .field("columns", &self.values.len())
            .finish_non_exhaustive()
    }
}

/// Which of [`COLUMNS`] the site's query has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Described(u64);

impl Described {
    /// A query with every column.
    pub const ALL: Self = Self((1 << COLUMNS.len()) - 1);

    /// From the query's column names. Names that are not in [`COLUMNS`] are left out; `setup` refuses those.
    pub fn from_columns<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names
            .into_iter()
            .filter_map(|name| COLUMNS.iter().position(|column| *column == name))
            .fold(Self(0), |set, index| Self(set.0 | 1 << index))
    }

    /// The fields that can be filled from these columns.
    pub fn fields(self, source: EmailSource) -> FieldSet {
        Field::all().filter(|field| self.0 & (1 << field.column_index(source)) != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sites_own_email_column_fills_the_email() {
        let described = Described::from_columns(["surname", "home_email", "nonsense"]);
        assert_eq!(described.fields(EmailSource::Home).names(), ["surname", "email"]);
        assert_eq!(described.fields(EmailSource::Work).names(), ["surname"]);
        assert_eq!(Described::ALL.fields(EmailSource::Services), FieldSet::ALL);
    }

    #[test]
    fn a_hash_tells_rows_apart_and_an_empty_value_from_none() {
        use super::super::fingerprint::tests::key;
        let of = |value: Option<&str>| {
            let mut values = vec![None; COLUMNS.len()];
            values[3] = value.map(str::to_owned);
            RawRecord { employee_id: "7".to_owned(), values }.hash(&key())
        };
        assert_eq!(of(Some("a")), of(Some("a")));
        assert_ne!(of(Some("a")), of(Some("b")));
        assert_ne!(of(Some("")), of(None));
    }

    #[test]
    fn debug_shows_no_value() {
        let raw =
            RawRecord { employee_id: "7".to_owned(), values: vec![Some("secret".to_owned()); COLUMNS.len()] };
        assert!(!format!("{raw:?}").contains("secret"));
    }
}
