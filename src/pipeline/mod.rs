//! The pipeline: wires the stages together and keeps them running. Read this first.
//!
//! ```text
//!            ┌──────────────── reader session ────────────────┐        ┌────── delivery session ───────┐
//!  WAL ────▶ │ Stream ─▶ pgoutput ─▶ Selector ─▶ channel ─▶    │ notice │ Dispatcher ─▶ courier ─▶ HTTP │ ────▶ Benefits
//!            │    ▲                              Marker ───────┼───────▶│                               │
//!            │    └── confirmed LSN ◀── PersistedLsn ┘         │        └───────────────────────────────┘
//!            └─────────────────────────────────────────────────┘           observer: gauges
//!                                    │                                      reconcile: doubt, midnight
//!                                    ▼  both keep everything in the ledger: either may die at any instant
//! ```
//!
//! A change goes one of two ways. While the platform answers at once the marker hands commits to delivery as they are, and
//! they are confirmed when delivery has recorded their employees (see [`crate::ledger::in_hand`]); a mass change goes whole,
//! and behind everybody else. Everything else, and whatever is not delivered within a moment, is marked in the ledger first
//! and confirmed at once.
//!
//! Reader and delivery are sessions: any error ends the whole session, and after a pause a new one starts from what is
//! durable. There is no other recovery, so that a crash, a failover and a restart all take the path that is used daily.

mod clock;
mod health;
mod making;
mod marker;
mod observer;
mod pulse;
mod reader;
mod slot;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use health::{Health, NotReady};
pub use pulse::{Pulse, Stalled, TURNS_OVER_MAX, Task};
pub use start::{
    CheckError, Looked, StartError, Started, check_once, connect, fingerprint_key, look, targets,
};

use crate::config::Config;
use crate::delivery::appetite::Appetite;
use crate::delivery::dispatch::{DeliveryError, Dispatcher, Notice, Outfit, SWITCHED_OFF, show_halt};
use crate::delivery::retry::Schedule;
use crate::http;
use crate::ledger::{Session, TransactionUsers, Witness};
use crate::metrics::{Metrics, MetricsError};
use crate::postgres::Target;
use crate::reconcile;
use crate::systemd::Systemd;

/// Notices that may wait; a dispatcher that is behind finds the rest by its scan.
const NOTICES_MAX: usize = 1024;
/// How long a graceful stop waits for what is under way.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between two looks at whether it is still shown that delivery is switched off.
const SHOW_EVERY: Duration = Duration::from_secs(30);

/// Why an instance could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Found at the start: a setting or the set-up has to be changed.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address for metrics and health is taken.
    #[error("cannot listen on {address} (http.listen): {reason}")]
    Listen {
        /// `http.listen`.
        address: std::net::SocketAddr,
        /// The operating system's reason.
        reason: String,
    },
    /// A defect in the metrics' names.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Runs an instance until `shutdown`. PostgreSQL or the platform being away is no reason to return.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let systemd = Systemd::from_environment();
    systemd.status("waiting for PostgreSQL");
    let instance = Instance {
        witness: Arc::new(start::look_at_files(&config)?),
        config: Arc::new(config),
        metrics: Metrics::new()?,
        health: Arc::new(Health::new()),
        shutdown,
    };
    let (health, shutdown) = (Arc::clone(&instance.health), instance.shutdown.clone());
    let mut tasks = JoinSet::new();
    // While PostgreSQL is away, too: /readyz says so, and an address that is taken is found at once.
    instance.serve_http(&mut tasks).await?;
    match shutdown.run_until_cancelled(start::check(&instance.config, &health)).await {
        Some(started) => {
            let started = started?;
            let address = instance.config.http.listen;
            tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "benefits-sync runs");
            systemd.tell("READY=1");
            instance.spawn(started, &mut tasks);
            tasks.spawn(systemd.run(health, shutdown.clone()));
            shutdown.cancelled().await;
        }
        None => systemd.stopping(),
    }
    tracing::info!("stopping: what is under way ends first");
    let ended = tokio::time::timeout(STOP_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(limit = ?STOP_MAX, "not everything has ended in time; the ledger has it, and the next start goes on");
    }
    Ok(())
}

/// What the tasks of an instance share.
struct Instance {
    config: Arc<Config>,
    witness: Arc<Witness>,
    metrics: Metrics,
    health: Arc<Health>,
    shutdown: CancellationToken,
}

impl Instance {
    async fn serve_http(&self, tasks: &mut JoinSet<()>) -> Result<(), RunError> {
        let address = self.config.http.listen;
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| RunError::Listen { address, reason: error.to_string() })?;
        tasks.spawn(http::serve(
            listener,
            self.metrics.clone(),
            Arc::clone(&self.health),
            self.shutdown.clone(),
        ));
        Ok(())
    }

    /// Every task that needs PostgreSQL.
    fn spawn(self, started: Started, tasks: &mut JoinSet<()>) {
        let Self { config, witness, metrics, health, shutdown } = self;
        let Started { targets, key } = started;
        let target = targets.sql.clone();
        let (notify, notices) = mpsc::channel(NOTICES_MAX);
        let users = Arc::new(TransactionUsers::default());
        let appetite = Arc::new(Appetite::default());
        tasks.spawn(clock::run(Arc::clone(&config), target.clone(), notify.clone(), shutdown.clone()));
        let reading = reader::supervise(reader::Setting {
            config: Arc::clone(&config),
            targets,
            notify,
            users: Arc::clone(&users),
            appetite: Arc::clone(&appetite),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            witness: Arc::clone(&witness),
            shutdown: shutdown.clone(),
        });
        tasks.spawn(watched(Arc::clone(&health), Task::Reader, reading));
        if config.benefits.enabled {
            let outfit = Outfit {
                config: Arc::clone(&config),
                target: target.clone(),
                key: key.clone(),
                metrics: metrics.clone(),
                halted: health.halted(),
                witness,
                appetite,
            };
            let delivering = deliver(outfit, notices, Arc::clone(&health), shutdown.clone());
            tasks.spawn(watched(Arc::clone(&health), Task::Delivery, delivering));
        } else {
            tracing::warn!("benefits.enabled is false: changes are collected and not delivered");
            health.set_ledger(true);
            tasks.spawn(show_switched_off(target.clone(), shutdown.clone()));
        }
        tasks.spawn(reconcile::supervise(reconcile::Setting {
            config: Arc::clone(&config),
            target: target.clone(),
            key,
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        }));
        let observing = observer::run(config, target, metrics, users, shutdown);
        tasks.spawn(watched(health, Task::Observer, observing));
    }
}

/// The task, with each of its turns noted.
async fn watched(health: Arc<Health>, task: Task, future: impl Future<Output = ()>) {
    health.pulse().watch(task, future).await;
}

/// Whoever asks why nothing is sent is told that it is meant so: in the place of a halt, until delivery is there to say what
/// holds.
async fn show_switched_off(target: Target, shutdown: CancellationToken) {
    let mut session = None;
    loop {
        let shown = async {
            let session = reopened(&mut session, &target, "benefits-sync switched off").await?;
            show_halt(&session, Some(SWITCHED_OFF)).await.map_err(DeliveryError::Ledger)
        };
        if let Err(error) = shown.await {
            tracing::debug!(%error, "that delivery is switched off cannot be shown");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(SHOW_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Delivery sessions, one after the other.
async fn deliver(
    outfit: Outfit,
    mut notices: mpsc::Receiver<Notice>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) {
    let schedule = session_schedule();
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let started = tokio::time::Instant::now();
        let ended = deliver_once(&outfit, &mut notices, &health, &shutdown).await;
        health.set_ledger(false);
        let Err(error) = ended else { return };
        failures = if started.elapsed() > Duration::from_mins(1) { 1 } else { failures + 1 };
        let wait = schedule.delay(failures);
        tracing::warn!(%error, ?wait, "the delivery session ended; another is started");
        shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

async fn deliver_once(
    outfit: &Outfit,
    notices: &mut mpsc::Receiver<Notice>,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<(), DeliveryError> {
    let mut dispatcher = Dispatcher::start(outfit).await?;
    health.set_ledger(true);
    dispatcher.run(notices, shutdown).await
}

/// Pauses between sessions: short, because most ends are a failover or a restart that is over in seconds.
pub(crate) fn session_schedule() -> Schedule {
    Schedule::new(Duration::from_millis(200), Duration::from_secs(5))
}

/// A watch that only moves forward.
pub(crate) fn advance(confirmed: &watch::Sender<crate::lsn::Lsn>, to: crate::lsn::Lsn) {
    confirmed.send_if_modified(|held| {
        let moves = to > *held;
        if moves {
            *held = to;
        }
        moves
    });
}

/// A session for occasional questions, opened anew when it has ended.
pub(crate) async fn reopened(
    session: &mut Option<Arc<Session>>,
    target: &crate::postgres::Target,
    name: &str,
) -> Result<Arc<Session>, crate::postgres::ConnectError> {
    if let Some(open) = session.as_ref().filter(|session| !session.is_closed()) {
        return Ok(Arc::clone(open));
    }
    let open = Session::connect(target, name).await?;
    *session = Some(Arc::clone(&open));
    Ok(open)
}
