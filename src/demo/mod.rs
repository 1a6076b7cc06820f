//! All of it on one laptop: a throw-away PostgreSQL, a made-up HR application, and a simulated platform.
//!
//! ```text
//!  cluster ──▶ schema ──▶ people ──▶ setup, description ──▶ first sync ──▶ edits ──▶ the pipeline ──▶ sandbox
//!  (binaries)  (sql/demo) (seeded)                          (progress)     (seeded)       │ history        │ accounts
//!                                                                               follow ◀──┘                │
//!                                                                                 │       HR's records     ▼
//!                                                                              terminal ◀───────────── verdict
//! ```
//!
//! [`cluster`] is used by the integration tests as well: nothing in it knows of the demo. [`Stage::set`] does what comes
//! before anything of ours; [`show::run`] is the rest, from beginning to end. Read that first.

pub mod binaries;
pub mod cluster;
pub mod edits;
mod follow;
pub mod people;
pub mod show;
pub mod terminal;
pub mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use jiff::civil::Date;
use tokio_postgres::{Client, NoTls};

use binaries::Binaries;
use cluster::{Cluster, ClusterError, ClusterOptions};
use people::{LoadError, Loaded, People};

/// The made-up HR application's schema.
pub const SCHEMA: &str = include_str!("../../sql/demo/schema.sql");

/// How the HR schema is described to us: to be run after `setup`.
pub const DESCRIPTION: &str = include_str!("../../sql/demo/describe.sql");

/// The database's name.
const DATABASE: &str = "hr";

const EXAMPLES: &str = "\
Examples:
  benefits-sync demo
  benefits-sync demo --employees 20000 --edits-per-second 100 --for 1m
  benefits-sync demo --seed 7 --postgres 15
  benefits-sync demo --stay --port 54320 --config demo.toml     for the README's tutorial, in psql

Nothing outlives it: the PostgreSQL server and the platform are of its own, on free ports of 127.0.0.1. Ctrl-C ends the
edits early and shows the summary; a second one ends at once.
Exit codes: 0 HR and Benefits hold the same, 1 they do not, 2 bad usage, 3 PostgreSQL was not fetched.";

/// The options of `benefits-sync demo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Employees in the made-up HR database.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub employees: u32,
    /// Edits that HR makes a second, once everybody is synced.
    #[arg(long, value_name = "RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub edits_per_second: u32,
    /// How long HR goes on editing.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub length: Duration,
    /// The same seed makes the same people and the same edits. Default: another one each time, and shown.
    #[arg(long)]
    pub seed: Option<u64>,
    /// PostgreSQL's major version, 15 to 18. Default: the newest that has been fetched.
    #[arg(long, value_name = "MAJOR", value_parser = clap::value_parser!(u32).range(15..=18))]
    pub postgres: Option<u32>,
    /// Sync nobody and edit nothing: leave that to you, in psql, until Ctrl-C.
    #[arg(long)]
    pub stay: bool,
    /// PostgreSQL's port on 127.0.0.1. Default: any free one.
    #[arg(long)]
    pub port: Option<u16>,
    /// Write the configuration that it runs with to this new file, for status, doctor and preview; removed at the end.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The stage could not be set.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// PostgreSQL did not start.
    #[error("cannot start PostgreSQL")]
    Cluster(#[from] ClusterError),
    /// PostgreSQL refused the connection or the schema.
    #[error("cannot make the HR database")]
    Postgres(#[from] tokio_postgres::Error),
    /// PostgreSQL refused the people.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl StageError {
    /// Whether PostgreSQL has to be fetched first.
    pub fn is_not_fetched(&self) -> bool {
        matches!(self, Self::Cluster(ClusterError::Binaries(_) | ClusterError::NoUser))
    }
}

/// A PostgreSQL with an HR database full of people, before anything of ours is in it.
#[derive(Debug)]
pub struct Stage {
    /// The server; gone when this is dropped.
    pub cluster: Cluster,
    /// The HR database's URL, as the superuser.
    pub url: String,
    /// Who was loaded.
    pub loaded: Loaded,
    /// The rest of the supply, for [`edits::Edits`].
    pub people: People,
}

impl Stage {
    /// Starts a server and fills an HR database. `today` is the site's.
    pub async fn set(args: &Args, seed: u64, today: Date) -> Result<Self, StageError> {
        let binaries = match args.postgres {
            Some(major) => Binaries::find(major),
            None => Binaries::newest(),
        };
        let options =
            ClusterOptions { port: args.port, ..ClusterOptions::new(binaries.map_err(ClusterError::from)?) };
        // As a careful DBA has it, so that there is a headroom to be shown.
        let options = options.setting("max_slot_wal_keep_size", "4GB");
        let cluster = Cluster::start(options).await?;
        let admin = connect(&cluster.url("postgres")).await?;
        admin.batch_execute(&format!("create database {DATABASE}")).await?;
        let url = cluster.url(DATABASE);
        let mut client = connect(&url).await?;
        client.batch_execute(SCHEMA).await?;
        let mut people = People::new(seed, today);
        let count = usize::try_from(args.employees).unwrap_or(usize::MAX);
        let loaded = people::load(&mut client, &mut people, count).await?;
        Ok(Self { cluster, url, loaded, people })
    }
}

/// A connection that is driven until its client is dropped. The stage's own server only: without TLS.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its end is seen by the client as an error of the next query.
    drop(tokio::spawn(connection));
    Ok(client)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn without_options_two_thousand_people_are_edited_for_half_a_minute() {
        let args = Line::try_parse_from(["demo"]).unwrap().args;
        assert_eq!(
            (args.employees, args.edits_per_second, args.length),
            (2_000, 20, Duration::from_secs(30))
        );
        assert_eq!((args.seed, args.postgres), (None, None));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for option in ["--employees=0", "--edits-per-second=0", "--for=soon", "--postgres=14", "--port=0x"] {
            assert!(Line::try_parse_from(["demo", option]).is_err(), "{option}");
        }
    }
}
