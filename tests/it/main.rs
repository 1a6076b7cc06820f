//! Integration tests: one crate, so that one harness serves them all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "tests: a failed expectation is the point, also in their helpers"
)]

mod sandbox;
