//! `benefits-sync reconcile`: one comparison, with a progress bar on a terminal.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{Comparison, Progress, ReconcileError, Report, Wanted, take_turn};
use crate::config::Config;
use crate::ledger::{LedgerError, Session};
use crate::pipeline::{CheckError, check_once};

/// Between two looks at the lock, and two drawings of the bar.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The command's arguments.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "BENEFITS_SYNC_CONFIG", default_value = "benefits-sync.toml")]
    pub config: PathBuf,
    /// Count the differences, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Compare the ledger with every account on the platform first, and put right what has drifted.
    #[arg(long)]
    pub platform: bool,
    /// Print the counts as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not begin.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The comparison did not end well.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        Self::Reconcile(error.into())
    }
}

/// Compares everyone once.
pub async fn run(
    config: &Config,
    args: &ReconcileArgs,
    shutdown: &CancellationToken,
) -> Result<Report, CommandError> {
    let (started, session) = check_once(config).await?;
    if !args.dry_run {
        wait_for_turn(&session, shutdown).await?;
    }
    let progress = Progress::default();
    let comparison = Comparison { session, config, key: &started.key, progress: &progress, shutdown };
    let wanted = Wanted { dry_run: args.dry_run, platform: args.platform };
    let bar = bar();
    let mut run = std::pin::pin!(comparison.run(wanted));
    let mut draw = tokio::time::interval(LOOK_EVERY);
    let compared = loop {
        tokio::select! {
            compared = &mut run => break compared,
            _ = draw.tick() => {
                let (done, total) = progress.get();
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
        }
    };
    bar.finish_and_clear();
    Ok(compared?)
}

fn bar() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} compared") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// One comparison at a time: another process may be at one.
async fn wait_for_turn(session: &Arc<Session>, shutdown: &CancellationToken) -> Result<(), CommandError> {
    let mut told = false;
    while !take_turn(session).await? {
        if !std::mem::replace(&mut told, true) {
            tracing::info!("another process is comparing everyone; waiting for it to end");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return Err(ReconcileError::Stopped.into());
        }
    }
    Ok(())
}
