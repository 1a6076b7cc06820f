//! Sets of fields: what differs, what is unknown, what a site describes.

use super::field::{FIELD_COUNT, Field};

/// A set of fields; one bit each, so that the ledger keeps it as a `bigint`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FieldSet(u64);

impl FieldSet {
    /// No field.
    pub const EMPTY: Self = Self(0);

    /// Every field.
    pub const ALL: Self = Self((1 << FIELD_COUNT) - 1);

    /// The mandatory fields.
    pub fn mandatory() -> Self {
        Field::all().filter(|field| field.is_mandatory()).collect()
    }

    /// From the ledger's `bigint`. Bits of a later version's fields are dropped.
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits.cast_unsigned() & Self::ALL.0)
    }

    /// For the ledger.
    pub const fn bits(self) -> i64 {
        self.0.cast_signed()
    }

    /// Puts a field in.
    pub const fn insert(&mut self, field: Field) {
        self.0 |= field.bit();
    }

    /// Takes a field out.
    pub const fn remove(&mut self, field: Field) {
        self.0 &= !field.bit();
    }

    /// Whether the field is in it.
    pub const fn contains(self, field: Field) -> bool {
        self.0 & field.bit() != 0
    }

    /// The fields of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The fields of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The fields of this that are not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The fields, in the order of the indexes.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::all().filter(move |field| self.contains(*field))
    }

    /// The API's names, for history and logs.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Field::api_name).collect()
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<T: IntoIterator<Item = Field>>(fields: T) -> Self {
        fields.into_iter().fold(Self::EMPTY, |set, field| Self(set.0 | field.bit()))
    }
}

impl std::fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_the_ledger_and_forgets_later_fields() {
        let set: FieldSet = [Field::Surname, Field::PackageId].into_iter().collect();
        assert_eq!(FieldSet::from_bits(set.bits()), set);
        assert_eq!(FieldSet::from_bits(-1), FieldSet::ALL);
        assert_eq!(set.names(), ["surname", "packageId"]);
        assert_eq!(FieldSet::ALL.difference(set).len(), 31);
    }
}
