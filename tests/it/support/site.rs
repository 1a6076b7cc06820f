//! A whole site: the demo's HR schema with a few people, described; a sandbox platform; and the pipeline, in this process
//! or in one of its own that can be killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use benefits_sync::config::Config;
use benefits_sync::demo::{self, people};
use benefits_sync::postgres::Target;
use benefits_sync::sandbox::{RunningSandbox, Sandbox, SandboxOptions};
use benefits_sync::{pipeline, setup};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::database::{TestDatabase, connect, database_prepared};

/// People in the HR schema of a [`Site`]: ids 1 to this.
pub const PEOPLE: i64 = 30;
/// How long anything may take that should be over in moments.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the template database is made of; a change of any makes a new one.
const CONTENT: &str = concat!(
    include_str!("../../../sql/setup/roles.sql"),
    include_str!("../../../sql/setup/schema.sql"),
    include_str!("../../../sql/migrations/001_ledger.sql"),
    include_str!("../../../sql/migrations/002_names.sql"),
    include_str!("../../../sql/migrations/003_description.sql"),
    include_str!("../../../sql/migrations/004_commands.sql"),
    include_str!("../../../sql/migrations/005_privileges.sql"),
    include_str!("../../../sql/migrations/007_reconcile.sql"),
    include_str!("../../../sql/demo/schema.sql"),
    include_str!("../../../sql/demo/describe.sql"),
    include_str!("site.rs"),
);

pub struct Site {
    pub database: TestDatabase,
    pub hr: Client,
    pub sandbox: RunningSandbox,
    pub directory: tempfile::TempDir,
    /// Appended to the configuration file; set before the pipeline starts.
    pub more: String,
    pub http: u16,
    running: Option<Running>,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), pipeline::RunError>>,
}

impl Site {
    /// A site on the shared server of this major version. Nothing runs yet.
    pub async fn new(major: u32) -> Self {
        Self::with(major, SandboxOptions { keep_bodies: true, ..SandboxOptions::default() }).await
    }

    pub async fn with(major: u32, options: SandboxOptions) -> Self {
        let database = database_prepared(major, CONTENT, async |url| prepare(&url).await).await;
        Self::on(database, options).await
    }

    /// A site on a database that is prepared already (see [`prepare`]).
    pub async fn on(database: TestDatabase, options: SandboxOptions) -> Self {
        let hr = connect(&database.url).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), &options.token).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            database,
            hr,
            sandbox: Sandbox::start(options).await.unwrap(),
            directory,
            more: String::new(),
            http: free,
            running: None,
        }
    }

    /// The configuration file, written anew.
    pub fn config_file(&self) -> PathBuf {
        let directory = self.directory.path().display();
        let text = format!(
            "[database]\nurl = \"{}\"\nslot = \"{}\"\n[ledger]\nfingerprint_key_file = \"{directory}/key\"\n\
             [benefits]\nplatform_id = \"demo\"\nbase_url = \"{}\"\ntoken_file = \"{directory}/token\"\n\
             email_source = \"work\"\n[http]\nlisten = \"127.0.0.1:{}\"\n{}",
            self.database.url,
            self.database.slot,
            self.sandbox.base_url(),
            self.http,
            self.more
        );
        let path = self.directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        setup::make_key(&self.directory.path().join("key")).unwrap();
        path
    }

    pub fn config(&self) -> Config {
        Config::load(&self.config_file()).unwrap()
    }

    /// Starts the pipeline in this process and waits until it is ready.
    pub async fn start(&mut self) {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(pipeline::run(self.config(), shutdown.clone()));
        self.running = Some(Running { shutdown, task });
        self.until_ready().await;
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("the pipeline runs");
        running.shutdown.cancel();
        running.task.await.unwrap().unwrap();
    }

    /// Starts the program itself, to be killed. Its log is in `directory/log`.
    pub async fn spawn(&self) -> Process {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .arg("run")
            .arg("--config")
            .arg(self.config_file())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process { child };
        self.until_ready().await;
        process
    }

    /// Waits for `/readyz` to answer 200.
    pub async fn until_ready(&self) {
        eventually("the pipeline is ready", async || self.get("/readyz").await.0 == 200).await;
    }

    /// Status and text of one of the pipeline's own pages; status 0 where nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        // A second installation is refused, and the first one serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
        match reqwest::get(format!("http://127.0.0.1:{}{path}", self.http)).await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    /// `benefits.sync`, and waits until nothing is pending.
    pub async fn sync(&self, ids: &[&str]) {
        self.hr.execute("select benefits.sync($1)", &[&ids]).await.unwrap();
        self.settled().await;
    }

    /// Waits until the reader has passed everything that is committed now, and nothing is pending.
    pub async fn settled(&self) {
        self.passed().await;
        eventually("nothing is pending", async || {
            let row = self.hr.query_one("select count(*) from benefits.pending", &[]).await.unwrap();
            row.get::<_, i64>(0) == 0
        })
        .await;
    }

    /// Waits until the slot has confirmed everything that is committed now.
    pub async fn passed(&self) {
        let row = self.hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap();
        let lsn: String = row.get(0);
        eventually("the slot has passed", async || {
            let sql = "select coalesce(bool_or(confirmed_flush_lsn >= $1::text::pg_lsn), false) \
                       from pg_replication_slots where slot_name = $2::text::name";
            self.hr.query_one(sql, &[&lsn, &self.database.slot]).await.unwrap().get(0)
        })
        .await;
    }

    /// `employee_status`: state and error code.
    pub async fn status(&self, id: &str) -> (String, Option<String>) {
        let sql = "select state, last_error_code from benefits.employee_status where employee_id = $1";
        let row = self.hr.query_one(sql, &[&id]).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// What the platform holds for an employee.
    pub fn held(&self, id: &str, field: &str) -> Option<String> {
        let account = self.sandbox.account_of(id).unwrap_or_else(|| panic!("{id} has no account"));
        account.get(field).map(ToOwned::to_owned)
    }

    /// History of an employee, oldest first: event, fields, error code.
    pub async fn history(&self, id: &str) -> Vec<(String, Vec<String>, Option<String>)> {
        let sql =
            "select event, fields, error_code from benefits.sync_history where employee_id = $1 order by at";
        let rows = self.hr.query(sql, &[&id]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }
}

/// The program in a process of its own; killed when dropped.
pub struct Process {
    pub child: Child,
}

impl Process {
    /// As the kernel does it: no chance to clean up.
    pub fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The HR schema with its people, the ledger, the description.
pub async fn prepare(url: &str) {
    let mut client = connect(url).await;
    client.batch_execute(demo::SCHEMA).await.unwrap();
    let today = jiff::civil::date(2026, 11, 1);
    let mut generator = people::People::new(7, today);
    people::load(&mut client, &mut generator, usize::try_from(PEOPLE).unwrap()).await.unwrap();
    // Nobody is flawed, and nobody is a starter: a test makes that where it needs it.
    client
        .batch_execute("update hr.employee set title = 'Mx' where title is null or title = ''")
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[database]\nurl = \"{url}\"\n[ledger]\nfingerprint_key_file = \"{}/key\"\n[benefits]\nplatform_id = \"demo\"\n\
         base_url = \"http://127.0.0.1:1\"\ntoken_file = \"t\"\nemail_source = \"work\"\n",
        directory.path().display()
    );
    let config = Config::parse(&text, "test", []).unwrap();
    setup::apply(&Target::parse(url).unwrap(), &config).await.unwrap();
    client.batch_execute(demo::DESCRIPTION).await.unwrap();
}

/// Asks again and again, for [`PATIENCE`] at most.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
