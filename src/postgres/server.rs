//! What a server says about itself: its errors, its version.

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// An error or notice of the server, in its own three parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {code})")]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, ... untranslated.
    pub severity: String,
    /// The SQLSTATE.
    pub code: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// More, if there is more.
    pub detail: Option<String>,
    /// What to do about it, if the server has an idea.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an `ErrorResponse` or `NoticeResponse`. What cannot be read is left out: an error about an
    /// error would hide the first.
    pub(crate) fn from_fields(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self {
            severity: String::new(),
            code: String::new(),
            message: String::new(),
            detail: None,
            hint: None,
        };
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                // 'S' may be translated and comes first, 'V' never is.
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                _ => {}
            }
        }
        error
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// `server_version` ("15.19 (Debian ...)", "18beta1") as `server_version_num` has it: 150019, 180000.
pub(crate) fn version_number(text: &str) -> Option<u32> {
    let leading = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    let mut parts = text.split('.');
    let major = parts.next().and_then(leading)?;
    let minor = parts.next().and_then(leading).unwrap_or(0);
    major.checked_mul(10_000)?.checked_add(minor)
}
