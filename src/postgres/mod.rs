//! The way to PostgreSQL: where it is, who we are there, and how the line is secured.
//!
//! ```text
//!  URL + [database] ──▶ Target ──▶ Wire (TCP or unix socket, TLS) ──┬──▶ connect_sql ──▶ Session  (queries)
//!                                                                    └──▶ replication::Connection (the stream)
//! ```
//!
//! Both kinds of connection take the same path to the server, so that what works for one works for the other: one URL
//! grammar, one TLS set-up with libpq's `sslmode` meanings, one search through several hosts, one class of errors.
//! rustls gets its provider (ring) explicitly; nothing here depends on a process-wide default.
//!
//! Session settings that the rest of the program relies on are pinned at startup ([`PINNED_OPTIONS`]), because a
//! role's or a database's own `DateStyle` would otherwise change the text of every date, and serializable transactions of
//! ours would fail beside each other.

mod error;
mod hosts;
mod server;
mod sql;
mod target;
mod tls;
mod url;
mod wire;

pub use error::{ConnectError, ConnectErrorClass};
pub use server::ServerError;
pub use sql::{Session, connect_sql};
pub use target::{Endpoint, Host, SessionAttributes, Target};
pub use url::TargetError;

pub(crate) use hosts::{Role, Search};
pub(crate) use server::version_number;
pub(crate) use wire::Wire;

/// Startup `options` of every session: the text forms of values, and what a statement sees of others, do not depend on the
/// role or the database.
pub const PINNED_OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 \
     -c default_transaction_isolation=read\\ committed -c client_encoding=UTF8";

#[cfg(test)]
mod tests;
