//! Environment variables laid over the file: `BENEFITS_SYNC_SECTION__KEY`, sub-tables by further `__`.

use super::ConfigError;

const PREFIX: &str = "BENEFITS_SYNC_";

/// Lays the variables over `table`; whether there was any. Values are read as TOML numbers and booleans where the
/// file's key is one, else as text.
pub(super) fn overlay(
    table: &mut toml::Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<bool, ConfigError> {
    let mut any = false;
    for (name, value) in variables {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        // Names without a section are not configuration (BENEFITS_SYNC_LOG_DIR of somebody's script).
        if !key.contains("__") {
            continue;
        }
        let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
        set(table, &path, typed(&path, &value)).ok_or_else(|| ConfigError::Malformed {
            origin: format!("environment variable {name}"),
            reason: "does not name a section and a key".to_owned(),
        })?;
        any = true;
    }
    Ok(any)
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
