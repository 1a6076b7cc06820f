//! Throw-away clusters for the replication tests: initdb, one server, a private CA.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use benefits_sync::postgres::{Session, Target, connect_sql};
use rcgen::SignatureAlgorithm;
use tempfile::TempDir;

use crate::support::certificates::{self, Certificates};

/// Where PostgreSQL's majors are, one directory each.
pub(crate) fn root() -> PathBuf {
    let named = std::env::var_os("BENEFITS_SYNC_POSTGRES");
    named.map_or_else(|| PathBuf::from("/var/cache/benefits-sync/postgresql"), PathBuf::from)
}

/// The majors to test on, of those that are there.
pub(crate) fn majors() -> Vec<u32> {
    let found: Vec<_> =
        (15..=18).filter(|major| root().join(major.to_string()).join("bin/postgres").exists()).collect();
    assert!(!found.is_empty(), "no PostgreSQL under {}", root().display());
    found.into_iter().filter(|major| crate::support::wanted(*major)).collect()
}

/// A running server. Stopped and removed when dropped.
pub(crate) struct Cluster {
    directory: TempDir,
    bin: PathBuf,
    pub(crate) major: u32,
    pub(crate) port: u16,
}

/// How a cluster differs from the usual.
#[derive(Default)]
pub(crate) struct Settings {
    /// Lines of `postgresql.conf`.
    pub(crate) config: Vec<&'static str>,
    /// Lines of `pg_hba.conf` for TCP; the unix socket is always trusted.
    pub(crate) hba: Vec<&'static str>,
    /// TLS with a certificate by this algorithm.
    pub(crate) tls: Option<&'static SignatureAlgorithm>,
}

pub(crate) fn start_cluster(major: u32, settings: &Settings) -> Cluster {
    let directory = tempfile::Builder::new().prefix("bs-it-").tempdir_in("/tmp").unwrap();
    let port = crate::support::port::own();
    let cluster = Cluster { directory, bin: root().join(major.to_string()).join("bin"), major, port };
    give_to_postgres(cluster.path());
    let data = cluster.path().join("data");
    cluster.run(
        "initdb",
        &["-D", data.to_str().unwrap(), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
    );
    let mut config = format!(
        "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
         max_wal_senders = 4\nmax_replication_slots = 4\n",
        cluster.path().display()
    );
    if !settings.config.iter().any(|line| line.starts_with("wal_level")) {
        config.push_str("wal_level = logical\n");
    }
    for line in &settings.config {
        writeln!(config, "{line}").unwrap();
    }
    if let Some(algorithm) = settings.tls {
        write_certificates(&cluster, algorithm);
        write!(
            config,
            "ssl = on\nssl_cert_file = '{0}/server.pem'\nssl_key_file = '{0}/server.key'\n",
            cluster.path().display()
        )
        .unwrap();
    }
    append(&data.join("postgresql.conf"), &config);
    let tcp = if settings.hba.is_empty() {
        "host all all 127.0.0.1/32 trust".to_owned()
    } else {
        settings.hba.join("\n")
    };
    fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{tcp}\n")).unwrap();
    cluster.pg_ctl(&["-w", "-l", cluster.path().join("log").to_str().unwrap(), "start"]);
    cluster
}

impl Cluster {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The CA's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// Through the unix socket, as the superuser.
    pub(crate) fn socket_url(&self) -> String {
        format!("postgresql://postgres@/postgres?host={}&port={}", self.path().display(), self.port)
    }

    /// Through TCP; `query` starts with `?` or is empty.
    pub(crate) fn tcp_url(&self, credentials: &str, query: &str) -> String {
        format!("postgresql://{credentials}@localhost:{}/postgres{query}", self.port)
    }

    pub(crate) fn target(&self) -> Target {
        Target::parse(&self.socket_url()).unwrap()
    }

    /// A superuser's session.
    pub(crate) async fn sql(&self) -> Session {
        connect_sql(&self.target(), "test", "-c statement_timeout=60s").await.unwrap()
    }

    pub(crate) fn pg_ctl(&self, arguments: &[&str]) {
        let data = self.path().join("data");
        self.run("pg_ctl", &[&["-D", data.to_str().unwrap()], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program, arguments).status().unwrap();
        let log = fs::read_to_string(self.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{program} {arguments:?}: {status}\n{log}");
    }

    /// PostgreSQL refuses to run as root.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(arguments)
            .current_dir("/")
            .env("LD_LIBRARY_PATH", self.bin.join("../lib"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path().join("data");
        drop(self.command("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "immediate", "stop"]).status());
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0
}

fn give_to_postgres(path: &Path) {
    if is_root() {
        assert!(Command::new("chown").args(["-R", "postgres"]).arg(path).status().unwrap().success());
    }
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

fn write_certificates(cluster: &Cluster, algorithm: &'static SignatureAlgorithm) {
    let Certificates { authority, server, key } = certificates::signed_by(algorithm);
    fs::write(cluster.ca(), authority).unwrap();
    fs::write(cluster.path().join("server.pem"), server.pem()).unwrap();
    let key_file = cluster.path().join("server.key");
    fs::write(&key_file, key.serialize_pem()).unwrap();
    fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    give_to_postgres(cluster.path());
}
