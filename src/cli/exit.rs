//! How a command ends: with which code, and what is said of it.

use std::process::ExitCode;

use crate::config::Origin;
use crate::pipeline::{CheckError, RunError, StartError};
use crate::preview::PreviewError;
use crate::reconcile::ReconcileError;
use crate::reconcile::cli::CommandError;
use crate::status::StatusError;

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NOT_READY: u8 = 3;

/// A failure with its exit code.
pub(super) struct Exit {
    code: u8,
    error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Exit {
    fn from(error: E) -> Self {
        Self::new(FAILED, error)
    }
}

impl Exit {
    pub(super) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    pub(super) fn of_run(origin: &Origin, error: RunError) -> Self {
        match error {
            RunError::Start(error) => Self::of_start(origin, error),
            RunError::Listen { .. } => Self::of_setting(origin, "http.listen", error),
            RunError::Metrics(_) => Self::new(FAILED, error),
        }
    }

    pub(super) fn of_status(origin: &Origin, error: StatusError) -> Self {
        match error {
            StatusError::Check(error) => Self::of_check(origin, error),
            StatusError::NotSetUp(_) => Self::new(NOT_READY, error),
            StatusError::Ledger(_) => Self::new(FAILED, error),
        }
    }

    pub(super) fn of_preview(origin: &Origin, error: PreviewError) -> Self {
        match error {
            PreviewError::Check(error) => Self::of_check(origin, error),
            PreviewError::Client(error) => Self::of_start(origin, error.into()),
            PreviewError::NotDescribed | PreviewError::Broken(_) => Self::new(NOT_READY, error),
            PreviewError::Ledger(_) | PreviewError::Platform(_) | PreviewError::Output(_) => {
                Self::new(FAILED, error)
            }
        }
    }

    pub(super) fn of_reconcile(origin: &Origin, error: CommandError) -> Self {
        match error {
            CommandError::Check(error) => Self::of_check(origin, error),
            CommandError::Reconcile(ReconcileError::Client(error)) => Self::of_start(origin, error.into()),
            CommandError::Reconcile(ReconcileError::NotDescribed) => Self::new(NOT_READY, error),
            CommandError::Reconcile(_) => Self::new(FAILED, error),
        }
    }

    fn of_check(origin: &Origin, error: CheckError) -> Self {
        match error {
            CheckError::Start(error) => Self::of_start(origin, error),
            CheckError::Away(_) | CheckError::Ledger(_) => Self::new(FAILED, error),
        }
    }

    fn of_start(origin: &Origin, error: StartError) -> Self {
        match error.key() {
            Some(key) => Self::of_setting(origin, key, error),
            None if error.is_not_ready() => Self::new(NOT_READY, error),
            None => Self::new(USAGE, error),
        }
    }

    /// With where the setting was read.
    fn of_setting(origin: &Origin, key: &str, error: impl Into<anyhow::Error>) -> Self {
        Self::new(USAGE, error.into().context(origin.of(key)))
    }

    pub(super) fn report(&self) -> ExitCode {
        eprintln!("benefits-sync: {}", told(&self.error));
        ExitCode::from(self.code)
    }
}

/// The chain of causes, each told once. The driver's own error ends it: its message may quote a value, and ours has said
/// what can be said.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().take_while(|cause| !cause.is::<tokio_postgres::Error>()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}
