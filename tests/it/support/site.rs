//! A whole site: the demo's HR schema with a few people, described; a sandbox platform; and the pipeline, in this process
//! or in one of its own that can be killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use benefits_sync::config::Config;
use benefits_sync::demo::cluster::{Cluster, ClusterOptions};
use benefits_sync::demo::{self, people};
use benefits_sync::ledger::Session;
use benefits_sync::postgres::Target;
use benefits_sync::sandbox::{RunningSandbox, Sandbox, SandboxOptions};
use benefits_sync::{pipeline, setup};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::database::{TestDatabase, connect, database_on, database_prepared};
pub use super::process::Process;
use super::{port, private_cluster_with};

/// People in the HR schema of a [`Site`]: ids 1 to this.
pub const PEOPLE: i64 = 30;
/// How long anything may take that should be over in moments.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Site {
    pub database: TestDatabase,
    pub hr: Client,
    pub sandbox: RunningSandbox,
    pub directory: tempfile::TempDir,
    /// Appended to the configuration file; set before the pipeline starts.
    pub more: String,
    /// More lines of `[benefits]`.
    pub benefits: String,
    /// `benefits.email_source`.
    pub email_source: &'static str,
    /// `reconcile.time_zone`.
    pub time_zone: &'static str,
    /// Whether the pipeline logs in as `benefits_service` and `benefits_reader`, not as the superuser.
    pub logins: bool,
    /// The same within its `[database]`.
    pub more_of_database: String,
    /// The same within its `[ledger]`.
    pub more_of_ledger: String,
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
        let database = database_prepared(major, &content(), async |url| prepare(&url).await).await;
        Self::on(database, options).await
    }

    /// A site with employee 1 synced and nothing running, and a session on its ledger.
    pub async fn at_rest(major: u32) -> (Self, Arc<Session>) {
        let mut site = Self::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        let target = Target::parse(&site.database.url).unwrap();
        let session = Session::connect(&target, "test").await.unwrap();
        (site, session)
    }

    /// A site on a server of its own, which may be stopped, killed and written to at will.
    pub async fn apart(options: ClusterOptions, major: u32) -> (Cluster, Self) {
        let cluster = private_cluster_with(options).await;
        let database = database_on(&cluster, major).await;
        prepare(&database.url).await;
        let options =
            SandboxOptions { keep_bodies: true, journal_max: 1_000_000, ..SandboxOptions::default() };
        (cluster, Self::on(database, options).await)
    }

    /// A site on a database that is prepared already (see [`prepare`]).
    pub async fn on(database: TestDatabase, options: SandboxOptions) -> Self {
        let hr = connect(&database.url).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), &options.token).unwrap();
        let sandbox = Sandbox::new(options).start_at(([127, 0, 0, 1], port::own()).into()).await.unwrap();
        Self {
            database,
            hr,
            sandbox,
            directory,
            more: String::new(),
            benefits: String::new(),
            email_source: "work",
            time_zone: "Europe/London",
            logins: false,
            more_of_database: String::new(),
            more_of_ledger: String::new(),
            http: port::own(),
            running: None,
        }
    }

    /// The configuration file, written anew.
    pub fn config_file(&self) -> PathBuf {
        let directory = self.directory.path().display();
        let (url, replication) = if self.logins {
            let reader = self.database.url_as("benefits_reader");
            (self.database.url_as("benefits_service"), format!("replication_url = \"{reader}\"\n"))
        } else {
            (self.database.url.clone(), String::new())
        };
        let text = format!(
            "[database]\nurl = \"{}\"\n{}slot = \"{}\"\n{}[ledger]\nfingerprint_key_file = \"{directory}/key\"\n{}\
             [benefits]\nplatform_id = \"demo\"\nbase_url = \"{}\"\ntoken_file = \"{directory}/token\"\n\
             email_source = \"{}\"\n{}\n[reconcile]\ntime_zone = \"{}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n{}",
            url,
            replication,
            self.database.slot,
            self.more_of_database,
            self.more_of_ledger,
            self.sandbox.base_url(),
            self.email_source,
            self.benefits,
            self.time_zone,
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
        self.start_unready();
        self.until_ready().await;
        // The comparison of a first start tries the Failed again and marks people of its own: most tests begin after it.
        eventually("everyone was compared", async || {
            let sql = "select doubt is distinct from 'first-start' from benefits.site";
            self.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// Stops it in order and starts it again, without waiting until it is ready.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_unready();
    }

    /// Starts the pipeline in this process, without waiting until it is ready.
    pub fn start_unready(&mut self) {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(pipeline::run(self.config(), shutdown.clone()));
        self.running = Some(Running { shutdown, task });
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("the pipeline runs");
        running.shutdown.cancel();
        running.task.await.unwrap().unwrap();
    }

    /// Starts the program itself, to be killed. Its log is in `directory/log`.
    pub async fn spawn(&self) -> Process {
        let process = self.launch(|command| command);
        self.until_ready().await;
        process
    }

    /// As [`Site::spawn`], with fail points (see `src/failpoint.rs`), and without waiting: it may not live to be ready.
    pub fn spawn_armed(&self, failpoints: &str) -> Process {
        self.launch(|command| command.env("BENEFITS_SYNC_FAILPOINTS", failpoints))
    }

    /// As [`Site::spawn_armed`], with a platform at another address.
    pub fn spawn_at(&self, base_url: &str) -> Process {
        self.launch(|command| command.env("BENEFITS_SYNC_BENEFITS__BASE_URL", base_url))
    }

    /// Another instance of the same configuration, its pages at a port of its own.
    pub fn spawn_second(&self) -> Process {
        self.launch(|command| command.env("BENEFITS_SYNC_HTTP__LISTEN", "127.0.0.1:0"))
    }

    fn launch(&self, configure: impl FnOnce(&mut Command) -> &mut Command) -> Process {
        let path = self.directory.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
        command.arg("run").arg("--config").arg(self.config_file()).stdin(Stdio::null()).stderr(log);
        Process { child: configure(&mut command).spawn().unwrap() }
    }

    /// The process's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
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
            // The comparison of a first start marks people of its own.
            let sql = "select not exists (select from benefits.pending) and doubt is distinct from 'first-start' from benefits.site";
            self.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// As [`Site::settled`]; who is held may stay so.
    pub async fn settled_but_held(&self) {
        self.passed().await;
        eventually("nobody who is not held is pending", async || {
            let sql = "select count(*) from benefits.pending where hold_id is null";
            self.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
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

    /// `benefits.why`.
    pub async fn why(&self, id: &str) -> String {
        self.hr.query_one("select benefits.why($1)", &[&id]).await.unwrap().get(0)
    }

    /// Waits for an employee's state.
    pub async fn until_state(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), async || self.status(id).await.0 == state).await;
    }

    /// Runs SQL that has to be refused; the message and the hint.
    pub async fn refused(&self, sql: &str) -> (String, String) {
        let error = self.hr.batch_execute(sql).await.expect_err(sql);
        let error = error.as_db_error().unwrap();
        (error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
    }

    /// The work email that HR has.
    pub async fn email(&self, id: &str) -> String {
        let sql = "select address from hr.email where employee_id = $1::text::bigint and kind = 'work'";
        self.hr.query_one(sql, &[&id]).await.unwrap().get(0)
    }

    /// Gives an employee another work email.
    pub async fn set_email(&self, id: &str, address: &str) {
        let sql = "update hr.email set address = $2 where employee_id = $1::text::bigint and kind = 'work'";
        assert_eq!(self.hr.execute(sql, &[&id, &address]).await.unwrap(), 1);
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

/// The HR schema with its people, the ledger, the description.
pub async fn prepare(url: &str) {
    prepare_with(url, usize::try_from(PEOPLE).unwrap()).await;
}

/// The same with so many people.
pub async fn prepare_with(url: &str, count: usize) {
    let mut client = connect(url).await;
    client.batch_execute(demo::SCHEMA).await.unwrap();
    let today = jiff::civil::date(2026, 11, 1);
    let mut generator = people::People::new(7, today);
    people::load(&mut client, &mut generator, count).await.unwrap();
    // Nobody is flawed, and nobody is a starter: a test makes that where it needs it.
    client
        .batch_execute("update hr.employee set title = 'Mx' where title is null or title = ''")
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = setup_config(url, directory.path());
    setup::apply(&Target::parse(url).unwrap(), &config).await.unwrap();
    client.batch_execute(demo::DESCRIPTION).await.unwrap();
}

/// What setup is run with.
fn setup_config(url: &str, directory: &Path) -> Config {
    let text = format!(
        "[database]\nurl = \"{url}\"\n[ledger]\nfingerprint_key_file = \"{}/key\"\n[benefits]\nplatform_id = \"demo\"\n\
         base_url = \"http://127.0.0.1:1\"\ntoken_file = \"t\"\nemail_source = \"work\"\n",
        directory.display()
    );
    Config::parse(&text, "test", []).unwrap()
}

/// What [`prepare`] makes the template of; a change of any makes a new one.
fn content() -> String {
    let config = setup_config("postgres://postgres@localhost/any", Path::new("any"));
    let setup = setup::plan(&config).into_iter().map(|step| step.sql);
    let demo = [demo::SCHEMA, demo::DESCRIPTION, include_str!("site.rs")].map(str::to_owned);
    setup.chain(demo).collect()
}

/// Asks again and again, for [`PATIENCE`] at most.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
