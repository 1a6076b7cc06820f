//! What a site may choose from: the packages and the picklists.
//!
//! Both can be replaced at run time, so that a repaired picklist or a withdrawn package can be rehearsed.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use serde::Serialize;

/// A benefits package that a Benefits Level can name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// What `packageId` carries.
    pub id: String,
    /// What people see.
    pub name: String,
}

/// Packages and picklists.
#[derive(Debug)]
pub(super) struct Catalogue {
    lists: RwLock<Lists>,
}

#[derive(Debug)]
struct Lists {
    packages: Vec<Package>,
    picklists: BTreeMap<String, Vec<String>>,
}

const PACKAGES: [(&str, &str); 4] = [
    ("core", "Core benefits"),
    ("plus", "Plus: core with private health cover"),
    ("executive", "Executive"),
    ("apprentice", "Apprentices and interns"),
];

const PICKLISTS: [(&str, &[&str]); 5] = [
    ("title", &["Mr", "Mrs", "Miss", "Ms", "Mx", "Dr", "Prof", "Rev", "Sir", "Lady"]),
    ("gender", &["Male", "Female", "Non-binary", "Prefer not to say"]),
    ("payBasis", &["Annual", "Monthly", "Weekly", "Daily", "Hourly"]),
    ("payFrequency", &["Weekly", "Fortnightly", "Four-weekly", "Monthly", "Quarterly", "Annually"]),
    (
        "payChangeReason",
        &["New starter", "Annual review", "Promotion", "Job change", "Hours change", "Correction"],
    ),
];

impl Default for Catalogue {
    fn default() -> Self {
        let packages = PACKAGES.iter().map(|(id, name)| Package { id: (*id).into(), name: (*name).into() });
        let picklists = PICKLISTS
            .iter()
            .map(|(field, values)| ((*field).into(), values.iter().map(|v| (*v).into()).collect()));
        Self { lists: RwLock::new(Lists { packages: packages.collect(), picklists: picklists.collect() }) }
    }
}

impl Catalogue {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Lists> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Lists> {
        self.lists.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_picklist(&self, field: &str, values: &[&str]) {
        let values = values.iter().map(|v| (*v).into()).collect();
        self.write().picklists.insert(field.into(), values);
    }

    pub(super) fn set_packages(&self, packages: Vec<Package>) {
        self.write().packages = packages;
    }

    pub(super) fn packages(&self) -> Vec<Package> {
        self.read().packages.clone()
    }

    pub(super) fn picklists(&self) -> BTreeMap<String, Vec<String>> {
        self.read().picklists.clone()
    }

    /// Whether the platform lists the value for the field.
    pub(super) fn lists(&self, field: &str, value: &str) -> bool {
        self.read().picklists.get(field).is_some_and(|values| values.iter().any(|v| v == value))
    }

    /// Whether there is such a package.
    pub(super) fn has_package(&self, id: &str) -> bool {
        self.read().packages.iter().any(|package| package.id == id)
    }
}
