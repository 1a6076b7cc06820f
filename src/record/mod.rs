//! An employee's record: from HR's row to what the API is sent.
//!
//! ```text
//!  RawRecord ──prepare(Rules)──▶ Record ──Fingerprints::of──▶ now ──diff(acknowledged)──▶ FieldSet ──Body──▶ bytes
//!  (the query's text)    │       (API values)                                             (what differs)
//!                        └────▶ every Fault of it at once; then no call is made
//! ```
//!
//! Pure: the rules (picklists, packages, translations) are loaded by the caller, and there is neither I/O nor a clock.
//! A value that leaves [`prepare()`] satisfies the API's patterns and lengths. No value is put into an error, with the one
//! exception of a picklist value that was refused.

mod body;
mod diff;
mod fault;
mod field;
mod field_set;
mod fingerprint;
mod prepare;
mod raw;
mod rules;
mod value;

pub use body::{Body, Link, Write, idempotency_key};
pub use diff::diff;
pub use fault::{Fault, FaultCode};
pub use field::{COLUMNS, FIELD_COUNT, Field, Kind};
pub use field_set::FieldSet;
pub use fingerprint::{FingerprintKey, Fingerprints, KeyError};
#[cfg(test)]
pub(crate) use prepare::tests::{least_with, rules};
pub use prepare::{Record, prepare};
pub use raw::{Described, RawRecord};
pub use rules::Rules;
