//! Turns HR's row into the API's values, or into everything that is wrong with it.

use super::fault::{Fault, FaultCode};
use super::field::{FIELD_COUNT, Field, Kind};
use super::field_set::FieldSet;
use super::raw::RawRecord;
use super::rules::Rules;
use super::value;

/// An employee as the API would take it: only what the site describes, every value valid.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    employee_id: String,
    fields: FieldSet,
    values: [Option<String>; FIELD_COUNT],
}

impl Record {
    /// HR's id of the employee.
    pub fn employee_id(&self) -> &str {
        &self.employee_id
    }

    /// The fields that the record has, whether null or not: those that the site describes.
    pub const fn fields(&self) -> FieldSet {
        self.fields
    }

    /// A field's value at the API; `None` is null (or not described).
    pub fn value(&self, field: Field) -> Option<&str> {
        self.values.get(field.index())?.as_deref()
    }
}

/// Shows whose record it is and which fields it has, no value of it.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("employee_id", &self.employee_id)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// The record to send, or all its faults in the order of the fields.
pub fn prepare(raw: &RawRecord, rules: &Rules) -> Result<Record, Vec<Fault>> {
    let mut values = [const { None }; FIELD_COUNT];
    let mut faults = Vec::new();
    for (field, slot) in Field::all().zip(&mut values) {
        // A column that is not described is never sent; but a record cannot do without a mandatory one.
        let described = rules.fields().contains(field);
        let text = raw.value(field, rules.email_source()).filter(|_| described).map(str::trim);
        match text.filter(|text| !text.is_empty()) {
            Some(text) => match convert(field, text, rules) {
                Ok(value) => *slot = Some(value),
                Err(fault) => faults.push(fault),
            },
            None if field.is_mandatory() => faults.push(Fault::new(field, FaultCode::Required)),
            None => {}
        }
    }
    if faults.is_empty() {
        Ok(Record { employee_id: raw.employee_id.clone(), fields: rules.fields(), values })
    } else {
        Err(faults)
    }
}

fn convert(field: Field, text: &str, rules: &Rules) -> Result<String, Fault> {
    let converted = match field.kind() {
        Kind::Text { max } => value::text(text, max),
        Kind::Picklist { max } => value::text(&rules.picklist_value(field, text)?, max),
        Kind::Date => value::date(text),
        Kind::NationalInsurance => value::national_insurance(text),
        Kind::Email { max } => value::email(text, max),
        Kind::Letters { count } => value::letters(text, count),
        Kind::Decimal { most, scale } => value::number(text, most, scale),
        Kind::Money => value::money(text),
        Kind::Package => Ok(rules.package(text)?),
    };
    converted.map_err(|code| Fault::new(field, code))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::field::COLUMNS;
    use super::super::raw::Described;
    use super::*;
    use crate::config::EmailSource;

    pub(in super::super) fn raw(values: &[(&str, &str)]) -> RawRecord {
        let mut raw = RawRecord { employee_id: "1042".to_owned(), values: vec![None; COLUMNS.len()] };
        for (column, value) in values {
            let index = COLUMNS.iter().position(|known| known == column).unwrap();
            raw.values[index] = Some((*value).to_owned());
        }
        raw
    }

    pub(in super::super) const LEAST: &[(&str, &str)] = &[
        ("title", "Ms"),
        ("forenames", "Ada"),
        ("surname", "Lovelace"),
        ("date_of_birth", "1985-12-10"),
        ("gender", "Female"),
        ("work_email", "ada@example.org"),
        ("annual_pay", "31250.5"),
        ("pay_basis", "Annual"),
        ("pay_frequency", "Monthly"),
        ("pay_change_reason", "Promotion"),
    ];

    pub(crate) fn least_with(more: &[(&str, &str)]) -> RawRecord {
        raw(&[LEAST, more].concat())
    }

    pub(crate) fn rules() -> Rules {
        Rules::new(EmailSource::Work, Described::ALL)
    }

    fn codes(raw: &RawRecord, rules: &Rules) -> Vec<(Field, FaultCode)> {
        prepare(raw, rules).unwrap_err().iter().map(|fault| (fault.field, fault.code)).collect()
    }

    #[test]
    fn a_good_record_is_tidied() {
        let record = prepare(
            &least_with(&[("known_as", "  "), ("postcode", " SW1A 1AA "), ("country_code", "gb")]),
            &rules(),
        )
        .unwrap();
        assert_eq!(record.value(Field::AnnualPay), Some("31250.50"));
        assert_eq!(record.value(Field::KnownAs), None);
        assert_eq!(record.value(Field::Postcode), Some("SW1A 1AA"));
        assert_eq!(record.value(Field::CountryCode), Some("GB"));
        assert_eq!(record.value(Field::PackageId), None);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let bad = least_with(&[
            ("surname", " "),
            ("annual_pay", "-1"),
            ("leave_date", "infinity"),
            ("grade", &"x".repeat(41)),
        ]);
        assert_eq!(
            codes(&bad, &rules()),
            [
                (Field::Surname, FaultCode::Required),
                (Field::LeaveDate, FaultCode::Format),
                (Field::Grade, FaultCode::TooLong),
                (Field::AnnualPay, FaultCode::OutOfRange),
            ]
        );
    }

    #[test]
    fn an_empty_record_lacks_exactly_the_mandatory_fields() {
        let lacking: FieldSet = codes(&raw(&[]), &rules()).into_iter().map(|(field, _)| field).collect();
        assert_eq!(lacking, FieldSet::mandatory());
        assert_eq!(lacking.len(), 10);
    }

    #[test]
    fn a_column_that_is_not_described_is_left_out_unless_it_is_mandatory() {
        let columns = COLUMNS.iter().copied().filter(|name| *name != "surname" && *name != "mobile");
        let rules = Rules::new(EmailSource::Work, Described::from_columns(columns));
        let full = least_with(&[("mobile", "07700 900123")]);
        assert_eq!(codes(&full, &rules), [(Field::Surname, FaultCode::Required)]);
        let columns = COLUMNS.iter().copied().filter(|name| *name != "mobile");
        let record =
            prepare(&full, &Rules::new(EmailSource::Work, Described::from_columns(columns))).unwrap();
        assert!(!record.fields().contains(Field::Mobile));
        assert_eq!(record.value(Field::Mobile), None);
    }

    #[test]
    fn no_fault_shows_a_personal_value() {
        let bad = least_with(&[
            ("date_of_birth", "31/12/1985"),
            ("work_email", "ada at home"),
            ("postcode", "SECRET-POSTCODE-1"),
        ]);
        let text = Fault::describe(&prepare(&bad, &rules()).unwrap_err());
        for value in ["1985", "ada", "SECRET"] {
            assert!(!text.contains(value), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let record = prepare(&least_with(&[]), &rules()).unwrap();
        assert!(!format!("{record:?}").contains("Lovelace"));
    }

    /// The patterns and lengths of `benefits-api.yaml`, written a second time so that the field table cannot vouch for
    /// itself.
    fn the_api_takes(field: Field, value: &str) -> bool {
        let length = value.chars().count();
        let digits = |text: &str, least: usize, most: usize| {
            (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        let decimal = |whole_ok: &dyn Fn(&str) -> bool, least: usize, most: usize| match value.split_once('.')
        {
            Some((whole, fraction)) => whole_ok(whole) && digits(fraction, least.max(1), most),
            None => least == 0 && whole_ok(value),
        };
        match field.api_name() {
            "employeeNumber" => length <= 20,
            "title" | "gender" | "grade" | "payBasis" | "payFrequency" | "telephone" | "mobile" => {
                length <= 40
            }
            "forenames" | "surname" => (1..=100).contains(&length),
            "knownAs" => length <= 100,
            "addressLine1" | "addressLine2" | "addressLine3" | "addressLine4" => length <= 80,
            "postcode" => length <= 12,
            "jobTitle" | "department" | "location" => length <= 120,
            "payChangeReason" => length <= 60,
            "email" => {
                let inner =
                    |text: &str| text.char_indices().any(|(at, c)| c == '.' && at > 0 && at + 1 < text.len());
                length <= 200
                    && !value.contains(char::is_whitespace)
                    && matches!(*value.split('@').collect::<Vec<_>>(), [name, domain] if !name.is_empty() && inner(domain))
            }
            "countryCode" => length == 2 && value.bytes().all(|b| b.is_ascii_uppercase()),
            "currency" => length == 3 && value.bytes().all(|b| b.is_ascii_uppercase()),
            "weeklyHours" => decimal(&|whole| digits(whole, 1, 3), 0, 2),
            "fte" => decimal(&|whole| whole == "0" || whole == "1", 0, 4),
            "annualPay" => decimal(&|whole| digits(whole, 1, 10), 2, 2),
            "nationalInsuranceNumber" => {
                length == 9
                    && value.bytes().take(2).all(|b| b.is_ascii_uppercase())
                    && value.bytes().skip(2).take(6).all(|b| b.is_ascii_digit())
                    && value.ends_with(['A', 'B', 'C', 'D'])
            }
            "dateOfBirth" | "startDate" | "continuousServiceDate" | "leaveDate" | "payEffectiveDate" => {
                value.len() == 10 && value.parse::<jiff::civil::Date>().is_ok()
            }
            "packageId" => true,
            other => panic!("{other} is not checked"),
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,12}",
            "[ -~]{0,130}",
            "-?[0-9]{1,12}(\\.[0-9]{0,6})?",
            "[0-9]{4,5}-[0-9]{2}-[0-9]{2}",
            "[a-zA-Z ]{2}[0-9 ]{6,7}[A-Ea-e]",
            "[a-z@. ]{1,12}@[a-z.]{1,8}",
            "[a-zA-Z]{2,3}",
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_satisfies_the_api(values in proptest::collection::vec(proptest::option::of(hostile()), COLUMNS.len())) {
            let raw = RawRecord { employee_id: "1".to_owned(), values };
            for field in Field::all() {
                let Some(text) = raw.value(field, EmailSource::Work).map(str::trim) else { continue };
                if text.is_empty() {
                    continue;
                }
                if let Ok(value) = convert(field, text, &rules()) {
                    prop_assert!(the_api_takes(field, &value), "{field:?} {value:?}");
                    // What was accepted is accepted again, unchanged: else every reconcile would send it.
                    prop_assert_eq!(convert(field, &value, &rules()), Ok(value.clone()));
                }
            }
        }
    }
}
