//! `benefits-sync`: change data capture from an HR system's PostgreSQL to a Benefits platform.

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
