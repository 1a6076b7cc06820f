//! One server for each major version, shared by all test processes.
//!
//! Under `target/tmp/postgres-<major>/` are
//! - `lock`: held while somebody starts, joins or stops the server;
//! - `running`: the running server's directory, port and `pg_ctl`, a line each;
//! - `users`: locked (shared) by every process that uses the server, so that its end lets go whatever way it ends.
//!
//! The first test that needs the server starts it, and `tests/postgres/watch` with it, which stops it once nobody has
//! used it for three minutes. `make test` stops it at its end with `tests/postgres/stop`.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use benefits_sync::demo::binaries::Binaries;
use benefits_sync::demo::cluster::Cluster;

/// A running server. While a process holds one, the server is not stopped.
#[derive(Debug)]
pub struct Server {
    pub major: u32,
    pub port: u16,
    pub binaries: Binaries,
    users: File,
}

impl Server {
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Puts the watchdog off for another while.
    pub fn touch(&self) {
        self.users.set_modified(SystemTime::now()).expect("target/tmp is writable");
    }
}

/// The server of a major version; started where it does not run yet. Blocks.
pub fn server(major: u32) -> &'static Server {
    static SERVERS: [OnceLock<Server>; 4] = [const { OnceLock::new() }; 4];
    static STARTING: Mutex<()> = Mutex::new(());
    let index = benefits_sync::demo::binaries::MAJORS
        .iter()
        .position(|&known| known == major)
        .expect("a known major");
    let server = SERVERS[index].get_or_init(|| {
        let _one_at_a_time = STARTING.lock();
        join(major)
    });
    server.touch();
    server
}

fn join(major: u32) -> Server {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{major}"));
    fs::create_dir_all(&directory).expect("target/tmp is writable");
    let lock = open(&directory.join("lock"));
    lock.lock().expect("a lock on target/tmp");
    let users = open(&directory.join("users"));
    users.lock_shared().expect("a lock on target/tmp");
    let running = directory.join("running");
    let binaries = super::options(major).binaries;
    let port = match port_of_running(&running) {
        Some(port) => port,
        None => start(major, &directory, &running),
    };
    // Closing `lock` lets go of it.
    Server { major, port, binaries, users }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("target/tmp is writable")
}

/// The port of the server that `running` names, where its postmaster is alive.
fn port_of_running(running: &Path) -> Option<u16> {
    let text = fs::read_to_string(running).ok()?;
    let mut lines = text.lines();
    let directory = PathBuf::from(lines.next()?);
    let port = lines.next()?.parse().ok()?;
    let pid = fs::read_to_string(directory.join("data/postmaster.pid")).ok()?;
    // Empty for a process that has ended and was not collected.
    let command = fs::read(Path::new("/proc").join(pid.lines().next()?.trim()).join("cmdline")).ok()?;
    (!command.is_empty()).then_some(port)
}

fn start(major: u32, directory: &Path, running: &Path) -> u16 {
    let mut options = super::options(major);
    options.detached = true;
    let cluster = Cluster::start_blocking(&options).unwrap_or_else(|error| panic!("{error}"));
    let pg_ctl = cluster.binaries().path("pg_ctl");
    let state = format!("{}\n{}\n{}\n", cluster.directory().display(), cluster.port(), pg_ctl.display());
    fs::write(running, state).expect("target/tmp is writable");
    // It outlives this process, and is collected by process 1.
    let watchdog = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/watch"))
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    drop(watchdog.expect("tests/postgres/watch starts"));
    cluster.port()
}
