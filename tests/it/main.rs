//! The integration tests: one crate, real PostgreSQL of every supported major version.
//!
//! `make test` fetches the servers and runs everything. By hand: `tests/postgres/fetch`, then `cargo nextest run`.
//! `BENEFITS_SYNC_TEST_MAJORS="18"` leaves the other majors out.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on should stop there; clippy's allow-*-in-tests does not reach helpers"
)]

mod support;

mod bad_input;
mod client;
mod cluster;
mod crashes;
mod demo;
mod demo_run;
mod described;
mod describing;
mod doctor;
mod doctor_costs;
mod doctor_server;
mod domain_guard;
mod domain_history;
mod domain_holds;
mod domain_levels;
mod domain_links;
mod domain_many;
mod domain_permissions;
mod domain_promise;
mod domain_search;
mod domain_shapes;
mod domain_states;
mod domain_time;
mod domain_upgrade;
mod domain_validation;
mod failover;
mod in_doubt;
mod in_hand;
mod in_hand_ledger;
mod invariants;
mod large;
mod ledger_plans;
mod ledger_races;
mod main_job;
mod mass_in_hand;
mod metrics;
mod metrics_live;
mod million;
mod odd_values;
mod platform_faults;
mod preview;
mod privacy;
mod reconcile;
mod replication;
mod sandbox;
mod schema_upgrade;
mod set_back;
mod setup;
mod shell;
mod simulation;
mod slot;
mod status;
mod stream_faults;
mod systemd;
mod tutorial;
mod unequal;
mod upgrade;
mod walk;
