//! Selection: which row changes matter, and to whom. Pure.
//!
//! ```text
//!  pgoutput messages ──▶ Selector ──▶ Commit { xid, end LSN, Touches }   one a committed transaction, in commit order
//!                          ├─ Row          the judgement of one row change
//!                          │ Description   which tables and columns, and how a row leads to its employee
//!                          │ Members       who is synced, failed, in the starter baseline (64-bit hashes of ids)
//!                          │ RowCache      the mapped columns last seen of a row, as a fingerprint (bounded)
//!                          │ RowFilter     which child rows belong to synced employees (a Bloom filter)
//! ```
//!
//! A change matters when its employee is synced (or the starter flag is up) and a mapped column differs. Everything here
//! errs to one side: to mark an employee who did not change costs one record read, to miss one loses a change. So hashes
//! may collide, subtransaction aborts are ignored, what is unknown counts as changed; and what a transaction that can
//! still abort has shown is never remembered as seen.
//!
//! A row of another table or another employee costs a hash and a probe: no allocation, no lookup in PostgreSQL.

mod binding;
mod deeds;
mod description;
mod hash;
mod members;
mod row;
mod rows;
mod selector;
mod touches;

pub use description::{Description, Source, SourceId};
pub use hash::{KeyHash, KeyHasher};
pub use members::Members;
pub use rows::RowFilter;
pub use selector::{Commit, Decisions, SelectionError, Selector};
pub use touches::{Mark, Touches};

#[cfg(test)]
mod tests;
