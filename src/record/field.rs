//! The fields that are sent, and the record query's columns they come from.
//!
//! Everything the other modules know about a field is in one table here: its name at the API, its column in the
//! record query, how people call it, whether it must have a value, and what values the API takes
//! (`benefits-api.yaml`, schemas `NewEmployee` and `EmployeePatch`). `externalId`, `previousExternalId` and
//! `sourceVersion` are no fields: they say whose record it is and how new, and [`super::body`] writes them.
//!
//! **A field's index is stored**: it is the field's bit in the ledger's `bigint` field sets and its slot in the stored
//! fingerprints. An index is never changed and never used again; a new field takes the next one.

use crate::config::EmailSource;

/// A property of the API's employee that is filled from HR. The discriminant is stored, see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Field {
    /// `employeeNumber`.
    EmployeeNumber = 0,
    /// `title`.
    Title = 1,
    /// `forenames`.
    Forenames = 2,
    /// `knownAs`.
    KnownAs = 3,
    /// `surname`.
    Surname = 4,
    /// `dateOfBirth`.
    DateOfBirth = 5,
    /// `gender`.
    Gender = 6,
    /// `nationalInsuranceNumber`.
    NationalInsuranceNumber = 7,
    /// `email`.
    Email = 8,
    /// `telephone`.
    Telephone = 9,
    /// `mobile`.
    Mobile = 10,
    /// `addressLine1`.
    AddressLine1 = 11,
    /// `addressLine2`.
    AddressLine2 = 12,
    /// `addressLine3`.
    AddressLine3 = 13,
    /// `addressLine4`.
    AddressLine4 = 14,
    /// `postcode`.
    Postcode = 15,
    /// `countryCode`.
    CountryCode = 16,
    /// `startDate`.
    StartDate = 17,
    /// `continuousServiceDate`.
    ContinuousServiceDate = 18,
    /// `leaveDate`.
    LeaveDate = 19,
    /// `jobTitle`.
    JobTitle = 20,
    /// `grade`.
    Grade = 21,
    /// `department`.
    Department = 22,
    /// `location`.
    Location = 23,
    /// `weeklyHours`.
    WeeklyHours = 24,
    /// `fte`.
    Fte = 25,
    /// `annualPay`.
    AnnualPay = 26,
    /// `currency`.
    Currency = 27,
    /// `payBasis`.
    PayBasis = 28,
    /// `payFrequency`.
    PayFrequency = 29,
    /// `payChangeReason`.
    PayChangeReason = 30,
    /// `payEffectiveDate`.
    PayEffectiveDate = 31,
    /// `packageId`.
    PackageId = 32,
}

/// What the API takes as a field's value. Lengths are in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text up to a length.
    Text {
        /// The most characters.
        max: usize,
    },
    /// One of the values that the platform lists.
    Picklist {
        /// The most characters.
        max: usize,
    },
    /// A calendar date, `YYYY-MM-DD`.
    Date,
    /// `^[A-Z]{2}[0-9]{6}[A-D]$`.
    NationalInsurance,
    /// `^[^@\s]+@[^@\s]+\.[^@\s]+$`.
    Email {
        /// The most characters.
        max: usize,
    },
    /// So many capital letters A-Z.
    Letters {
        /// How many.
        count: usize,
    },
    /// A decimal, without needless zeros.
    Decimal {
        /// The most before the point.
        most: u32,
        /// The most digits after the point.
        scale: usize,
    },
    /// `^\d{1,10}\.\d{2}$`.
    Money,
    /// A package's id, found by the Benefits Level.
    Package,
}

/// How many fields there are: the number of slots in stored fingerprints.
pub const FIELD_COUNT: usize = 33;

/// The record query's columns beside `employee_id`, in the order in which SQL hands their values over.
pub const COLUMNS: &[&str] = &[
    "employee_number",
    "title",
    "forenames",
    "known_as",
    "surname",
    "date_of_birth",
    "gender",
    "national_insurance_number",
    "home_email",
    "work_email",
    "services_email",
    "telephone",
    "mobile",
    "address_line_1",
    "address_line_2",
    "address_line_3",
    "address_line_4",
    "postcode",
    "country_code",
    "start_date",
    "continuous_service_date",
    "leave_date",
    "job_title",
    "grade",
    "department",
    "location",
    "weekly_hours",
    "fte",
    "annual_pay",
    "currency",
    "pay_basis",
    "pay_frequency",
    "pay_change_reason",
    "pay_effective_date",
    "benefits_level",
];

const ALL: [Field; FIELD_COUNT] = [
    Field::EmployeeNumber,
    Field::Title,
    Field::Forenames,
    Field::KnownAs,
    Field::Surname,
    Field::DateOfBirth,
    Field::Gender,
    Field::NationalInsuranceNumber,
    Field::Email,
    Field::Telephone,
    Field::Mobile,
    Field::AddressLine1,
    Field::AddressLine2,
    Field::AddressLine3,
    Field::AddressLine4,
    Field::Postcode,
    Field::CountryCode,
    Field::StartDate,
    Field::ContinuousServiceDate,
    Field::LeaveDate,
    Field::JobTitle,
    Field::Grade,
    Field::Department,
    Field::Location,
    Field::WeeklyHours,
    Field::Fte,
    Field::AnnualPay,
    Field::Currency,
    Field::PayBasis,
    Field::PayFrequency,
    Field::PayChangeReason,
    Field::PayEffectiveDate,
    Field::PackageId,
];

struct Spec {
    name: &'static str,
    column: &'static str,
    label: &'static str,
    mandatory: bool,
    kind: Kind,
}

const fn spec(
    name: &'static str,
    column: &'static str,
    label: &'static str,
    mandatory: bool,
    kind: Kind,
) -> Spec {
    Spec { name, column, label, mandatory, kind }
}

impl Field {
    #[rustfmt::skip]
    const fn spec(self) -> Spec {
        match self {
            Self::EmployeeNumber => spec("employeeNumber", "employee_number", "Employee number", false, Kind::Text { max: 20 }),
            Self::Title => spec("title", "title", "Title", true, Kind::Picklist { max: 40 }),
            Self::Forenames => spec("forenames", "forenames", "Forenames", true, Kind::Text { max: 100 }),
            Self::KnownAs => spec("knownAs", "known_as", "Known as", false, Kind::Text { max: 100 }),
            Self::Surname => spec("surname", "surname", "Surname", true, Kind::Text { max: 100 }),
            Self::DateOfBirth => spec("dateOfBirth", "date_of_birth", "Date of birth", true, Kind::Date),
            Self::Gender => spec("gender", "gender", "Gender", true, Kind::Picklist { max: 40 }),
            Self::NationalInsuranceNumber => spec("nationalInsuranceNumber", "national_insurance_number", "National Insurance number", false, Kind::NationalInsurance),
            Self::Email => spec("email", "", "Email", true, Kind::Email { max: 200 }),
            Self::Telephone => spec("telephone", "telephone", "Telephone", false, Kind::Text { max: 40 }),
            Self::Mobile => spec("mobile", "mobile", "Mobile", false, Kind::Text { max: 40 }),
            Self::AddressLine1 => spec("addressLine1", "address_line_1", "Address line 1", false, Kind::Text { max: 80 }),
            Self::AddressLine2 => spec("addressLine2", "address_line_2", "Address line 2", false, Kind::Text { max: 80 }),
            Self::AddressLine3 => spec("addressLine3", "address_line_3", "Address line 3", false, Kind::Text { max: 80 }),
            Self::AddressLine4 => spec("addressLine4", "address_line_4", "Address line 4", false, Kind::Text { max: 80 }),
            Self::Postcode => spec("postcode", "postcode", "Postcode", false, Kind::Text { max: 12 }),
            Self::CountryCode => spec("countryCode", "country_code", "Country code", false, Kind::Letters { count: 2 }),
            Self::StartDate => spec("startDate", "start_date", "Start date", false, Kind::Date),
            Self::ContinuousServiceDate => spec("continuousServiceDate", "continuous_service_date", "Continuous service date", false, Kind::Date),
            Self::LeaveDate => spec("leaveDate", "leave_date", "Leave date", false, Kind::Date),
            Self::JobTitle => spec("jobTitle", "job_title", "Job title", false, Kind::Text { max: 120 }),
            Self::Grade => spec("grade", "grade", "Grade", false, Kind::Text { max: 40 }),
            Self::Department => spec("department", "department", "Department", false, Kind::Text { max: 120 }),
            Self::Location => spec("location", "location", "Location", false, Kind::Text { max: 120 }),
            Self::WeeklyHours => spec("weeklyHours", "weekly_hours", "Weekly hours", false, Kind::Decimal { most: 999, scale: 2 }),
            Self::Fte => spec("fte", "fte", "FTE", false, Kind::Decimal { most: 1, scale: 4 }),
            Self::AnnualPay => spec("annualPay", "annual_pay", "Annual pay", true, Kind::Money),
            Self::Currency => spec("currency", "currency", "Currency", false, Kind::Letters { count: 3 }),
            Self::PayBasis => spec("payBasis", "pay_basis", "Pay basis", true, Kind::Picklist { max: 40 }),
            Self::PayFrequency => spec("payFrequency", "pay_frequency", "Pay frequency", true, Kind::Picklist { max: 40 }),
            Self::PayChangeReason => spec("payChangeReason", "pay_change_reason", "Pay change reason", true, Kind::Picklist { max: 60 }),
            Self::PayEffectiveDate => spec("payEffectiveDate", "pay_effective_date", "Pay effective date", false, Kind::Date),
            Self::PackageId => spec("packageId", "benefits_level", "Benefits Level", false, Kind::Package),
        }
    }

    /// Every field, in the order of the indexes.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    /// The stored index, see the module.
    #[expect(clippy::as_conversions, reason = "reads the discriminant, which is a u8")]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The field with this stored index; none for an index of a later version.
    pub fn from_index(index: usize) -> Option<Self> {
        ALL.get(index).copied()
    }

    /// The property's name at the API: `dateOfBirth`.
    pub const fn api_name(self) -> &'static str {
        self.spec().name
    }

    /// The field of this name, as at the API (`payBasis`) or in the record query (`pay_basis`). `email` is one too.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|field| {
            let spec = field.spec();
            spec.name == name || (!spec.column.is_empty() && spec.column == name)
        })
    }

    /// The record query's column: `date_of_birth`. An email's depends on the site.
    pub const fn column(self, source: EmailSource) -> &'static str {
        match self {
            Self::Email => source.column(),
            other => other.spec().column,
        }
    }

    /// The column's place in [`COLUMNS`], where an email takes three.
    pub(super) const fn column_index(self, source: EmailSource) -> usize {
        let email = Self::Email.index();
        match (self, source) {
            (Self::Email, EmailSource::Home) => email,
            (Self::Email, EmailSource::Work) => email + 1,
            (Self::Email, EmailSource::Services) => email + 2,
            (other, _) if other.index() < email => other.index(),
            (other, _) => other.index() + 2,
        }
    }

    /// What people call it: `Date of birth`.
    pub const fn label(self) -> &'static str {
        self.spec().label
    }

    /// Whether a record without it is refused.
    pub const fn is_mandatory(self) -> bool {
        self.spec().mandatory
    }

    /// Whether the platform lists its values.
    pub const fn is_picklist(self) -> bool {
        matches!(self.kind(), Kind::Picklist { .. })
    }

    /// What values the API takes.
    pub const fn kind(self) -> Kind {
        self.spec().kind
    }

    /// Its bit in a set.
    pub(super) const fn bit(self) -> u64 {
        1 << self.index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_where_its_stored_index_says() {
        for (index, field) in Field::all().enumerate() {
            assert_eq!(field.index(), index, "{field:?}");
            assert_eq!(Field::from_index(index), Some(field));
        }
        assert_eq!(Field::from_index(FIELD_COUNT), None);
    }

    #[test]
    fn the_stored_indexes_are_those_of_the_first_release() {
        for (field, index) in
            [(Field::EmployeeNumber, 0), (Field::Email, 8), (Field::LeaveDate, 19), (Field::PackageId, 32)]
        {
            assert_eq!(field.index(), index, "{field:?}");
        }
    }

    #[test]
    fn every_field_has_its_column_and_every_column_its_field() {
        let mut columns: Vec<&str> = Vec::new();
        for field in Field::all() {
            if field == Field::Email {
                columns.extend(["home_email", "work_email", "services_email"]);
            } else {
                columns.push(field.column(EmailSource::Home));
            }
        }
        assert_eq!(columns, COLUMNS);
        for source in [EmailSource::Home, EmailSource::Work, EmailSource::Services] {
            for field in Field::all() {
                assert_eq!(COLUMNS[field.column_index(source)], field.column(source));
            }
        }
    }

    #[test]
    fn a_field_is_found_by_either_name() {
        assert_eq!(Field::from_name("payChangeReason"), Some(Field::PayChangeReason));
        assert_eq!(Field::from_name("pay_change_reason"), Some(Field::PayChangeReason));
        assert_eq!(Field::from_name("email"), Some(Field::Email));
        assert_eq!(Field::from_name(""), None);
        assert_eq!(Field::from_name("bankAccount"), None);
    }
}
