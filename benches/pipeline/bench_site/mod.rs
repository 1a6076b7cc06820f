//! The site that is measured: one wide table, half of it synced, on a cluster of its own with fsync on.

mod cost;
mod process;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use benefits_sync::config::Config;
use benefits_sync::demo::binaries::Binaries;
use benefits_sync::demo::cluster::{Cluster, ClusterOptions};
use benefits_sync::postgres::Target;
use benefits_sync::setup;
use tokio_postgres::{Client, NoTls};

pub use self::cost::Cost;
pub use self::process::Process;
use crate::platform::Seen;

/// People who are not synced: whose changes are noise.
const STRANGERS: u64 = 50_000;
const SLOT: &str = "bench";
const FLOOR: &str = "bench_floor";

const SCHEMA: &str = include_str!("schema.sql");

const DESCRIPTION: &str = "
select benefits.describe_record($$
    select id as employee_id, title, forenames, surname, date_of_birth, gender, email as work_email, mobile, annual_pay,
        pay_basis, pay_frequency, pay_change_reason
    from hr.person $$);
select benefits.describe_source('hr.person', employee_key => 'id');
";

/// What employees are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    Bigint,
    Uuid,
}

impl Keys {
    fn type_name(self) -> &'static str {
        match self {
            Self::Bigint => "bigint",
            Self::Uuid => "uuid",
        }
    }

    /// The key of the `n`th person, in SQL.
    fn of(self, n: &str) -> String {
        match self {
            Self::Bigint => n.to_owned(),
            Self::Uuid => format!("md5({n}::text)::uuid"),
        }
    }
}

pub struct BenchSite {
    cluster: Cluster,
    client: Client,
    directory: tempfile::TempDir,
    keys: Keys,
    pub employees: u64,
    tag: std::sync::atomic::AtomicU64,
}

impl BenchSite {
    pub async fn new(employees: u64, keys: Keys) -> Self {
        let binaries = Binaries::newest().expect("tests/postgres/fetch 18");
        let options = ClusterOptions::new(binaries)
            .setting("fsync", "on")
            .setting("max_wal_size", "8GB")
            // The tables of a million employees fit, as a DBA would see to.
            .setting("shared_buffers", "2GB")
            .setting("checkpoint_timeout", "30min");
        let cluster = Cluster::start(options).await.expect("a cluster");
        let client = connect(&cluster.url("postgres")).await;
        client.batch_execute(&SCHEMA.replace("{key}", keys.type_name())).await.unwrap();
        let people = format!(
            "insert into hr.person select {}, g, 'Ms', 'Ann', 'Smith', '1980-01-01', 'Female', 'p' || g || '@example.com', \
             null, 30000 + g % 50000, 'Annual', 'Monthly', 'Annual review' from generate_series(1, {}) as g; \
             analyze; checkpoint;",
            keys.of("g"),
            employees + STRANGERS
        );
        client.batch_execute(&people).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "bench").unwrap();
        let site = Self { cluster, client, directory, keys, employees, tag: 1_000_000_000.into() };
        let config = Config::load(&site.config("http://127.0.0.1:1/api/v1", 0, "")).unwrap();
        let admin = Target::parse(&site.url()).unwrap();
        setup::apply(&admin, &config).await.unwrap();
        site.client.batch_execute(DESCRIPTION).await.unwrap();
        let floor = format!("select pg_create_logical_replication_slot('{FLOOR}', 'pgoutput')");
        site.client.batch_execute(&floor).await.unwrap();
        site
    }

    fn url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// A configuration, on disk, with this platform.
    pub fn config(&self, platform: &str, http: u16, more: &str) -> std::path::PathBuf {
        let directory = self.directory.path().display();
        let text = format!(
            "[database]\nurl = \"{}\"\nslot = \"{SLOT}\"\n[ledger]\nfingerprint_key_file = \"{directory}/key\"\n\
             [benefits]\nplatform_id = \"bench\"\nbase_url = \"{platform}\"\ntoken_file = \"{directory}/token\"\n\
             email_source = \"work\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n[log]\nlevel = \"warn\"\n{more}",
            self.url()
        );
        let path = self.directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the program, without waiting.
    pub fn start(&self, platform: &str, more: &str) -> Process {
        let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .arg("run")
            .arg("--config")
            .arg(self.config(platform, http, more))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Process { child, http }
    }

    /// Starts the program and waits until it says that it is ready: it streams, with everybody's membership known.
    pub async fn run(&self, platform: &str, more: &str) -> Process {
        let process = self.start(platform, more);
        until(async || process.is_ready().await).await;
        process
    }

    pub async fn sync_everyone(&self) {
        let sql = format!(
            "select benefits.sync(array(select ({})::text from generate_series(1, {}) as g))",
            self.keys.of("g"),
            self.employees
        );
        self.client.batch_execute(&sql).await.unwrap();
    }

    pub async fn change_everyone(&self, rows: u64, round: u64) {
        self.call(&format!("hr.change({}, {rows}, 'r{rows}x{round}-')", self.employees)).await;
        self.client.batch_execute("checkpoint").await.unwrap();
    }

    /// Single-row transactions of the first so many employees.
    pub async fn change_some(&self, employees: u64, round: u64) {
        self.call(&format!("hr.change({employees}, 1, 's{round}-')")).await;
    }

    /// Changes of the first so many employees in turn, by commits of their own; the tag of each one's last.
    pub async fn hot_changes(&self, changes: u64, employees: u64) -> u64 {
        let first = self.tag.fetch_add(changes, Ordering::Relaxed);
        self.call(&format!("hr.hot({changes}, {employees}, {first})")).await;
        first + changes / employees - 1
    }

    async fn call(&self, procedure: &str) {
        for statement in
            ["set synchronous_commit = off", &format!("call {procedure}"), "reset synchronous_commit"]
        {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    /// Everybody linked, as after a first sync that nobody made; what the platform holds is not known. What autovacuum would do of
    /// so many new rows, at a time of its own, is done here.
    pub async fn link_everyone(&self) {
        let sql = format!(
            "insert into benefits.employee (employee_id) select g::text from generate_series(1, {0}) as g on conflict do nothing; \
             insert into benefits.enrolment (employee_id, platform_id, benefits_id, linked, requested_by, outcome) \
             select g::text, 'bench', 'b' || g, true, 'bench', 'successful' from generate_series(1, {0}) as g; \
             vacuum analyze; checkpoint",
            self.employees
        );
        for statement in sql.split("; ") {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    /// Until the comparison of a first start is over.
    pub async fn until_compared(&self) {
        until(async || {
            let sql = "select doubt is null from benefits.site";
            self.client.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// Statements of the scene's own, one by one: some cannot run together with others.
    pub async fn run_statements(&self, statements: &[&str]) {
        for statement in statements {
            self.client.batch_execute(statement).await.unwrap();
        }
    }

    /// The milliseconds that a question takes, rows fetched: the median of eleven.
    pub async fn question_ms(&self, sql: &str) -> f64 {
        let mut times = Vec::new();
        for _ in 0..11 {
            let started = Instant::now();
            self.client.query(sql, &[]).await.unwrap();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        median(&mut times)
    }

    /// Another session with a snapshot that stays open until it is dropped.
    pub async fn old_snapshot(&self) -> Client {
        let holder = connect(&self.url()).await;
        holder.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
        holder
    }

    /// WAL bytes that the slot has not confirmed, and that it keeps from being removed.
    pub async fn wal_behind(&self) -> (u64, u64) {
        let sql = format!(
            "select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::float8, \
             pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 from pg_replication_slots where slot_name = '{SLOT}'"
        );
        let row = self.client.query_one(&sql, &[]).await.unwrap();
        (row.get::<_, f64>(0) as u64, row.get::<_, f64>(1) as u64)
    }

    pub async fn make_noise(&self, changes: u64, round: u64) {
        self.call(&format!("hr.noise({changes}, {}, {STRANGERS}, 'n{round}-')", self.employees)).await;
        self.client.batch_execute("checkpoint").await.unwrap();
    }

    /// One change with a tag that the platform sees; when its commit was acknowledged.
    pub async fn tagged_change(&self, employee: u64) -> (u64, Instant) {
        let tag = self.tag.fetch_add(1, Ordering::Relaxed);
        let sql = format!("update hr.person set mobile = '{tag}' where n = {employee}");
        self.client.batch_execute(&sql).await.unwrap();
        (tag, Instant::now())
    }

    /// Seconds that `pg_recvlogical` takes for what its slot has not seen.
    pub async fn floor(&self) -> f64 {
        let end: String =
            self.client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
        let started = Instant::now();
        let status = self
            .cluster
            .binaries()
            .client("pg_recvlogical")
            .args(["-d", &self.url(), "-S", FLOOR, "--start", "-f", "/dev/null", "-E", &end, "--no-loop"])
            .args(["-o", "proto_version=4", "-o", "publication_names=benefits_sync", "-o", "streaming=on"])
            .status()
            .unwrap();
        assert!(status.success(), "pg_recvlogical");
        started.elapsed().as_secs_f64()
    }

    /// Until the platform has seen so many writes.
    pub async fn until_writes(&self, seen: &Seen, count: u64) {
        until(async || seen.writes.load(Ordering::Relaxed) >= count).await;
    }

    /// Where the WAL ends now.
    pub async fn wal_end(&self) -> String {
        self.client.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0)
    }

    /// Until the slot has confirmed everything up to here.
    pub async fn until_confirmed(&self, end: &str) {
        until(async || {
            let sql = format!(
                "select confirmed_flush_lsn >= '{end}' from pg_replication_slots where slot_name = '{SLOT}'"
            );
            self.client.query_one(&sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// Until the slot has confirmed everything.
    pub async fn until_passed(&self) {
        let end = self.wal_end().await;
        self.until_confirmed(&end).await;
    }

    /// Until the slot has confirmed everything and nothing is pending.
    pub async fn until_settled(&self) {
        self.until_passed().await;
        self.until_nothing_is_pending().await;
    }

    pub async fn until_nothing_is_pending(&self) {
        until(async || {
            let sql = "select not exists (select from benefits.pending) and not exists (select from benefits.request)";
            self.client.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// What autovacuum does within a minute of a first sync, for scenes that would begin before it.
    pub async fn vacuum(&self) {
        self.client.batch_execute("vacuum").await.unwrap();
    }

    /// Until the slot need not be read from further back than here when it is read next: a slot that is read all day is
    /// seconds behind in that, and the scenes' are as far behind as the scene before was long.
    pub async fn rest(&self) {
        self.client.batch_execute("checkpoint").await.unwrap();
        self.until_passed().await;
    }

    /// The time of a commit that waits for the disk.
    pub async fn fsync_ms(&self) -> f64 {
        self.client.batch_execute("create table if not exists hr.tick (n bigint)").await.unwrap();
        let mut times = Vec::new();
        for _ in 0..50 {
            let started = Instant::now();
            self.client.batch_execute("insert into hr.tick values (1)").await.unwrap();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        median(&mut times)
    }
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_mins(5), "a scene does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // It ends with the cluster at the latest.
    tokio::spawn(async move { drop(connection.await) });
    client
}
