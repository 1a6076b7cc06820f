//! All of it on one laptop: a throw-away PostgreSQL, a made-up HR application, and a simulated platform.
//!
//! ```text
//!  cluster ──▶ schema, description ──▶ people ──▶ first sync ──▶ edits ──▶ the pipeline ──▶ sandbox
//!  (binaries)  (sql/demo)              (seeded)   (progress)     (seeded)       │
//!                                                                               ▼
//!                                                                           terminal
//! ```
//!
//! [`cluster`] is used by the integration tests as well: nothing in it knows of the demo.

pub mod binaries;
pub mod cluster;
pub mod edits;
pub mod people;
