//! The server's programs, run one after another, for [`Cluster`](super::Cluster).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::super::binaries::{Binaries, unprivileged};
use super::processes::{alive, children, signal, stat};
use super::{ClusterError, ClusterOptions, StopMode};

/// Longest wait for a start or a stop.
const PATIENCE: Duration = Duration::from_mins(1);

/// A data directory and the server on it. Everything here blocks.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) binaries: Binaries,
    pub(super) directory: PathBuf,
    pub(super) port: u16,
    pub(super) tcp: bool,
}

impl Server {
    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn socket(&self) -> String {
        self.directory.join("socket").display().to_string()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub(super) fn initialise(&self, options: &ClusterOptions) -> Result<(), ClusterError> {
        self.make_data(options)?;
        run("mkdir", unprivileged("mkdir").current_dir("/").arg(self.directory.join("socket")))?;
        let mut settings = format!(
            "listen_addresses = '{}'\nunix_socket_directories = '{}'\nwal_level = logical\nfsync = {}\n\
             max_replication_slots = 50\nmax_wal_senders = 50\nlog_line_prefix = '%m [%p] %d '\n",
            if self.tcp { "127.0.0.1" } else { "" },
            self.socket(),
            if options.fsync { "on" } else { "off" },
        );
        for (name, value) in &options.settings {
            settings.extend([name.as_str(), " = '", &value.replace('\'', "''"), "'\n"]);
        }
        self.append("postgresql.conf", &settings)?;
        if !options.hba.is_empty() {
            let trust = read(&self.data().join("pg_hba.conf"))?;
            self.write("pg_hba.conf", format!("{}\n{trust}", options.hba.join("\n")).as_bytes())?;
        }
        options.files.iter().try_for_each(|(name, content)| self.write(name, content))
    }

    /// A cluster that a crash of the machine destroys is made again, so its first files need no fsync.
    fn make_data(&self, options: &ClusterOptions) -> Result<(), ClusterError> {
        if let Some(url) = &options.copy_of {
            let mut backup = self.binaries.server("pg_basebackup");
            backup.args([
                "--dbname",
                url,
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "--pgdata",
            ]);
            return run("pg_basebackup", backup.arg(self.data())).map(drop);
        }
        let mut initdb = self.binaries.server("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args(&options.initdb).args(["--no-sync", "--no-instructions", "--pgdata"]);
        run("initdb", initdb.arg(self.data())).map(drop)
    }

    fn append(&self, name: &str, text: &str) -> Result<(), ClusterError> {
        let before = read(&self.data().join(name))?;
        self.write(name, format!("{before}\n{text}").as_bytes())
    }

    /// Writes a file of the data directory as the server's user, who must own it and alone may read it.
    fn write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        let path = self.data().join(name);
        let failed = |source| ClusterError::File { path: path.clone(), source };
        let mut command = unprivileged("sh");
        command
            .args(["-c", r#"umask 077; cat > "$1""#, "sh"])
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::piped());
        let mut writer = command.spawn().map_err(failed)?;
        if let Some(mut pipe) = writer.stdin.take() {
            io::Write::write_all(&mut pipe, content).map_err(failed)?;
        }
        let status = writer.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(failed(io::ErrorKind::PermissionDenied.into())) }
    }

    pub(super) fn start(&self) -> Result<(), ClusterError> {
        let port = format!("-p {}", self.port);
        self.control("start", &["-o", &port, "-l", &self.directory.join("log").display().to_string()])
    }

    pub(super) fn stop(&self, mode: StopMode) -> Result<(), ClusterError> {
        self.control("stop", &["-m", mode.name()])
    }

    pub(super) fn running(&self) -> bool {
        self.postmaster().is_some()
    }

    fn control(&self, action: &str, arguments: &[&str]) -> Result<(), ClusterError> {
        let mut command = self.binaries.server("pg_ctl");
        command.args([action, "-s", "-w", "-t", &PATIENCE.as_secs().to_string()]).args(arguments);
        run("pg_ctl", command.arg("-D").arg(self.data())).map(drop).map_err(|error| match error {
            ClusterError::Failed { program, output } => {
                let log = self.log();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                ClusterError::Failed {
                    program: format!("{program} {action}"),
                    output: output + &last.join("\n"),
                }
            }
            other => other,
        })
    }

    /// The postmaster's process id, where it runs.
    fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        alive(pid).then_some(pid)
    }

    pub(super) fn kill9(&self) -> Result<(), ClusterError> {
        let Some(postmaster) = self.postmaster() else { return Ok(()) };
        // Stopped first, it cannot replace the children that are killed before it, nor notice that they are.
        let mut victims = vec![postmaster];
        let failed = |source| ClusterError::Spawn { program: "kill".to_owned(), source };
        signal("STOP", &victims).map_err(failed)?;
        victims.extend(children(postmaster));
        signal("KILL", &victims).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        while victims.iter().any(|&pid| alive(pid)) {
            if Instant::now() > deadline {
                return Err(ClusterError::StillThere(PATIENCE));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Where process 1 collects no orphans (a container) the killed postmaster stays as a zombie, and the next start
        // would take it for a running server.
        if stat(postmaster).is_some() {
            let socket = self.directory.join(format!("socket/.s.PGSQL.{}.lock", self.port));
            for path in [self.data().join("postmaster.pid"), socket] {
                fs::remove_file(&path).map_err(|source| ClusterError::File { path, source })?;
            }
        }
        Ok(())
    }
}

/// Runs a program to its end; its failure is an error with what it said.
pub(super) fn run(name: &str, command: &mut Command) -> Result<Output, ClusterError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ClusterError::Spawn { program: name.to_owned(), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = if said.trim().is_empty() { output.status.to_string() } else { said };
    Err(ClusterError::Failed { program: name.to_owned(), output: said })
}

pub(super) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn read(path: &Path) -> Result<String, ClusterError> {
    fs::read_to_string(path).map_err(|source| ClusterError::File { path: path.to_owned(), source })
}
