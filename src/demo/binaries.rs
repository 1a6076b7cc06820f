//! Where PostgreSQL's programs are, and how one is started.
//!
//! `tests/postgres/fetch` unpacks a server for each major version under one root; this module looks in the same places:
//! `$BENEFITS_SYNC_POSTGRES`, or else `/var/cache/benefits-sync/postgresql` for root and
//! `${XDG_CACHE_HOME:-~/.cache}/benefits-sync/postgresql` for anybody else. The servers need their own `lib` directory
//! before the system's (a standby would load the system's libpq), and refuse to run as root: [`Binaries::server`] sees
//! to both.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The major versions that are supported, oldest first.
pub const MAJORS: [u32; 4] = [15, 16, 17, 18];

/// Why no server can be started from here.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// This major version has not been fetched.
    #[error("PostgreSQL {major} is not in {root}: run tests/postgres/fetch {major}")]
    Missing {
        /// The major version asked for.
        major: u32,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// No major version has been fetched.
    #[error("there is no PostgreSQL in {root}: run tests/postgres/fetch 18")]
    None {
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Neither `$BENEFITS_SYNC_POSTGRES` nor a home directory is set.
    #[error("cannot tell where PostgreSQL is: set BENEFITS_SYNC_POSTGRES or HOME")]
    NoRoot,
}

/// The programs of one major version.
#[derive(Debug, Clone)]
pub struct Binaries {
    major: u32,
    home: PathBuf,
}

impl Binaries {
    /// The programs of `major`, from the default root.
    pub fn find(major: u32) -> Result<Self, BinariesError> {
        Self::find_in(&root()?, major)
    }

    /// The programs of `major`, from `root`.
    pub fn find_in(root: &Path, major: u32) -> Result<Self, BinariesError> {
        let home = root.join(major.to_string());
        if home.join("bin/postgres").is_file() {
            Ok(Self { major, home })
        } else {
            Err(BinariesError::Missing { major, root: root.to_owned() })
        }
    }

    /// The newest major version that has been fetched.
    pub fn newest() -> Result<Self, BinariesError> {
        let root = root()?;
        MAJORS
            .into_iter()
            .rev()
            .find_map(|major| Self::find_in(&root, major).ok())
            .ok_or(BinariesError::None { root })
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Where `name` (such as `pg_basebackup`) is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join("bin").join(name)
    }

    /// A command for one of the client programs, run as the present user.
    pub fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        self.prepare(&mut command);
        command
    }

    /// A command for one of the server's programs, run as `postgres` where the present user is root.
    pub fn server(&self, name: &str) -> Command {
        let mut command = unprivileged(self.path(name));
        self.prepare(&mut command);
        // The present directory may be closed to the other user.
        command.current_dir("/");
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", self.home.join("lib"));
        // A PGDATA, PGPORT or PGOPTIONS of the user's own cluster must not reach ours.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    }
}

/// `program`, run as `postgres` where the present user is root.
pub(super) fn unprivileged(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Whether this process runs as root.
pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn root() -> Result<PathBuf, BinariesError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = variable("BENEFITS_SYNC_POSTGRES") {
        return Ok(root);
    }
    if is_root() {
        return Ok(PathBuf::from("/var/cache/benefits-sync/postgresql"));
    }
    variable("XDG_CACHE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("benefits-sync/postgresql"))
        .ok_or(BinariesError::NoRoot)
}
