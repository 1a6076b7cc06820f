//! A throw-away PostgreSQL cluster.
//!
//! [`Cluster::start`] makes a data directory, starts a server on a free port of 127.0.0.1 and on a Unix socket, and waits
//! until it answers. Dropping the cluster stops the server and removes the directory. That also happens when this process
//! panics or is killed: a supervisor (a shell in a process group of its own) waits for the end of a pipe that only this
//! process holds open, and then cleans up. Dropping merely closes the pipe early, so there is one way out and it is
//! always used.
//!
//! Everybody on the machine is trusted as `postgres` unless [`ClusterOptions::hba`] says otherwise: for demo and tests
//! only. All methods that wait do so on tokio's blocking threads.

mod processes;
mod server;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::binaries::{Binaries, BinariesError, is_root};
use server::{Server, run, succeeds};

/// Another process can take the free port between our look and the server's bind; then the next one is tried.
const PORT_ATTEMPTS: usize = 5;

/// Waits for the pipe's end, then stops the server and removes everything. `$1` is the directory, the rest is `pg_ctl`
/// with its arguments.
const SUPERVISOR: &str = r#"
    directory=$1
    shift
    cat >/dev/null
    [ -f "$directory/data/postmaster.pid" ] && "$@"
    rm -rf "$directory"
"#;

/// Why a cluster did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The programs are not there.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// Root, and nobody to run the server as.
    #[error(
        "PostgreSQL refuses to run as root and there is no user `postgres`: run tests/postgres/fetch as root"
    )]
    NoUser,
    /// A program could not be started at all.
    #[error("cannot run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// The program.
        program: String,
        /// What it and the server's log said last.
        output: String,
    },
    /// The port that was asked for is somebody else's.
    #[error("port {0} of 127.0.0.1 is taken: choose another")]
    PortTaken(u16),
    /// A file or directory of the cluster's could not be made or read.
    #[error("cannot use {path}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The killed server's processes are still there.
    #[error("the server's processes are still there {0:?} after they were killed")]
    StillThere(Duration),
    /// The runtime that was to wait for us has gone.
    #[error("the runtime was shut down")]
    Runtime(#[from] tokio::task::JoinError),
}

/// What sort of cluster is wanted.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The server's programs.
    pub binaries: Binaries,
    /// Settings for `postgresql.conf`, after the defaults (`wal_level = logical` and room for many slots).
    pub settings: Vec<(String, String)>,
    /// Lines for `pg_hba.conf`, before the ones that trust everybody on this machine.
    pub hba: Vec<String>,
    /// Files for the data directory (certificates, say), readable by the server only.
    pub files: Vec<(String, Vec<u8>)>,
    /// Further arguments of `initdb`.
    pub initdb: Vec<String>,
    /// The URL of a running server: the data directory is a base backup of it, in place of `initdb`'s. With
    /// `standby.signal` among the files and `primary_conninfo` among the settings it follows that server.
    pub copy_of: Option<String>,
    /// Listen on TCP; else on the Unix socket alone.
    pub tcp: bool,
    /// Which port; else any free one.
    pub port: Option<u16>,
    /// Whether writes reach the disk before they count.
    pub fsync: bool,
    /// Leave the server running when the cluster is dropped or this process ends; somebody else sees to it.
    pub detached: bool,
}

impl ClusterOptions {
    /// The defaults: TCP, fsync on, gone when dropped.
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            settings: Vec::new(),
            hba: Vec::new(),
            files: Vec::new(),
            initdb: Vec::new(),
            copy_of: None,
            tcp: true,
            port: None,
            fsync: true,
            detached: false,
        }
    }

    /// With one more setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Wait for clients to go.
    Smart,
    /// Disconnect clients, wait until replication has caught up, and write everything out.
    Fast,
    /// Abandon everything; the next start recovers.
    Immediate,
}

impl StopMode {
    const fn name(self) -> &'static str {
        match self {
            Self::Smart => "smart",
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// A server with a data directory of its own.
#[derive(Debug)]
pub struct Cluster {
    server: Arc<Server>,
    supervisor: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        tokio::task::spawn_blocking(move || Self::start_blocking(&options)).await?
    }

    /// As [`Cluster::start`], for callers without a runtime.
    pub fn start_blocking(options: &ClusterOptions) -> Result<Self, ClusterError> {
        if is_root() && !succeeds(Command::new("id").args(["-u", "postgres"])) {
            return Err(ClusterError::NoUser);
        }
        let directory = make_directory()?;
        // From here on a failure must leave nothing behind, so the supervisor comes first.
        let supervisor = supervise(&options.binaries, &directory)?;
        let mut cluster = Self {
            server: Arc::new(Server {
                binaries: options.binaries.clone(),
                directory,
                port: options.port.map_or_else(free_port, Ok)?,
                tcp: options.tcp,
            }),
            supervisor: Some(supervisor),
        };
        cluster.server.initialise(options)?;
        cluster.first_start(options.port)?;
        if options.detached {
            cluster.release();
        }
        Ok(cluster)
    }

    fn first_start(&mut self, wanted: Option<u16>) -> Result<(), ClusterError> {
        for _ in 1..PORT_ATTEMPTS {
            match self.server.start() {
                Err(ClusterError::Failed { output, .. }) if output.contains("could not bind") => {
                    if let Some(port) = wanted {
                        return Err(ClusterError::PortTaken(port));
                    }
                    let (binaries, directory) = (self.server.binaries.clone(), self.server.directory.clone());
                    let (port, tcp) = (free_port()?, self.server.tcp);
                    self.server = Arc::new(Server { binaries, directory, port, tcp });
                }
                other => return other,
            }
        }
        self.server.start()
    }

    /// Tells the supervisor to go without cleaning up.
    fn release(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            // It is our child and has not been waited for, so the kill cannot hit another process.
            let _already_gone = supervisor.kill();
            let _status = supervisor.wait();
        }
    }

    /// The URL of a database, as the superuser `postgres`.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of a database, as `user`.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        let Server { port, .. } = *self.server;
        if self.server.tcp {
            return format!("postgresql://{user}@127.0.0.1:{port}/{database}");
        }
        let socket = self.server.socket();
        let host = percent_encoding::utf8_percent_encode(&socket, percent_encoding::NON_ALPHANUMERIC);
        format!("postgresql://{user}@/{database}?host={host}&port={port}")
    }

    /// The port: of TCP, and in the socket's name.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The directory with the Unix socket.
    pub fn socket_directory(&self) -> PathBuf {
        self.server.directory.join("socket")
    }

    /// The directory that holds everything: `data`, `socket`, `log`.
    pub fn directory(&self) -> &Path {
        &self.server.directory
    }

    /// The programs this cluster runs from.
    pub fn binaries(&self) -> &Binaries {
        &self.server.binaries
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Stops the server. The data directory stays, and [`Cluster::restart`] starts it again.
    pub async fn stop(&self, mode: StopMode) -> Result<(), ClusterError> {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.stop(mode)).await?
    }

    /// Kills every process of the server at once, as a power cut would.
    pub async fn kill9(&self) -> Result<(), ClusterError> {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.kill9()).await?
    }

    /// Starts the server, on the same port; stops it first (fast) if it runs.
    pub async fn restart(&self) -> Result<(), ClusterError> {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || {
            if server.running() {
                server.stop(StopMode::Fast)?;
            }
            server.start()
        })
        .await?
    }

    /// Runs SQL in psql, stopping at the first error; returns what it printed (unaligned, rows only).
    pub async fn psql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        let (binaries, url, sql) = (self.server.binaries.clone(), self.url(database), sql.to_owned());
        tokio::task::spawn_blocking(move || psql(&binaries, &url, &Script::Text(sql))).await?
    }

    /// Runs a file in psql, stopping at the first error.
    pub async fn psql_file(&self, database: &str, file: &Path) -> Result<String, ClusterError> {
        let (binaries, url, file) = (self.server.binaries.clone(), self.url(database), file.to_owned());
        tokio::task::spawn_blocking(move || psql(&binaries, &url, &Script::File(file))).await?
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            let _status = supervisor.wait();
        }
    }
}

/// What psql is given to run.
#[derive(Debug)]
pub enum Script {
    /// SQL and psql's own commands.
    Text(String),
    /// A file of them.
    File(PathBuf),
}

/// Runs a script in psql against `url`, stopping at the first error; returns what it printed (unaligned, rows only).
pub fn psql(binaries: &Binaries, url: &str, script: &Script) -> Result<String, ClusterError> {
    let mut command = binaries.client("psql");
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
    command.env("PGOPTIONS", "-c client_min_messages=warning");
    let output = match script {
        Script::Text(sql) => run("psql", command.arg("-c").arg(sql))?,
        Script::File(path) => run("psql", command.arg("-f").arg(path))?,
    };
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// A new directory that the server's user owns, with a short path: a socket's may have 107 bytes.
fn make_directory() -> Result<PathBuf, ClusterError> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Root's own TMPDIR is seldom open to the server's user.
    let parent = if is_root() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("benefits-sync-{}-{number}-{:08x}", std::process::id(), rand::random::<u32>());
    let path = parent.join(name);
    let failed = |source| ClusterError::File { path: path.clone(), source };
    fs::DirBuilder::new().mode(0o755).create(&path).map_err(failed)?;
    // Whatever the umask: the socket and the log are for everybody here.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    if is_root() {
        run("chown", Command::new("chown").arg("postgres:").arg(&path))?;
    }
    Ok(path)
}

fn supervise(binaries: &Binaries, directory: &Path) -> Result<Child, ClusterError> {
    // The shell stays root where we are, so that it can remove what it did not make; pg_ctl does not.
    let mut stop = binaries.server("pg_ctl");
    stop.args(["stop", "-m", "immediate", "-w", "-t", "20", "-D"]).arg(directory.join("data"));
    let mut command = Command::new("sh");
    command.args(["-c", SUPERVISOR, "sh"]).arg(directory).arg(stop.get_program()).args(stop.get_args());
    command.envs(stop.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| ClusterError::Spawn { program: "sh".to_owned(), source })
}

fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| ClusterError::Spawn { program: "a listener on 127.0.0.1".to_owned(), source })
}
