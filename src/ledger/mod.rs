//! The ledger: what the pipeline remembers, in the schema `benefits` of the HR database.
//!
//! ```text
//!  Commit ──▶ gate (visible yet?) ──▶ marks: pending rows + checkpoint, one flush ──▶ PersistedLsn ──▶ slot
//!                                          │
//!                                          ▼ who is due
//!  work (pending + record, one snapshot) ──▶ intents (claim + version, one flush) ──▶ HTTP ──▶ outcomes (one flush)
//! ```
//!
//! What is delivered at once needs neither mark nor intent: [`in_hand`].
//!
//! Every statement is a file in `sql/queries`. Sessions force `synchronous_commit = on`: what the ledger calls durable
//! survives a crash of PostgreSQL. Statements that lock several rows lock them in the order of the employee's id, so that
//! the marker, the outcomes and other instances cannot deadlock.

pub mod accounts;
mod checkpoint;
pub mod doubt;
mod error;
pub mod everyone;
pub mod halves;
pub mod in_hand;
mod marks;
pub mod outcomes;
mod session;
pub mod site;
mod snapshot;
mod users;
mod witness;
pub mod work;

pub use checkpoint::{Checkpoint, PersistedLsn, is_elsewhere};
pub use error::{LedgerError, Trouble};
pub use marks::{Batch, MarkSettings, Marked, Marks};
pub use session::Session;
pub use site::Site;
pub use snapshot::{Snapshot, SnapshotError};
pub use users::TransactionUsers;
pub use witness::{Witness, WitnessError};
