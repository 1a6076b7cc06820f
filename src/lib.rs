//! `benefits-sync`: change data capture from an HR system's PostgreSQL to a Benefits platform. The map.
//!
//! ```text
//!  HR tables ──WAL──▶ replication ─▶ pgoutput ─▶ selection ─▶ ledger ─▶ delivery ──HTTP──▶ Benefits
//!                        ▲                                      │  ▲        │
//!                        └──────── confirmed LSN ◀──────────────┘  └────────┘ outcomes
//!                                                               ▲
//!                                     reconcile (doubt, midnight, on demand)
//! ```
//!
//! | stage | what it does | what it must never do |
//! |---|---|---|
//! | [`replication`] | reads the slot's stream, answers the server | confirm what the ledger has not made durable |
//! | [`pgoutput`] | bytes to messages, pure | panic, or take an unchanged TOAST value for null |
//! | [`selection`] | whom a committed transaction touched, pure | miss somebody; to mark too many is harmless |
//! | [`ledger`] | pending, intents, outcomes, history in PostgreSQL | let an outcome clear a mark that came after it was read |
//! | [`record`] | validation, translation, fingerprints, diff, pure | keep a value |
//! | [`delivery`] | decides, writes the intent, sends, records | send another body under a version that was used |
//! | [`reconcile`] | everyone against what was acknowledged | enrol anybody beside the stream |
//!
//! [`pipeline`] wires them and is the place to start reading. [`setup`], [`doctor`], [`status`] and [`preview`] are what people run
//! beside it; [`sandbox`] is a simulated platform and [`demo`] all of it on one machine.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod doctor;
pub mod failpoint;
pub mod http;
pub mod ledger;
pub mod lsn;
pub mod metrics;
mod paint;
pub mod pgoutput;
pub mod pipeline;
pub mod postgres;
pub mod preview;
pub mod reconcile;
pub mod record;
pub mod replication;
pub mod sandbox;
pub mod selection;
pub mod setup;
pub mod status;
pub mod systemd;
