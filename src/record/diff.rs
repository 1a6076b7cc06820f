//! What has to be sent: the fields that differ from what the platform acknowledged.

use super::field::Field;
use super::field_set::FieldSet;
use super::fingerprint::Fingerprints;

/// The described fields whose value is not the acknowledged one, or whose state at the platform is unknown: never
/// acknowledged, or sent in an attempt whose outcome is not known (`unknown`).
pub fn diff(
    acknowledged: &Fingerprints,
    unknown: FieldSet,
    now: &Fingerprints,
    described: FieldSet,
) -> FieldSet {
    let differs = |field: &Field| {
        let held = acknowledged.get(*field);
        held.is_none() || held != now.get(*field)
    };
    described.iter().filter(differs).collect::<FieldSet>().union(unknown.intersection(described))
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::tests::key;
    use super::super::prepare::prepare;
    use super::super::prepare::tests::{least_with, rules};
    use super::*;

    fn of(more: &[(&str, &str)]) -> Fingerprints {
        Fingerprints::of(&key(), &prepare(&least_with(more), &rules()).unwrap())
    }

    #[test]
    fn an_unchanged_record_has_nothing_to_send() {
        assert!(diff(&of(&[]), FieldSet::EMPTY, &of(&[]), FieldSet::ALL).is_empty());
    }

    #[test]
    fn a_changed_a_cleared_and_a_new_value_are_sent() {
        let (then, now) = (of(&[("mobile", "1"), ("grade", "A")]), of(&[("grade", "B"), ("postcode", "X")]));
        assert_eq!(
            diff(&then, FieldSet::EMPTY, &now, FieldSet::ALL).names(),
            ["mobile", "postcode", "grade"]
        );
    }

    #[test]
    fn a_field_of_unknown_state_is_sent_even_when_it_is_back_at_the_acknowledged_value() {
        let unknown: FieldSet = [Field::Surname].into_iter().collect();
        assert_eq!(diff(&of(&[]), unknown, &of(&[]), FieldSet::ALL), unknown);
        assert_eq!(diff(&Fingerprints::UNKNOWN, FieldSet::EMPTY, &of(&[]), FieldSet::ALL), FieldSet::ALL);
    }

    #[test]
    fn a_field_that_is_not_described_is_never_sent() {
        let described = FieldSet::ALL.difference([Field::Surname].into_iter().collect());
        assert_eq!(diff(&Fingerprints::UNKNOWN, FieldSet::ALL, &of(&[]), described), described);
    }
}
