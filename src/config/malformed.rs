//! What is wrong in a file that is not a configuration: with the line and the key, and without the value.

use super::{Config, ConfigError, Origin};

/// `text` is not TOML.
pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let place = line_of(text, error).map(|line| {
        let key = key_written_at(text, line);
        format!(" (line {line}{}{key})", if key.is_empty() { "" } else { ", " })
    });
    let reason = format!("{}{}", error.message(), place.unwrap_or_default());
    ConfigError::Malformed { origin: file.to_owned(), reason }
}

/// `table`, of `text` and the environment, is TOML and not a configuration.
pub(super) fn settings(
    origin: &Origin,
    text: &str,
    table: &toml::Table,
    error: &toml::de::Error,
) -> ConfigError {
    let key = key_of(error);
    let reason = if is_list(table, &key) {
        format!("expected one section, as [{key}], and not a list")
    } else {
        plain(error.message())
    };
    if let Some(variable) = origin.variable(&key) {
        return ConfigError::Malformed { origin: variable, reason: format!("{reason} ({key})") };
    }
    // A table has no lines. The file by itself has, where it is the file by itself that is wrong.
    let alone = toml::from_str::<Config>(text).err().filter(|alone| alone.message() == error.message());
    let line = alone.and_then(|alone| line_of(text, &alone)).map(|line| format!("line {line}, "));
    let reason = format!("{reason} ({}{key})", line.unwrap_or_default());
    ConfigError::Malformed { origin: origin.file.clone(), reason }
}

/// The message without the value, which may be a secret in the wrong place. toml shows the offending line as well, below
/// the message; that is left out for the same reason.
fn plain(message: &str) -> String {
    match message.split_once(", expected ") {
        Some((found, expected))
            if found.starts_with("invalid type") || found.starts_with("invalid value") =>
        {
            format!("expected {}", in_words(expected))
        }
        _ => message.to_owned(),
    }
}

/// `section.key`. toml tells the way to where it stopped below its message, and in the message a key that is missing or
/// unknown there.
fn key_of(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let way = text.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    let key = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| error.message().strip_prefix(start)?.split('`').next());
    [way, key].into_iter().flatten().collect::<Vec<_>>().join(".")
}

/// No key has a list for a value; `[[section]]` is one.
fn is_list(table: &toml::Table, key: &str) -> bool {
    let (way, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut parts = way.split('.').filter(|part| !part.is_empty());
    let inner = parts.try_fold(table, |table, part| table.get(part)?.as_table());
    inner.and_then(|table| table.get(last)).is_some_and(toml::Value::is_array)
}

/// Counted from 1; none for what is missing from the file as a whole.
fn line_of(text: &str, error: &toml::de::Error) -> Option<usize> {
    let span = error.span().filter(|span| *span != (0..0))?;
    Some(text.get(..span.start)?.matches('\n').count() + 1)
}

/// `section.key`, as far as it can be told of text that is not TOML.
fn key_written_at(text: &str, line: usize) -> String {
    let header = |line: &str| {
        let name = line.trim().strip_prefix('[')?.trim_start_matches('[').split(']').next()?;
        Some(name.trim().to_owned())
    };
    let lines: Vec<&str> = text.lines().take(line).collect();
    let section = lines.iter().rev().find_map(|line| header(line));
    let last = lines.last().filter(|line| header(line).is_none());
    let key = last.and_then(|line| line.split_once('=')).map(|(key, _)| key.trim().to_owned());
    [section, key].into_iter().flatten().collect::<Vec<_>>().join(".")
}

/// What serde calls by Rust's names, which say nothing to whoever writes the file.
fn in_words(expected: &str) -> String {
    if expected.starts_with("struct ") {
        return "a section".to_owned();
    }
    [
        ("usize", "a whole number"),
        ("u32", "a whole number"),
        ("f64", "a number"),
        ("a string", "text in quotes"),
        ("path string", "text in quotes"),
    ]
    .into_iter()
    .find_map(|(name, words)| expected.strip_prefix(name).map(|rest| format!("{words}{rest}")))
    .unwrap_or_else(|| expected.to_owned())
}
