//! Whether an employee is in step, from the record and the ledger alone. Pure.

use crate::delivery::decide::{refused_hash, sendable};
use crate::ledger::everyone::Enrolled;
use crate::record::{FingerprintKey, Fingerprints, Rules, diff};

/// What a comparison makes of an employee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The record is what was acknowledged.
    InStep,
    /// It is not, or nobody knows: to be delivered.
    Differs,
    /// Failed, and the record is the one that was refused: trying again would fail again.
    LeftAlone,
}

/// Judges. `again`: after doubt the Failed are tried again, but for those who wait for a person.
pub(super) fn judge(enrolled: &Enrolled, rules: &Rules, key: &FingerprintKey, again: bool) -> Verdict {
    let sendable = sendable(&enrolled.record, rules);
    if enrolled.failed {
        let refused = enrolled.refused.as_deref();
        if refused == Some(&[]) {
            return Verdict::LeftAlone;
        }
        // What we found wrong is part of the hash: rules that would let the record pass now make it another one.
        let faults = sendable.as_ref().err().map_or("", |rejection| rejection.text.as_str());
        let now = refused_hash(key, &enrolled.employee_id, &enrolled.record, faults);
        return if again || refused != Some(&now) { Verdict::Differs } else { Verdict::LeftAlone };
    }
    let Ok(record) = sendable else { return Verdict::Differs };
    let now = Fingerprints::of(key, &record);
    let differs = !diff(&enrolled.acknowledged, enrolled.unknown, &now, record.fields()).is_empty();
    if differs || !enrolled.linked { Verdict::Differs } else { Verdict::InStep }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::work::Read;
    use crate::record::{FieldSet, RawRecord, least_with, rules};

    fn key() -> FingerprintKey {
        FingerprintKey::from_hex(&"ab".repeat(32)).unwrap()
    }

    fn raw(surname: &str) -> Read {
        Read::One(Box::new(RawRecord { employee_id: "7".to_owned(), ..least_with(&[("surname", surname)]) }))
    }

    fn enrolled(record: Read) -> Enrolled {
        let acknowledged =
            sendable(&raw("Lovelace"), &rules()).map(|r| Fingerprints::of(&key(), &r)).unwrap();
        Enrolled {
            employee_id: "7".to_owned(),
            linked: true,
            acknowledged,
            unknown: FieldSet::EMPTY,
            failed: false,
            refused: None,
            record,
        }
    }

    fn judged(enrolled: &Enrolled, again: bool) -> Verdict {
        judge(enrolled, &rules(), &key(), again)
    }

    #[test]
    fn what_was_acknowledged_is_in_step_and_anything_else_is_not() {
        assert_eq!(judged(&enrolled(raw("Lovelace")), true), Verdict::InStep);
        assert_eq!(judged(&enrolled(raw("Byron")), false), Verdict::Differs);
        assert_eq!(judged(&enrolled(Read::Gone), false), Verdict::Differs);
        assert_eq!(judged(&enrolled(raw("")), false), Verdict::Differs, "to be rejected");
        let unlinked = Enrolled { linked: false, ..enrolled(raw("Lovelace")) };
        assert_eq!(judged(&unlinked, false), Verdict::Differs);
        let unknown = Enrolled { unknown: FieldSet::mandatory(), ..enrolled(raw("Lovelace")) };
        assert_eq!(judged(&unknown, false), Verdict::Differs);
    }

    #[test]
    fn a_failed_employee_is_left_alone_while_the_record_is_the_one_that_was_refused() {
        for (record, faults) in [(raw("Byron"), ""), (raw(""), "faults"), (Read::Gone, "gone")] {
            let faults = match sendable(&record, &rules()) {
                Ok(_) => "",
                Err(_) if faults.is_empty() => unreachable!(),
                Err(rejection) => &rejection.text.clone(),
            };
            let refused = refused_hash(&key(), "7", &record, faults);
            let failed = Enrolled { failed: true, refused: Some(refused), ..enrolled(record) };
            assert_eq!(judged(&failed, false), Verdict::LeftAlone);
            assert_eq!(judged(&failed, true), Verdict::Differs, "after doubt");
            let edited = Enrolled { record: raw("King"), ..failed };
            assert_eq!(judged(&edited, false), Verdict::Differs);
        }
    }

    #[test]
    fn a_record_that_new_rules_let_pass_is_tried_again() {
        let refused = refused_hash(&key(), "7", &raw("Byron"), "grade: not on the list");
        let failed = Enrolled { failed: true, refused: Some(refused), ..enrolled(raw("Byron")) };
        assert_eq!(judged(&failed, false), Verdict::Differs);
    }

    #[test]
    fn whoever_waits_for_a_person_goes_on_waiting() {
        let failed = Enrolled { failed: true, refused: Some(Vec::new()), ..enrolled(raw("King")) };
        assert_eq!(judged(&failed, true), Verdict::LeftAlone);
    }
}
