//! Positions in PostgreSQL's write-ahead log.
//!
//! An LSN is the offset of a byte in the WAL of one cluster, on one timeline. The program meets several, and they are
//! not interchangeable: where a message was written (`wal_start`), where the server's WAL ends (`wal_end`), a commit
//! record's start (`commit_lsn`) and its end (`end_lsn`, the one that may be confirmed), and what the slot has
//! confirmed. All of them are an [`Lsn`] here; which one is meant is said by the field's name.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, written `X/X` in hexadecimal as PostgreSQL does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// PostgreSQL's "no position" (`InvalidXLogRecPtr`).
    pub const ZERO: Self = Self(0);

    /// How many bytes of WAL lie between `earlier` and here; 0 when `earlier` is in fact later.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position; expected two hexadecimal numbers as in 16/B374D848")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// One to eight hexadecimal digits, as `pg_lsn` reads them: no sign, no space.
fn half(text: &str) -> Result<u32, ParseLsnError> {
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseLsnError);
    }
    u32::from_str_radix(text, 16).or(Err(ParseLsnError))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_written_as_postgresql_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn::ZERO.to_string(), "0/0");
        assert_eq!(Lsn(u64::MAX).to_string(), "FFFFFFFF/FFFFFFFF");
    }

    #[test]
    fn what_is_written_reads_back() {
        for value in [0, 1, 0xFFFF_FFFF, 0x1_0000_0000, u64::MAX] {
            assert_eq!(Lsn(value).to_string().parse(), Ok(Lsn(value)));
        }
        assert_eq!("0/1a".parse(), Ok(Lsn(26)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "+1/2", "1/ 2", "1/2/3", "g/0", "123456789/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text}");
        }
    }

    #[test]
    fn distance_never_underflows() {
        assert_eq!(Lsn(7).bytes_since(Lsn(5)), 2);
        assert_eq!(Lsn(5).bytes_since(Lsn(7)), 0);
    }
}
