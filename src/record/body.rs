//! The bytes of a write, its hash, and its idempotency key.
//!
//! A write is (employee, version, body): the same body goes out under the same version and key on every attempt and after
//! a restart, another body under a higher version. So bytes are deterministic (fields in index order), and
//! [`Body::hash`], which the ledger keeps with the intent, tells "same body" without keeping values.

use super::field_set::FieldSet;
use super::fingerprint::{FingerprintKey, hex};
use super::prepare::Record;

/// The link that a patch makes or moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// HR's id that the account shall carry.
    pub external_id: &'a str,
    /// The id that it carries now, where the link is moved.
    pub previous_external_id: Option<&'a str>,
}

/// A write's JSON without its version.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// Members, each with a comma before it.
    members: Vec<u8>,
}

impl Body {
    /// `NewEmployee`: every field of the record, nulls too.
    pub fn create(record: &Record) -> Self {
        let link = Link { external_id: record.employee_id(), previous_external_id: None };
        Self::patch(record, record.fields(), Some(link))
    }

    /// `EmployeePatch`: those of `fields` that the record has. Null clears a field.
    pub fn patch(record: &Record, fields: FieldSet, link: Option<Link<'_>>) -> Self {
        let mut members = Vec::with_capacity(256);
        if let Some(link) = link {
            push_member(&mut members, "externalId", Some(link.external_id));
            if let Some(previous) = link.previous_external_id {
                push_member(&mut members, "previousExternalId", Some(previous));
            }
        }
        for field in fields.intersection(record.fields()).iter() {
            push_member(&mut members, field.api_name(), record.value(field));
        }
        Self { members }
    }

    /// Whether it would change nothing.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The JSON under a version.
    pub fn to_bytes(&self, version: i64) -> Vec<u8> {
        let mut bytes = format!("{{\"sourceVersion\":{version}").into_bytes();
        bytes.reserve_exact(self.members.len() + 1);
        bytes.extend_from_slice(&self.members);
        bytes.push(b'}');
        bytes
    }

    /// Tells whether two bodies of an employee are the same, whatever their version. Keyed.
    pub fn hash(&self, key: &FingerprintKey, employee_id: &str) -> [u8; 16] {
        key.derived(b"benefits-sync body 1", &[employee_id.as_bytes(), &self.members])
    }
}

/// Shows the size, no value.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("bytes", &self.members.len()).finish_non_exhaustive()
    }
}

/// One intended write, as its idempotency key sees it.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// The platform's id.
    pub platform_id: &'a str,
    /// HR's id of the employee.
    pub employee_id: &'a str,
    /// The account that is patched; none for a create. A relink may repeat version and body at another account, and
    /// must not be answered from the first one's write.
    pub benefits_id: Option<&'a str>,
    /// The body's version.
    pub version: i64,
    /// The body.
    pub body: &'a Body,
}

/// The `Idempotency-Key` of a write: 32 hexadecimal digits, the same on every attempt at it. Keyed, so that it does not
/// give the body away to whoever logs it.
pub fn idempotency_key(key: &FingerprintKey, write: &Write<'_>) -> String {
    let target: &[u8] = write.benefits_id.unwrap_or_default().as_bytes();
    hex(&key.derived(
        b"benefits-sync write 1",
        &[
            write.platform_id.as_bytes(),
            write.employee_id.as_bytes(),
            target,
            &write.version.to_be_bytes(),
            &write.body.members,
        ],
    ))
}

fn push_member(bytes: &mut Vec<u8>, name: &str, value: Option<&str>) {
    bytes.push(b',');
    push_text(bytes, name);
    bytes.push(b':');
    match value {
        Some(value) => push_text(bytes, value),
        None => bytes.extend_from_slice(b"null"),
    }
}

/// A JSON string (RFC 8259, section 7).
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => bytes.extend_from_slice(b"\\\""),
            b'\\' => bytes.extend_from_slice(b"\\\\"),
            0..=0x1f => bytes.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => bytes.push(byte),
        }
    }
    bytes.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::field::Field;
    use super::super::fingerprint::tests::key;
    use super::super::prepare::prepare;
    use super::super::prepare::tests::{least_with, rules};
    use super::*;

    fn record(more: &[(&str, &str)]) -> Record {
        prepare(&least_with(more), &rules()).unwrap()
    }

    fn json(body: &Body) -> serde_json::Value {
        serde_json::from_slice(&body.to_bytes(7)).unwrap()
    }

    #[test]
    fn a_create_carries_every_described_field() {
        let json = json(&Body::create(&record(&[])));
        assert_eq!(json["externalId"], "1042");
        assert_eq!(json["sourceVersion"], 7);
        assert_eq!(json["annualPay"], "31250.50");
        assert!(json["mobile"].is_null());
        assert_eq!(json.as_object().unwrap().len(), 35);
    }

    #[test]
    fn a_patch_carries_the_changed_fields_in_order_and_null_for_a_cleared_one() {
        let fields = [Field::LeaveDate, Field::Surname].into_iter().collect();
        let body = Body::patch(&record(&[]), fields, None);
        let text = String::from_utf8(body.to_bytes(1)).unwrap();
        assert_eq!(text, r#"{"sourceVersion":1,"surname":"Lovelace","leaveDate":null}"#);
    }

    #[test]
    fn a_moved_link_names_both_ids() {
        let link = Link { external_id: "2", previous_external_id: Some("1") };
        let json = json(&Body::patch(&record(&[]), FieldSet::EMPTY, Some(link)));
        assert_eq!((&json["externalId"], &json["previousExternalId"]), (&"2".into(), &"1".into()));
    }

    #[test]
    fn a_hash_tells_bodies_and_employees_apart_and_nothing_else() {
        let (one, two) = (Body::create(&record(&[])), Body::create(&record(&[("grade", "B")])));
        assert_eq!(one.hash(&key(), "1"), Body::create(&record(&[])).hash(&key(), "1"));
        assert_ne!(one.hash(&key(), "1"), two.hash(&key(), "1"));
        assert_ne!(one.hash(&key(), "1"), one.hash(&key(), "2"));
    }

    #[test]
    fn an_idempotency_key_is_repeatable_and_differs_with_every_part_of_the_write() {
        let (one, two) = (Body::create(&record(&[])), Body::create(&record(&[("grade", "B")])));
        let write = Write { platform_id: "p", employee_id: "1", benefits_id: None, version: 3, body: &one };
        let keys = [
            write,
            Write { platform_id: "q", ..write },
            Write { employee_id: "2", ..write },
            Write { benefits_id: Some("b"), ..write },
            Write { version: 4, ..write },
            Write { body: &two, ..write },
        ]
        .map(|write| idempotency_key(&key(), &write));
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
        assert_eq!(keys[0], idempotency_key(&key(), &write));
        assert!((16..=128).contains(&keys[0].len()));
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Body::create(&record(&[]))).contains("Lovelace"));
    }

    proptest! {
        #[test]
        fn any_text_survives_json(text in any::<String>()) {
            let mut bytes = Vec::new();
            push_text(&mut bytes, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&bytes).unwrap(), text);
        }
    }
}
