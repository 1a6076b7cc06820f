//! What the integration tests share: a database of their own on a running server, of each major version.
//!
//! `nextest` runs every test in a process of its own, so a server is shared through files: see [`shared`]. A test that
//! crashes or restarts PostgreSQL starts a private cluster instead: [`private_cluster`].
#![allow(dead_code, reason = "not every helper is used at every moment of the suite's life")]

pub mod certificates;
pub mod console;
pub mod database;
pub mod logins;
pub mod port;
pub mod process;
pub mod proof;
pub mod shared;
pub mod site;

use benefits_sync::demo::binaries::Binaries;
use benefits_sync::demo::cluster::{Cluster, ClusterOptions};

#[allow(unused_imports, reason = "as above")]
pub use database::{TestDatabase, database, database_from, database_on, database_prepared};

/// Expands a test into one for each major version, named `<test>::pg15` to `<test>::pg18`:
///
/// ```ignore
/// for_each_major! {
///     async fn a_committed_change_is_seen(major: u32) {
///         let database = support::database(major).await;
///     }
/// }
/// ```
#[macro_export]
macro_rules! for_each_major {
    ($($(#[$attribute:meta])* async fn $name:ident($major:ident : u32) $body:block)+) => { $(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs what is around it")]
            use super::*;

            $(#[$attribute])*
            async fn case($major: u32) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pg15() {
                if $crate::support::wanted(15) { case(15).await }
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pg16() {
                if $crate::support::wanted(16) { case(16).await }
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pg17() {
                if $crate::support::wanted(17) { case(17).await }
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn pg18() {
                if $crate::support::wanted(18) { case(18).await }
            }
        }
    )+ };
}

/// Whether `BENEFITS_SYNC_TEST_MAJORS` (numbers between spaces or commas) leaves this major version in. It says so where
/// it does not, because a test that was left out is shown as passed.
pub fn wanted(major: u32) -> bool {
    let Ok(list) = std::env::var("BENEFITS_SYNC_TEST_MAJORS") else { return true };
    let wanted = list.split([' ', ',']).any(|item| item == major.to_string());
    if !wanted {
        eprintln!("left out: BENEFITS_SYNC_TEST_MAJORS is {list:?}");
    }
    wanted
}

/// Settings of every test server, shared or private.
pub fn options(major: u32) -> ClusterOptions {
    let binaries = Binaries::find(major).unwrap_or_else(|error| panic!("{error}"));
    let mut options = ClusterOptions::new(binaries)
        .setting("max_replication_slots", "200")
        .setting("max_wal_senders", "200")
        .setting("max_connections", "300")
        .setting("max_prepared_transactions", "20");
    options.fsync = false;
    // It may be stopped and started again.
    options.port = Some(port::own());
    options
}

/// A server for one test alone, gone when dropped.
pub async fn private_cluster(major: u32) -> Cluster {
    private_cluster_with(options(major)).await
}

/// As [`private_cluster`], with other [`options`].
pub async fn private_cluster_with(options: ClusterOptions) -> Cluster {
    Cluster::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}
