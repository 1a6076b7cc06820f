//! PostgreSQL's clock on the wire: microseconds since 2000-01-01 00:00 UTC.

/// Microseconds between the Unix epoch and PostgreSQL's.
const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

/// A moment by the server's clock: microseconds since 2000-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Microseconds since 1970-01-01 00:00 UTC.
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_OFFSET_MICROS)
    }

    /// From microseconds since 1970-01-01 00:00 UTC.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(EPOCH_OFFSET_MICROS))
    }
}
