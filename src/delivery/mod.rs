//! Delivery: what goes over the wire to the platform, and what comes of it.
//!
//! ```text
//!   rate (may I?) ─▶ breaker (is the platform well?) ─▶ client ──HTTP──▶ Benefits
//!                                                         │
//!   ledger ◀── outcome: accepted, or one class of failure ◀┘── retry: when again
//! ```
//!
//! [`guard`] holds mass changes back for a person. [`outcome`] is the one place that decides what an answer means, [`retry`] the one that says how long to wait. The state
//! machines ([`breaker`], [`retry`], the reading of answers) take the time as a parameter and do no I/O.

pub mod api;
pub mod appetite;
pub mod batcher;
pub mod breaker;
pub mod client;
mod connections;
pub mod context;
pub mod courier;
mod credentials;
pub mod decide;
pub mod dispatch;
pub mod gate;
pub mod guard;
pub mod halt;
pub mod job;
pub mod lanes;
pub mod outcome;
pub mod pace;
pub mod rate;
pub mod retry;
pub(crate) mod site_rules;
pub mod tickets;
mod transport;
