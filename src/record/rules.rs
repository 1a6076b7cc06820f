//! What a site and its platform say about values: picklists, packages, translations, levels.
//!
//! Loaded by the caller from the platform and the ledger, and read by [`super::prepare()`] for every record, so the
//! forgiving comparisons are worked out once, here.

use std::collections::HashMap;

use super::fault::{Fault, FaultCode};
use super::field::Field;
use super::field_set::FieldSet;
use super::raw::Described;
use crate::config::EmailSource;

/// How records of a site become records of the platform.
#[derive(Debug, Clone)]
pub struct Rules {
    email_source: EmailSource,
    fields: FieldSet,
    picklists: HashMap<Field, Picklist>,
    translations: HashMap<(Field, String), String>,
    packages: Option<Packages>,
    levels: HashMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Picklist {
    values: Vec<String>,
    /// Folded to the platform's spelling; none where two of its values fold to the same.
    by_folded: HashMap<String, Option<String>>,
}

#[derive(Debug, Clone, Default)]
struct Packages {
    /// Folded id to id.
    by_id: HashMap<String, String>,
    /// Folded name to id; none where two packages have the name.
    by_name: HashMap<String, Option<String>>,
}

impl Rules {
    /// Rules of a site whose platform has not been asked yet: every picklist value passes.
    pub fn new(email_source: EmailSource, described: Described) -> Self {
        Self {
            email_source,
            fields: described.fields(email_source),
            picklists: HashMap::new(),
            translations: HashMap::new(),
            packages: None,
            levels: HashMap::new(),
        }
    }

    /// The platform's picklists, by field name. Fields that it does not list pass any value.
    #[must_use]
    pub fn with_picklists(mut self, lists: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        self.picklists = lists
            .into_iter()
            .filter_map(|(name, values)| {
                let field = Field::from_name(&name).filter(|field| field.is_picklist())?;
                Some((field, Picklist::new(values)))
            })
            .collect();
        self
    }

    /// The platform's packages: (id, name).
    #[must_use]
    pub fn with_packages(mut self, packages: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut known = Packages::default();
        for (id, name) in packages {
            known
                .by_name
                .entry(folded(&name))
                .and_modify(|held| {
                    if held.as_deref() != Some(&id) {
                        *held = None;
                    }
                })
                .or_insert_with(|| Some(id.clone()));
            known.by_id.insert(folded(&id), id);
        }
        self.packages = Some(known);
        self
    }

    /// The site's translations: (field, HR's value, Benefits's value). The field goes by either of its names; others than
    /// picklist fields are left out.
    #[must_use]
    pub fn with_translations(mut self, rows: impl IntoIterator<Item = (String, String, String)>) -> Self {
        self.translations = rows
            .into_iter()
            .filter_map(|(name, hr_value, benefits_value)| {
                let field = Field::from_name(&name).filter(|field| field.is_picklist())?;
                Some(((field, folded(&hr_value)), benefits_value.trim().to_owned()))
            })
            .collect();
        self
    }

    /// The site's mapping of levels: (level, package id).
    #[must_use]
    pub fn with_levels(mut self, rows: impl IntoIterator<Item = (String, String)>) -> Self {
        self.levels = rows.into_iter().map(|(level, id)| (folded(&level), id.trim().to_owned())).collect();
        self
    }

    /// The platform's lists as other rules have them.
    #[must_use]
    pub fn with_lists_of(mut self, other: &Self) -> Self {
        self.picklists.clone_from(&other.picklists);
        self.packages.clone_from(&other.packages);
        self
    }

    /// The fields that the site's query describes: the only ones that are ever sent.
    pub const fn fields(&self) -> FieldSet {
        self.fields
    }

    /// Which of the record's emails is sent.
    pub const fn email_source(&self) -> EmailSource {
        self.email_source
    }

    /// The platform's value for HR's: as it is where the platform lists it, else by translation, else the value that
    /// differs in case and space only.
    pub(super) fn picklist_value(&self, field: Field, value: &str) -> Result<String, Fault> {
        let translation = || self.translations.get(&(field, folded(value)));
        let Some(list) = self.picklists.get(&field) else {
            return Ok(translation().map_or(value, String::as_str).to_owned());
        };
        if list.has(value) {
            return Ok(value.to_owned());
        }
        translation()
            .and_then(|translated| list.spelling(translated))
            .or_else(|| list.spelling(value))
            .ok_or_else(|| Fault::unknown_value(field, value, &list.values))
    }

    /// The package of a Benefits Level: mapped by the site, else the package with this id, else with this name.
    ///
    /// While the packages are not known the site's mapping passes, and an unmapped level is taken for an id.
    pub(super) fn package(&self, level: &str) -> Result<String, Fault> {
        let level_folded = folded(level);
        let mapped = self.levels.get(&level_folded);
        let Some(packages) = &self.packages else {
            return Ok(mapped.map_or(level, String::as_str).to_owned());
        };
        let found = match mapped {
            Some(id) => packages.by_id.get(&folded(id)),
            None => packages
                .by_id
                .get(&level_folded)
                .or_else(|| packages.by_name.get(&level_folded).and_then(Option::as_ref)),
        };
        found.cloned().ok_or(Fault::new(Field::PackageId, FaultCode::NoPackage))
    }
}

impl Picklist {
    fn new(values: Vec<String>) -> Self {
        let mut by_folded: HashMap<String, Option<String>> = HashMap::new();
        for value in &values {
            by_folded
                .entry(folded(value))
                .and_modify(|held| {
                    if held.as_ref() != Some(value) {
                        *held = None;
                    }
                })
                .or_insert_with(|| Some(value.clone()));
        }
        Self { values, by_folded }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|listed| listed == value)
    }

    /// The platform's spelling of a value.
    fn spelling(&self, value: &str) -> Option<String> {
        if self.has(value) {
            return Some(value.to_owned());
        }
        self.by_folded.get(&folded(value)).cloned().flatten()
    }
}

/// Without spaces and in one case: how values are compared that people typed.
fn folded(value: &str) -> String {
    value.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let text = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        Rules::new(EmailSource::Work, Described::ALL)
            .with_picklists([
                ("gender".to_owned(), text(&["Male", "Female", "Non-binary"])),
                ("title".to_owned(), text(&["Mr", "MR", "Dr"])),
            ])
            .with_translations([
                ("gender".to_owned(), " m ".to_owned(), "Male".to_owned()),
                ("gender".to_owned(), "X".to_owned(), "non-binary ".to_owned()),
                ("gender".to_owned(), "Q".to_owned(), "Queer".to_owned()),
                ("pay_basis".to_owned(), "PA".to_owned(), "Annual".to_owned()),
            ])
            .with_packages([
                ("pkg-gold".to_owned(), "Gold".to_owned()),
                ("pkg-s1".to_owned(), "Silver".to_owned()),
                ("pkg-s2".to_owned(), "silver".to_owned()),
            ])
            .with_levels([
                ("Exec".to_owned(), "pkg-gold".to_owned()),
                ("Old".to_owned(), "pkg-gone".to_owned()),
            ])
    }

    #[test]
    fn a_listed_value_passes_as_it_is() {
        assert_eq!(rules().picklist_value(Field::Gender, "Female").unwrap(), "Female");
        assert_eq!(rules().picklist_value(Field::Title, "MR").unwrap(), "MR");
    }

    #[test]
    fn a_translation_forgives_case_and_space_on_both_sides() {
        assert_eq!(rules().picklist_value(Field::Gender, "M").unwrap(), "Male");
        assert_eq!(rules().picklist_value(Field::Gender, "x").unwrap(), "Non-binary");
    }

    #[test]
    fn a_translation_to_an_unlisted_value_does_not_help() {
        let fault = rules().picklist_value(Field::Gender, "q").unwrap_err();
        assert_eq!((fault.code, fault.refused_value.as_deref()), (FaultCode::UnknownValue, Some("q")));
    }

    #[test]
    fn a_value_in_another_case_takes_the_platforms_spelling_unless_two_would_do() {
        assert_eq!(rules().picklist_value(Field::Gender, "NON - binary").unwrap(), "Non-binary");
        assert_eq!(rules().picklist_value(Field::Title, "mr").unwrap_err().code, FaultCode::UnknownValue);
    }

    #[test]
    fn a_field_without_a_list_passes_after_translation() {
        assert_eq!(rules().picklist_value(Field::PayBasis, "pa").unwrap(), "Annual");
        assert_eq!(rules().picklist_value(Field::PayBasis, "Daily").unwrap(), "Daily");
    }

    #[test]
    fn a_level_is_mapped_or_names_a_package() {
        assert_eq!(rules().package("exec").unwrap(), "pkg-gold");
        assert_eq!(rules().package("PKG-S1").unwrap(), "pkg-s1");
        assert_eq!(rules().package("gold").unwrap(), "pkg-gold");
    }

    #[test]
    fn a_level_that_names_none_or_two_packages_or_one_that_is_gone_has_no_package() {
        for level in ["Bronze", "Silver", "Old"] {
            assert_eq!(rules().package(level).unwrap_err().code, FaultCode::NoPackage, "{level}");
        }
    }
}
