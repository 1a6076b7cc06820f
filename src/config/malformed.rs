//! What is wrong in a file that is not a configuration: with the line and the key, and without the value.

use super::ConfigError;

/// What is wrong in `text`, with the line and the key.
pub(super) fn malformed(origin: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let place = error.span().and_then(|span| text.get(..span.start)).map(|before| place(before, text));
    let reason = format!("{}{}", plain(error.message()), place.unwrap_or_default());
    ConfigError::Malformed { origin: origin.to_owned(), reason }
}

/// The message without the value, which may be a secret in the wrong place. toml shows the offending line as well, below
/// the message; that is left out for the same reason.
pub(super) fn plain(message: &str) -> String {
    let message = message.trim();
    match message.split_once(", expected ") {
        Some((found, expected))
            if found.starts_with("invalid type") || found.starts_with("invalid value") =>
        {
            format!("expected {}", in_words(expected))
        }
        _ => message.to_owned(),
    }
}

/// " (line 7, delivery.concurrency)".
fn place(before: &str, text: &str) -> String {
    let number = before.matches('\n').count();
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let section = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split(']').next());
    let key = text.lines().nth(number).filter(|line| line.contains('=')).map(name);
    let path = [section.map(ToOwned::to_owned), key].into_iter().flatten().collect::<Vec<_>>().join(".");
    format!(" (line {}{}{path})", number + 1, if path.is_empty() { "" } else { ", " })
}

/// What serde calls by Rust's names, which say nothing to whoever writes the file.
fn in_words(expected: &str) -> String {
    [
        ("usize", "a whole number"),
        ("u32", "a whole number"),
        ("f64", "a number"),
        ("a string", "text in quotes"),
    ]
    .into_iter()
    .find_map(|(name, words)| expected.strip_prefix(name).map(|rest| format!("{words}{rest}")))
    .unwrap_or_else(|| expected.to_owned())
}
