//! Environment variables laid over the file: `BENEFITS_SYNC_SECTION__KEY`, sub-tables by further `__`.

use std::collections::BTreeMap;

use super::ConfigError;

const PREFIX: &str = "BENEFITS_SYNC_";

/// Our variables of the process. Others need not be text, and are none of our business.
pub(super) fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    std::env::vars_os()
        .filter(|(name, _)| is_ours(&name.to_string_lossy()))
        .map(|(name, value)| {
            let fault = ConfigError::Malformed {
                origin: format!("environment variable {}", name.to_string_lossy()),
                reason: "is not UTF-8".to_owned(),
            };
            name.into_string().ok().zip(value.into_string().ok()).ok_or(fault)
        })
        .collect()
}

/// Names without a section are not configuration (`BENEFITS_SYNC_LOG_DIR` of somebody's script).
fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|key| key.contains("__"))
}

/// Lays the variables over `table`; their names by the keys that they give. Values are read as TOML numbers and booleans
/// where the file's key is one, else as text.
pub(super) fn overlay(
    table: &mut toml::Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut given = BTreeMap::new();
    for (name, value) in variables {
        let Some(key) = name.strip_prefix(PREFIX).filter(|_| is_ours(&name)) else { continue };
        let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
        set(table, &path, typed(&path, &value)).ok_or_else(|| ConfigError::Malformed {
            origin: format!("environment variable {name}"),
            reason: "does not name a section and a key".to_owned(),
        })?;
        given.insert(path.join("."), name);
    }
    Ok(given)
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) -> Option<()> {
    let (key, rest) = path.split_first()?;
    if key.is_empty() {
        return None;
    }
    if rest.is_empty() {
        table.insert(key.clone(), value);
        return Some(());
    }
    let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    set(inner.as_table_mut()?, rest, value)
}

/// The keys that are not text. Everything else (a platform id of digits, say) must stay as written.
fn typed(path: &[String], value: &str) -> toml::Value {
    let text = || toml::Value::String(value.to_owned());
    match path.last().map(String::as_str) {
        Some("enabled") => value.parse().map_or_else(|_| text(), toml::Value::Boolean),
        Some("history_months" | "concurrency" | "minimum") => {
            value.parse().map_or_else(|_| text(), toml::Value::Integer)
        }
        Some("requests_per_second" | "fraction") => value.parse().map_or_else(|_| text(), toml::Value::Float),
        _ => text(),
    }
}
