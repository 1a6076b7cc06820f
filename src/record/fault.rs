//! What is wrong with a value, in the API's codes and in words that say what to do.

use std::fmt::Write as _;

use super::field::{Field, Kind};

/// How many of a picklist's values a text lists.
const LISTED_MAX: usize = 12;

/// The codes of `benefits-api.yaml`, and `no-package`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCode {
    /// A mandatory field is empty.
    Required,
    /// A picklist value that the platform does not list, after translation.
    UnknownValue,
    /// The Benefits Level maps to no package.
    NoPackage,
    /// The value does not look as the API wants it.
    Format,
    /// The value has too many characters.
    TooLong,
    /// The number is below or above what the API takes.
    OutOfRange,
}

impl FaultCode {
    /// As stored and shown: `unknown-value`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::UnknownValue => "unknown-value",
            Self::NoPackage => "no-package",
            Self::Format => "format",
            Self::TooLong => "too-long",
            Self::OutOfRange => "out-of-range",
        }
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Required, Self::UnknownValue, Self::NoPackage, Self::Format, Self::TooLong, Self::OutOfRange]
            .into_iter()
            .find(|code| code.as_str() == name)
    }
}

/// One thing that is wrong with a record. Its `Display` is the text for people: the field, what is wrong, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which field.
    pub field: Field,
    /// What is wrong with it.
    pub code: FaultCode,
    /// The picklist value that was refused. Any other field's value is personal and never kept.
    pub refused_value: Option<String>,
    /// Some of the values that the platform lists, for `unknown-value`.
    allowed: Vec<String>,
}

impl Fault {
    /// A fault that shows no value.
    pub const fn new(field: Field, code: FaultCode) -> Self {
        Self { field, code, refused_value: None, allowed: Vec::new() }
    }

    /// A picklist value that is not among `allowed`.
    pub(super) fn unknown_value(field: Field, value: &str, allowed: &[String]) -> Self {
        // One more than is shown, so that the text can say that there are others.
        let allowed = allowed.iter().take(LISTED_MAX + 1).cloned().collect();
        let max = match field.kind() {
            Kind::Picklist { max } => max,
            _ => 0,
        };
        let refused_value = Some(value.chars().take(max).collect());
        Self { field, code: FaultCode::UnknownValue, refused_value, allowed }
    }

    fn listed(&self) -> String {
        if self.allowed.is_empty() {
            return String::new();
        }
        let shown: Vec<&str> = self.allowed.iter().take(LISTED_MAX).map(String::as_str).collect();
        let more = if self.allowed.len() > LISTED_MAX { ", ..." } else { "" };
        format!(" (it lists {}{more})", shown.join(", "))
    }

    /// All faults of a record as one text.
    pub fn describe(faults: &[Self]) -> String {
        let mut text = String::new();
        for fault in faults {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{gap}{fault}");
        }
        text
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let label = self.field.label();
        match self.code {
            FaultCode::Required => write!(f, "{label} is empty: supply it in HR; the next save retries."),
            FaultCode::UnknownValue => {
                let value = self.refused_value.as_deref().map(|value| format!(" \"{value}\""));
                let value = value.unwrap_or_default();
                write!(
                    f,
                    "{label}{value} is not a value that Benefits lists{}: correct it, or add a translation.",
                    self.listed()
                )
            }
            FaultCode::NoPackage => {
                write!(
                    f,
                    "{label} names no package at Benefits: choose another level, or map it to a package."
                )
            }
            FaultCode::Format => {
                write!(
                    f,
                    "{label} is not written as Benefits needs it ({}): correct it in HR.",
                    wanted(self.field)
                )
            }
            FaultCode::TooLong => match max_length(self.field) {
                Some(max) => write!(f, "{label} is longer than {max} characters: shorten it in HR."),
                None => write!(f, "{label} is too long for Benefits: shorten it in HR."),
            },
            FaultCode::OutOfRange => {
                write!(
                    f,
                    "{label} is outside what Benefits takes ({}): correct it in HR.",
                    wanted(self.field)
                )
            }
        }
    }
}

fn max_length(field: Field) -> Option<usize> {
    match field.kind() {
        Kind::Text { max } | Kind::Picklist { max } | Kind::Email { max } => Some(max),
        _ => None,
    }
}

fn wanted(field: Field) -> String {
    match field.kind() {
        Kind::Text { max } | Kind::Picklist { max } => format!("a text of at most {max} characters"),
        Kind::Date => "a real date, year 1 to 9999".to_owned(),
        Kind::NationalInsurance => "two letters, six digits, and A, B, C or D".to_owned(),
        Kind::Email { .. } => "one address as name@domain.tld".to_owned(),
        Kind::Letters { count } => format!("{count} letters A to Z"),
        Kind::Decimal { most, scale } => format!("0 to {most}, at most {scale} decimal places"),
        Kind::Money => "an amount of 0 or more, at most 10 digits and 2 decimal places".to_owned(),
        Kind::Package => "the id of a package".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_the_field_and_the_remedy() {
        let text = Fault::new(Field::DateOfBirth, FaultCode::Required).to_string();
        assert_eq!(text, "Date of birth is empty: supply it in HR; the next save retries.");
    }

    #[test]
    fn an_unknown_value_is_shown_with_some_that_are_known() {
        let allowed: Vec<String> = (0..20).map(|n| format!("Value {n}")).collect();
        let text = Fault::unknown_value(Field::Gender, "Malle", &allowed).to_string();
        assert!(text.starts_with("Gender \"Malle\" is not a value that Benefits lists"), "{text}");
        assert!(text.contains("Value 11, ...") && !text.contains("Value 12"), "{text}");
    }

    #[test]
    fn a_code_is_found_by_its_name() {
        assert_eq!(FaultCode::from_name("too-long"), Some(FaultCode::TooLong));
        assert_eq!(FaultCode::from_name("toolong"), None);
    }
}
