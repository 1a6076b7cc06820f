//! Integration tests: one crate, so that one harness serves them all.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop there; clippy's allow-*-in-tests does not reach helpers"
)]

mod client;
