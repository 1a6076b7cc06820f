//! The text properties of an employee and what the API document asks of each: one table, one check.
//!
//! `externalId` and `sourceVersion` are not in the table: they are rules of the link and of the fence, not of the record.
//! The patterns are the document's, written out by hand: they are short, and this is on the path of every write.

use jiff::civil::Date;

/// How many properties the table has.
pub(super) const FIELD_COUNT: usize = 33;
/// Where `email` stands in the table.
pub(super) const EMAIL: usize = 8;
/// Where `leaveDate` stands in the table.
pub(super) const LEAVE_DATE: usize = 19;
/// Where `packageId` stands in the table.
pub(super) const PACKAGE_ID: usize = 32;

/// One property.
#[derive(Debug)]
pub(super) struct Field {
    /// The property's name in the document.
    pub(super) name: &'static str,
    /// What its values must be.
    pub(super) rule: Rule,
    /// Whether null is a value. Those that have no null are exactly those a new employee must have.
    pub(super) nullable: bool,
}

/// What a property's values must be. Lengths count Unicode code points, as JSON Schema does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Text of at most so many characters.
    Text(usize),
    /// Text of at least one and at most so many characters.
    Name(usize),
    /// One of the platform's values for the field, of at most so many characters.
    Picklist(usize),
    /// A full date, `2026-01-31`.
    Date,
    /// `^[^@\s]+@[^@\s]+\.[^@\s]+$`, at most 200 characters.
    Email,
    /// `^[A-Z]{2}[0-9]{6}[A-D]$`
    NationalInsurance,
    /// So many upper-case letters.
    Letters(usize),
    /// `^\d{1,10}\.\d{2}$`
    Money,
    /// `^\d{1,3}(\.\d{1,2})?$`
    Hours,
    /// `^[01](\.\d{1,4})?$`
    Fte,
    /// One of the platform's packages; judged apart, as it has a problem type of its own.
    Package,
}

/// The codes of the document's `errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Required,
    UnknownValue,
    TooLong,
    Format,
    OutOfRange,
}

impl Code {
    /// The code as the document spells it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::UnknownValue => "unknown-value",
            Self::TooLong => "too-long",
            Self::Format => "format",
            Self::OutOfRange => "out-of-range",
        }
    }
}

const fn may(name: &'static str, rule: Rule) -> Field {
    Field { name, rule, nullable: true }
}

const fn must(name: &'static str, rule: Rule) -> Field {
    Field { name, rule, nullable: false }
}

/// The properties in the document's order.
pub(super) static FIELDS: [Field; FIELD_COUNT] = [
    may("employeeNumber", Rule::Text(20)),
    must("title", Rule::Picklist(40)),
    must("forenames", Rule::Name(100)),
    may("knownAs", Rule::Text(100)),
    must("surname", Rule::Name(100)),
    must("dateOfBirth", Rule::Date),
    must("gender", Rule::Picklist(40)),
    may("nationalInsuranceNumber", Rule::NationalInsurance),
    must("email", Rule::Email),
    may("telephone", Rule::Text(40)),
    may("mobile", Rule::Text(40)),
    may("addressLine1", Rule::Text(80)),
    may("addressLine2", Rule::Text(80)),
    may("addressLine3", Rule::Text(80)),
    may("addressLine4", Rule::Text(80)),
    may("postcode", Rule::Text(12)),
    may("countryCode", Rule::Letters(2)),
    may("startDate", Rule::Date),
    may("continuousServiceDate", Rule::Date),
    may("leaveDate", Rule::Date),
    may("jobTitle", Rule::Text(120)),
    may("grade", Rule::Text(40)),
    may("department", Rule::Text(120)),
    may("location", Rule::Text(120)),
    may("weeklyHours", Rule::Hours),
    may("fte", Rule::Fte),
    must("annualPay", Rule::Money),
    may("currency", Rule::Letters(3)),
    must("payBasis", Rule::Picklist(40)),
    must("payFrequency", Rule::Picklist(40)),
    must("payChangeReason", Rule::Picklist(60)),
    may("payEffectiveDate", Rule::Date),
    may("packageId", Rule::Package),
];

/// The place of a property in the table.
pub(super) fn index_of(name: &str) -> Option<usize> {
    FIELDS.iter().position(|field| field.name == name)
}

/// Holds a value to the rule, but for what only the platform's own lists can tell.
pub(super) fn check(rule: Rule, value: &str) -> Result<(), Code> {
    match rule {
        Rule::Name(_) if value.is_empty() => Err(Code::Required),
        Rule::Text(max) | Rule::Picklist(max) | Rule::Name(max) => at_most(value, max),
        Rule::Date => {
            let shaped = value.len() == 10 && value.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            shaped.then_some(()).ok_or(Code::Format)?;
            value.parse::<Date>().map(|_| ()).map_err(|_invalid| Code::Format)
        }
        Rule::Email => at_most(value, 200).and_then(|()| is_email(value).then_some(()).ok_or(Code::Format)),
        Rule::NationalInsurance => is_national_insurance(value).then_some(()).ok_or(Code::Format),
        Rule::Letters(count) => {
            let ok = value.len() == count && value.bytes().all(|b| b.is_ascii_uppercase());
            ok.then_some(()).ok_or(Code::Format)
        }
        Rule::Money => decimal(value, 10, 2, 2),
        Rule::Hours => decimal(value, 3, 0, 2),
        Rule::Fte => {
            decimal(value, 1, 0, 4)?;
            if value.starts_with(['0', '1']) { Ok(()) } else { Err(Code::OutOfRange) }
        }
        Rule::Package => Ok(()),
    }
}

/// A text of at most so many characters.
pub(super) fn at_most(value: &str, max: usize) -> Result<(), Code> {
    // A byte count within the limit settles it without counting characters.
    if value.len() <= max || value.chars().count() <= max { Ok(()) } else { Err(Code::TooLong) }
}

fn is_email(value: &str) -> bool {
    if value.chars().any(|c| c.is_whitespace() || c == '\u{feff}') {
        return false;
    }
    let Some((local, domain)) = value.split_once('@') else { return false };
    if local.is_empty() || domain.contains('@') {
        return false;
    }
    // Some dot has a character on either side of it.
    let mut inner = domain.chars();
    let both_ends = inner.next().is_some() && inner.next_back().is_some();
    both_ends && inner.as_str().contains('.')
}

fn is_national_insurance(value: &str) -> bool {
    value.len() == 9
        && value.bytes().enumerate().all(|(at, b)| match at {
            0 | 1 => b.is_ascii_uppercase(),
            2..=7 => b.is_ascii_digit(),
            _ => (b'A'..=b'D').contains(&b),
        })
}

/// A plain decimal with at most `whole` digits before the point and between `least` and `most` after it. A number that
/// is well written but too large or negative is out of range; anything else is a matter of format.
fn decimal(value: &str, whole: usize, least: usize, most: usize) -> Result<(), Code> {
    let (negative, digits) = value.strip_prefix('-').map_or((false, value), |rest| (true, rest));
    let (before, after) = digits.split_once('.').map_or((digits, None), |(b, a)| (b, Some(a)));
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let places = after.map_or(0, str::len);
    if !numeric(before) || !after.is_none_or(numeric) || places < least || places > most {
        return Err(Code::Format);
    }
    if negative || before.len() > whole { Err(Code::OutOfRange) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_that_are_named_are_right() {
        assert_eq!(index_of("email"), Some(EMAIL));
        assert_eq!(index_of("leaveDate"), Some(LEAVE_DATE));
        assert_eq!(index_of("packageId"), Some(PACKAGE_ID));
    }

    #[test]
    fn money_is_a_plain_decimal_with_two_places() {
        for good in ["0.00", "1.50", "1234567890.99"] {
            assert_eq!(check(Rule::Money, good), Ok(()), "{good}");
        }
        for bad in ["", "1", "1.5", "1.505", ".50", "1,000.00", " 1.00", "1.00 ", "1e3", "+1.00"] {
            assert_eq!(check(Rule::Money, bad), Err(Code::Format), "{bad}");
        }
        for out in ["-1.00", "12345678901.00"] {
            assert_eq!(check(Rule::Money, out), Err(Code::OutOfRange), "{out}");
        }
    }

    #[test]
    fn an_email_needs_one_at_sign_and_a_dot_inside_the_domain() {
        for good in ["a@b.c", "a@b..c", "a.b+c@x.example", "é@x.y", "a@.b.c"] {
            assert_eq!(check(Rule::Email, good), Ok(()), "{good}");
        }
        for bad in ["a@b", "@b.c", "a@b.", "a@.c", "a b@c.d", "a@b@c.d", "a@", "", "a\u{a0}@b.c"] {
            assert_eq!(check(Rule::Email, bad), Err(Code::Format), "{bad}");
        }
    }

    #[test]
    fn a_date_is_a_day_of_the_calendar() {
        assert_eq!(check(Rule::Date, "2024-02-29"), Ok(()));
        for bad in ["2023-02-29", "2024-2-29", "20240229", "2024-02-29T00:00:00Z", "", "-024-01-01"] {
            assert_eq!(check(Rule::Date, bad), Err(Code::Format), "{bad}");
        }
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert_eq!(check(Rule::Text(3), "éééé"), Err(Code::TooLong));
        assert_eq!(check(Rule::Text(4), "éééé"), Ok(()));
    }

    #[test]
    fn hours_and_full_time_equivalents_are_bounded() {
        assert_eq!(check(Rule::Hours, "37.5"), Ok(()));
        assert_eq!(check(Rule::Hours, "1000"), Err(Code::OutOfRange));
        assert_eq!(check(Rule::Hours, "37."), Err(Code::Format));
        assert_eq!(check(Rule::Fte, "0.6"), Ok(()));
        assert_eq!(check(Rule::Fte, "2"), Err(Code::OutOfRange));
        assert_eq!(check(Rule::Fte, "0.12345"), Err(Code::Format));
    }
}
