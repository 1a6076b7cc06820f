//! The demo from beginning to end: the stage, the set-up, the platform, the pipeline, a first sync, the edits, the verdict.
//!
//! The pipeline is the real one, in this process, under the two logins that a site would give it. What is shown comes from
//! the ledger's history; what is found at the end does not: see [`super::verdict`].

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::civil::{Date, date};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::edits::{self, Edits};
use super::follow::Follower;
use super::terminal::{Bar, Terminal};
use super::verdict;
use super::{Args, DESCRIPTION, Stage, connect};
use crate::config::{Config, EmailSource};
use crate::postgres::Target;
use crate::sandbox::{RunningSandbox, Sandbox, SandboxOptions, SeedAccount};
use crate::{pipeline, setup};

/// The site's time zone.
const TIME_ZONE: &str = "Europe/London";
/// With `--stay` the seed alone makes the people, whatever the day: the README's tutorial knows them.
const PEOPLE_ON: Date = date(2026, 11, 1);
/// Which email the demo's site sends.
const EMAIL: EmailSource = EmailSource::Work;
/// Of those that are synced, one in so many has registered at Benefits already.
const REGISTERED_ONE_IN: usize = 8;
/// Between two looks at the ledger.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the reader may take to come up.
const READY_MAX: Duration = Duration::from_mins(1);
/// How long what was edited last may take to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How long a reader that stops may take.
const STOP_MAX: Duration = Duration::from_secs(25);
/// Edits that may wait to be counted.
const EDITS_MAX: usize = 1_024;

type Out = Terminal<std::io::Stdout>;

/// Runs the demo. `stop` ends it early, with its summary. True: HR and Benefits are in step.
pub async fn run(args: &Args, stop: CancellationToken, bar: Bar) -> anyhow::Result<bool> {
    let mut out = Terminal::stdout(bar);
    let mut file = args.config.as_deref().map(Made::new).transpose()?;
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let today = if args.stay {
        PEOPLE_ON
    } else {
        jiff::Timestamp::now().in_tz(TIME_ZONE).context("there is no Europe/London")?.date()
    };
    out.step(&format!("Starting PostgreSQL and hiring {} employees (--seed {seed})", args.employees))?;
    let stage = Stage::set(args, seed, today).await?;
    out.step(&format!("PostgreSQL {} listens at {}", stage.cluster.binaries().major(), stage.url))?;
    let hr = connect(&stage.url).await?;
    let ids = to_sync(&hr).await?;
    let sandbox = platform(&hr, &ids, seed).await?;
    out.step(&format!("A Benefits platform listens at {}", sandbox.base_url()))?;
    let text = configuration(&stage, &sandbox, args.stay)?;
    if let Some(made) = &mut file {
        made.write(&text)?;
    }
    let config = Config::parse(&text, "the demo's configuration", [])?;
    setup::apply(&Target::parse(&stage.url)?, &config).await?;
    hr.batch_execute(DESCRIPTION).await.context("cannot describe the HR schema")?;
    out.step(&format!("benefits-sync is set up and runs; metrics at http://{}/metrics", config.http.listen))?;
    let mut show = Show { running: Running::start(config), hr, sandbox, out, stop };
    show.ready().await?;
    if args.stay {
        show.stay(&stage, args.config.as_deref()).await?;
        show.running.stop().await?;
        return Ok(true);
    }
    show.first_sync(&ids).await?;
    let client = connect(&stage.url).await?;
    let loaded = i64::try_from(stage.loaded.employees).unwrap_or(i64::MAX);
    let edits = Edits::new(client, stage.people, &stage.loaded, seed.wrapping_add(1), today);
    let mut follower = show.edits(edits, args).await?;
    let settled = show.settle(&mut follower).await?;
    let verdict = verdict::judge(&show.hr, &show.sandbox, EMAIL, &ids, loaded).await?;
    show.out.summary(&verdict, settled)?;
    let in_step = settled && verdict.differences.is_empty();
    if !in_step {
        show.out.step(&format!("The same people and the same edits again: --seed {seed}"))?;
    }
    show.running.stop().await?;
    Ok(in_step)
}

/// Every other employee.
async fn to_sync(hr: &Client) -> anyhow::Result<Vec<String>> {
    let sql = "select id::text from hr.employee where id % 2 = 1 order by id";
    Ok(hr.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// A platform where some of the employees have registered by themselves, in their own spelling of their email.
async fn platform(hr: &Client, ids: &[String], seed: u64) -> anyhow::Result<RunningSandbox> {
    let sandbox = Sandbox::new(SandboxOptions { seed, ..SandboxOptions::default() });
    let registered: Vec<&str> = ids.iter().step_by(REGISTERED_ONE_IN).map(String::as_str).collect();
    let sql = "select upper(left(address, 1)) || substr(address, 2) from hr.email
               where employee_id = any($1::text[]::bigint[]) and kind = 'work'";
    for row in hr.query(sql, &[&registered]).await? {
        sandbox.seed(SeedAccount::new(row.get(0)))?;
    }
    sandbox.start_here().await.context("the simulated platform cannot listen")
}

/// The file of `--config` cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("--config {path}: {reason}")]
pub struct ConfigFileError {
    path: String,
    reason: String,
}

/// A file that was not there before, and goes when this does.
struct Made {
    path: PathBuf,
    file: File,
}

impl Made {
    fn new(path: &Path) -> Result<Self, ConfigFileError> {
        let file = File::create_new(path).map_err(|error| ConfigFileError {
            path: path.display().to_string(),
            reason: match error.kind() {
                ErrorKind::AlreadyExists => {
                    "there is such a file, and the demo's is removed at its end: name another".to_owned()
                }
                _ => error.to_string(),
            },
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Somebody who has removed it already is as well.
        drop(std::fs::remove_file(&self.path));
    }
}

/// As a site would have it, under the two logins that `setup` makes. The demo's own edits may end anybody's employment;
/// a person's are guarded as they would be at a site.
fn configuration(stage: &Stage, sandbox: &RunningSandbox, stay: bool) -> anyhow::Result<String> {
    // The cluster's directory goes when the cluster does.
    let directory = stage.cluster.directory();
    let token = directory.join("token");
    std::fs::write(&token, SandboxOptions::default().token).context("cannot write the token")?;
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?;
    let guard = if stay { "" } else { "[guard]\nfraction = 1.0\nminimum = 1000000\n" };
    Ok(format!(
        "[database]\nurl = \"{service}\"\nreplication_url = \"{reader}\"\n\
         [ledger]\nfingerprint_key_file = '{key}'\n\
         [benefits]\nplatform_id = \"{platform}\"\nbase_url = \"{base_url}\"\ntoken_file = '{token}'\n\
         email_source = \"work\"\n{guard}[reconcile]\ntime_zone = \"{TIME_ZONE}\"\n[http]\nlisten = \"{free}\"\n",
        service = stage.cluster.url_as("benefits_service", super::DATABASE),
        reader = stage.cluster.url_as("benefits_reader", super::DATABASE),
        key = directory.join("key").display(),
        platform = SandboxOptions::default().platform_id,
        base_url = sandbox.base_url(),
        token = token.display(),
    ))
}

/// The pipeline, in this process.
struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), pipeline::RunError>>,
}

impl Running {
    fn start(config: Config) -> Self {
        let shutdown = CancellationToken::new();
        Self { task: tokio::spawn(pipeline::run(config, shutdown.clone())), shutdown }
    }

    /// An error where it has ended by itself.
    async fn check(&mut self) -> anyhow::Result<()> {
        if !self.task.is_finished() {
            return Ok(());
        }
        (&mut self.task).await??;
        bail!("the pipeline has ended by itself")
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        tokio::time::timeout(STOP_MAX, &mut self.task).await.context("the pipeline does not stop")???;
        Ok(())
    }
}

/// Left in a hurry: the pipeline must not see the server go, and complain.
impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Show {
    running: Running,
    hr: Client,
    sandbox: RunningSandbox,
    out: Out,
    stop: CancellationToken,
}

impl Show {
    /// Waits for the stream. What is asked for before it is there would have to wait for a comparison of everyone.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let sql = "select exists (
            select from pg_stat_replication as r inner join pg_replication_slots as s on s.active_pid = r.pid
            where r.state in ('catchup', 'streaming'))";
        let began = Instant::now();
        while !self.hr.query_one(sql, &[]).await?.get::<_, bool>(0) {
            self.running.check().await?;
            if began.elapsed() > READY_MAX {
                bail!("the pipeline reads no stream after {READY_MAX:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Leaves everything to a person in psql, until stopped.
    async fn stay(&mut self, stage: &Stage, config: Option<&Path>) -> anyhow::Result<()> {
        self.out.step("Yours until Ctrl-C: nobody is synced yet. In another terminal:")?;
        self.out.line(&format!("psql {}", stage.url))?;
        let fetched = stage.cluster.binaries();
        self.out.line(&format!("(without one of your own: {})", fetched.path("psql").display()))?;
        if let Some(path) = config {
            self.out.line(&format!("benefits-sync status --config {}", path.display()))?;
        }
        let mut look = tokio::time::interval(LOOK_EVERY);
        while self.stop.run_until_cancelled(look.tick()).await.is_some() {
            self.running.check().await?;
        }
        Ok(())
    }

    /// Syncs half of the people, and shows how far that is.
    async fn first_sync(&mut self, ids: &[String]) -> anyhow::Result<()> {
        let all = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        self.out
            .step(&format!("First sync of {all} employees: select benefits.sync(array['1', '3', ...])"))?;
        let began = Instant::now();
        self.hr.query("select benefits.sync($1)", &[&ids]).await.context("cannot ask for the first sync")?;
        loop {
            let waiting = self.waiting().await?;
            self.out.progress(all.saturating_sub(waiting), all)?;
            if waiting == 0 || self.stop.is_cancelled() {
                break;
            }
            self.running.check().await?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let sql = "select event, count(*) from benefits.history
                   where event in ('created', 'linked', 'rejected') group by event order by event";
        let rows = self.hr.query(sql, &[]).await?;
        let count = |event: &str| -> i64 {
            rows.iter().find(|row| row.get::<_, &str>(0) == event).map_or(0, |row| row.get(1))
        };
        self.out.step(&format!(
            "{} created, {} linked to the account they had, {} refused, in {:.1} s",
            count("created"),
            count("linked"),
            count("rejected"),
            began.elapsed().as_secs_f64()
        ))?;
        Ok(())
    }

    /// Employees who are asked for or pending.
    async fn waiting(&self) -> anyhow::Result<u64> {
        let sql = "select (select count(*) from benefits.request) + (select count(*) from benefits.pending)";
        Ok(u64::try_from(self.hr.query_one(sql, &[]).await?.get::<_, i64>(0)).unwrap_or(0))
    }

    /// HR edits, and what is delivered is shown.
    async fn edits(&mut self, edits: Edits, args: &Args) -> anyhow::Result<Follower> {
        let mut follower = Follower::start(&self.hr).await?;
        if self.stop.is_cancelled() {
            return Ok(follower);
        }
        let length = humantime::format_duration(args.length);
        self.out.step(&format!(
            "HR edits {} records a second for {length} (Ctrl-C ends it)",
            args.edits_per_second
        ))?;
        let (made, mut seen) = mpsc::channel(EDITS_MAX);
        let stop = self.stop.child_token();
        let editing = tokio::spawn(edits::run(edits, args.edits_per_second, stop.clone(), made));
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (began, mut over) = (Instant::now(), std::pin::pin!(tokio::time::sleep(args.length)));
        loop {
            tokio::select! {
                () = &mut over, if !stop.is_cancelled() => stop.cancel(),
                edit = seen.recv() => match edit {
                    Some(edit) => self.out.edit(&edit),
                    None => break,
                },
                _ = look.tick() => {
                    self.running.check().await?;
                    self.show_new(&mut follower, false).await?;
                }
            }
        }
        self.out.edited_for(began.elapsed());
        editing.await??;
        Ok(follower)
    }

    async fn show_new(&mut self, follower: &mut Follower, all: bool) -> anyhow::Result<()> {
        for delivery in follower.read(&self.hr, all).await? {
            self.out.delivery(&delivery)?;
        }
        Ok(())
    }

    /// Waits until the slot has passed the last edit and nothing is pending; false where that takes too long.
    async fn settle(&mut self, follower: &mut Follower) -> anyhow::Result<bool> {
        let last: String = self.hr.query_one("select pg_current_wal_lsn()::text", &[]).await?.get(0);
        let sql = "select coalesce(bool_or(confirmed_flush_lsn >= $1::text::pg_lsn), false) from pg_replication_slots";
        let began = Instant::now();
        let settled = loop {
            let passed: bool = self.hr.query_one(sql, &[&last]).await?.get(0);
            // In this order: what the slot has passed is pending by then, if it matters.
            if passed && self.waiting().await? == 0 {
                break true;
            }
            if began.elapsed() > SETTLE_MAX {
                break false;
            }
            self.running.check().await?;
            self.show_new(follower, false).await?;
            tokio::time::sleep(LOOK_EVERY).await;
        };
        self.show_new(follower, true).await?;
        Ok(settled)
    }
}
