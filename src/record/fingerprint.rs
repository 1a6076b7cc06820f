//! What was acknowledged, kept as keyed fingerprints and never as values.
//!
//! The ledger stores, for each employee, one 64-bit SipHash-2-4 a field of (employee, field, API value). Without the key a
//! fingerprint says nothing about the value, however few values there are; with the employee in it two people's equal
//! values look different. A changed key would make everybody differ, so the ledger also keeps [`FingerprintKey::check`].

use std::hash::Hasher as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use siphasher::sip::SipHasher24;

use super::field::{FIELD_COUNT, Field};
use super::field_set::FieldSet;
use super::prepare::Record;

/// Stored for a field whose state at the platform is not known. No value has this fingerprint.
const UNKNOWN: u64 = 0;

/// HMAC-SHA256 pads its key with zeros to this many bytes.
const HMAC_BLOCK: usize = 64;

/// Why a key file's text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint key is 64 hexadecimal digits (found {length} characters)")]
pub struct KeyError {
    /// How many characters there were.
    pub length: usize,
}

/// The site's secret, and the keys that are derived from it.
#[derive(Clone)]
pub struct FingerprintKey {
    secret: [u8; HMAC_BLOCK],
    sip: [u8; 16],
}

impl FingerprintKey {
    /// From the key file's text; space around it is forgiven.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let error = KeyError { length: text.chars().count() };
        let mut secret = [0; HMAC_BLOCK];
        let mut digits = text.chars().map(|c| c.to_digit(16));
        for byte in secret.iter_mut().take(32) {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(error);
            };
            *byte = u8::try_from(high * 16 + low).unwrap_or_default();
        }
        if digits.next().is_some() {
            return Err(error);
        }
        let mut key = Self { secret, sip: [0; 16] };
        key.sip = key.derived(b"benefits-sync fingerprint 1", &[]);
        Ok(key)
    }

    /// A value that changes when the key does and does not give it away.
    pub fn check(&self) -> String {
        hex(&self.derived(b"benefits-sync key check 1", &[]))
    }

    /// The fingerprint of a value, or of null.
    pub fn fingerprint(&self, employee_id: &str, field: Field, value: Option<&str>) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.sip);
        // Lengths stand before texts, so that no two triples run together to the same bytes.
        write_text(&mut hasher, employee_id);
        hasher.write_u8(u8::try_from(field.index()).unwrap_or(u8::MAX));
        match value {
            Some(value) => {
                hasher.write_u8(1);
                write_text(&mut hasher, value);
            }
            None => hasher.write_u8(0),
        }
        match hasher.finish() {
            UNKNOWN => 1,
            fingerprint => fingerprint,
        }
    }

    /// Keyed hash of a record that was refused: HR's values, and what we found wrong with them.
    pub fn refused(&self, employee_id: &str, values: &[Option<String>], faults: &str) -> [u8; 16] {
        let mut parts: Vec<&[u8]> = vec![employee_id.as_bytes(), faults.as_bytes()];
        for value in values {
            // A null and an empty text are two things.
            match value {
                Some(value) => parts.extend([&b"1"[..], value.as_bytes()]),
                None => parts.push(b"0"),
            }
        }
        self.derived(b"benefits-sync refused record 1", &parts)
    }

    /// The first half of HMAC-SHA256 over a label and length-delimited parts.
    pub(super) fn derived(&self, label: &[u8], parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = Hmac::<Sha256>::new(&self.secret.into());
        for part in std::iter::once(&label).chain(parts) {
            mac.update(&length(part));
            mac.update(part);
        }
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        half
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey([REDACTED])")
    }
}

fn length(bytes: &[u8]) -> [u8; 8] {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes()
}

fn write_text(hasher: &mut SipHasher24, text: &str) {
    hasher.write(&length(text.as_bytes()));
    hasher.write(text.as_bytes());
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// One fingerprint a field, in the order of the fields' stored indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprints([u64; FIELD_COUNT]);

impl Default for Fingerprints {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Fingerprints {
    /// Nothing is known of any field.
    pub const UNKNOWN: Self = Self([UNKNOWN; FIELD_COUNT]);

    /// Of a record; unknown where the site does not describe the field.
    pub fn of(key: &FingerprintKey, record: &Record) -> Self {
        Self::of_values(key, record.employee_id(), record.fields(), |field| record.value(field))
    }

    /// Of `fields` of an employee, unknown for the others.
    pub fn of_values<'a>(
        key: &FingerprintKey,
        employee_id: &str,
        fields: FieldSet,
        value: impl Fn(Field) -> Option<&'a str>,
    ) -> Self {
        let mut all = Self::UNKNOWN;
        for (field, slot) in Field::all().zip(&mut all.0) {
            if fields.contains(field) {
                *slot = key.fingerprint(employee_id, field, value(field));
            }
        }
        all
    }

    /// A field's fingerprint; none where it is unknown.
    pub fn get(&self, field: Field) -> Option<u64> {
        self.0.get(field.index()).copied().filter(|fingerprint| *fingerprint != UNKNOWN)
    }

    /// The fields whose fingerprint is unknown.
    pub fn unknown(&self) -> FieldSet {
        Field::all().filter(|field| self.get(*field).is_none()).collect()
    }

    /// These, with `fields` unknown.
    #[must_use]
    pub fn with_unknown(self, fields: FieldSet) -> Self {
        self.with(fields, &Self::UNKNOWN)
    }

    /// These, with `fields` taken from `other`: what is acknowledged after those fields were accepted.
    #[must_use]
    pub fn with(mut self, fields: FieldSet, other: &Self) -> Self {
        for (field, (slot, new)) in Field::all().zip(self.0.iter_mut().zip(other.0)) {
            if fields.contains(field) {
                *slot = new;
            }
        }
        self
    }

    /// For the ledger: eight bytes a field, big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|fingerprint| fingerprint.to_be_bytes()).collect()
    }

    /// From the ledger. Fields that an older version did not store are unknown; those of a later one are left out.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut all = Self::UNKNOWN;
        for (slot, stored) in all.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *slot = u64::from_be_bytes(*stored);
        }
        all
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::prepare::prepare;
    use super::super::prepare::tests::{least_with, rules};
    use super::*;

    pub(in super::super) fn key() -> FingerprintKey {
        FingerprintKey::from_hex(&"0123456789abcdef".repeat(4)).unwrap()
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        assert!(FingerprintKey::from_hex(&format!("{}\n", "aB".repeat(32))).is_ok());
        for bad in ["", "ab", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32), &"é".repeat(64)] {
            assert!(FingerprintKey::from_hex(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_check_tells_keys_apart_and_debug_shows_nothing() {
        let other = FingerprintKey::from_hex(&"ff".repeat(32)).unwrap();
        assert_ne!(key().check(), other.check());
        assert_eq!(key().check().len(), 32);
        assert_eq!(format!("{:?}", key()), "FingerprintKey([REDACTED])");
    }

    #[test]
    fn stored_fingerprints_stay_valid_across_releases() {
        assert_eq!(key().check(), "dd3864ee50eeb18bf9a42b8f505c73b6");
        assert_eq!(key().fingerprint("1042", Field::Surname, Some("Lovelace")), 0xd7a9_3472_adb8_ba26);
    }

    #[test]
    fn employee_field_and_value_all_count_and_null_is_no_empty_text() {
        let of = |employee, field, value| key().fingerprint(employee, field, value);
        let one = of("1", Field::Surname, Some("x"));
        assert_ne!(one, of("2", Field::Surname, Some("x")));
        assert_ne!(one, of("1", Field::Forenames, Some("x")));
        assert_ne!(one, of("1", Field::Surname, Some("y")));
        assert_ne!(of("1", Field::KnownAs, None), of("1", Field::KnownAs, Some("")));
    }

    #[test]
    fn stored_bytes_come_back_and_a_shorter_array_leaves_fields_unknown() {
        let record = prepare(&least_with(&[]), &rules()).unwrap();
        let now = Fingerprints::of(&key(), &record);
        let bytes = now.to_bytes();
        assert_eq!(bytes.len(), 8 * FIELD_COUNT);
        assert_eq!(Fingerprints::from_bytes(&bytes), now);
        let older = Fingerprints::from_bytes(&bytes[..8 * 5 + 3]);
        assert_eq!(older.unknown().len(), 28);
        assert_eq!(older.get(Field::Surname), now.get(Field::Surname));
        assert_eq!(Fingerprints::from_bytes(&[]), Fingerprints::UNKNOWN);
    }

    #[test]
    fn some_fields_can_be_forgotten() {
        let record = prepare(&least_with(&[]), &rules()).unwrap();
        let set: FieldSet = [Field::Email].into_iter().collect();
        assert_eq!(Fingerprints::of(&key(), &record).with_unknown(set).unknown(), set);
    }
}
