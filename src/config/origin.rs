//! Where a setting was read, so that whoever has to change it knows where.

use std::collections::BTreeMap;

/// The file, and the environment variables that were laid over it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// As named by the user.
    pub(super) file: String,
    /// Names of variables, by the key that they give.
    pub(super) variables: BTreeMap<String, String>,
}

impl Origin {
    /// What has to be changed for another value of `key` (`section.key`): the file, or the variable.
    pub fn of(&self, key: &str) -> String {
        self.variable(key).unwrap_or_else(|| self.file.clone())
    }

    /// The variable that gives `key`, if there is one.
    pub(super) fn variable(&self, key: &str) -> Option<String> {
        self.variables.get(key).map(|name| format!("environment variable {name}"))
    }
}
