//! `benefits-sync`: change data capture from an HR system's PostgreSQL to a Benefits platform.

pub mod config;
pub mod lsn;
pub mod pgoutput;
pub mod postgres;
pub mod replication;
