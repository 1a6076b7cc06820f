//! Why a reader session ends, and what that calls for.

use std::time::Duration;

use crate::failpoint;
use crate::ledger::LedgerError;
use crate::ledger::in_hand::Lost;
use crate::lsn::Lsn;
use crate::pgoutput;
use crate::pipeline::marker::MarkError;
use crate::postgres::ConnectError;
use crate::replication::{Problem, Remedy, ReplicationError};
use crate::selection::SelectionError;

/// Why a reader session ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::pipeline) enum ReadError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    #[error("at {lsn}: {source}")]
    Decode { lsn: Lsn, source: pgoutput::DecodeError },
    #[error("at {lsn}: {source}")]
    Selection { lsn: Lsn, source: SelectionError },
    #[error(
        "the site is not described yet: run its description with psql (describe_record, describe_source)"
    )]
    NotDescribed,
    #[error("the site's description changed; starting again with the new one")]
    DescriptionChanged,
    #[error("everyone was compared; starting again with what was found")]
    Reconciled,
    #[error(
        "the publication {0} does not exist: run benefits-sync setup, or correct database.publication. The slot waits"
    )]
    NoPublication(String),
    #[error("the publication is not what it was when the stream started; starting again")]
    PublicationChanged,
    #[error("the slot is read by another instance (process {0})")]
    Busy(i32),
    #[error("another instance has taken the slot meanwhile")]
    Overtaken,
    #[error("database.url and database.replication_url lead to two servers, or to two timelines of one")]
    TwoServers,
    #[error("{source}: it waited for {by}. End that transaction, and it is made")]
    SlotBlocked { by: String, source: ReplicationError },
    #[error("the slot was replaced a moment ago; it is replaced again in {}", humantime::format_duration(*.0))]
    ReplacedOften(Duration),
    #[error(transparent)]
    FailPoint(#[from] failpoint::Tripped),
    #[error("{0}; what it had is read again")]
    Lost(Lost),
    #[error("the marker task ended abnormally")]
    Marker(#[source] tokio::task::JoinError),
}

impl ReadError {
    /// Another instance holds the slot: nothing is wrong here.
    pub(super) fn is_standing_by(&self) -> bool {
        matches!(
            self,
            Self::Busy(_)
                | Self::Overtaken
                | Self::Replication(ReplicationError::Server { problem: Problem::SlotBusy { .. }, .. })
        )
    }

    /// Nothing is wrong: the next session goes on at once.
    pub(super) fn is_turnover(&self) -> bool {
        matches!(self, Self::DescriptionChanged | Self::Reconciled)
    }

    /// What the slot needs is gone: another must take its place. A publication that is there now, but was not at the
    /// slot's place in the WAL, can never be decoded before version 18.
    pub(super) fn calls_for_another_slot(&self) -> bool {
        match self {
            Self::Replication(error) => {
                error.remedy() == Remedy::RecreateSlot
                    || matches!(error, ReplicationError::Server { problem: Problem::PublicationMissing, .. })
            }
            _ => false,
        }
    }
}

impl From<MarkError> for ReadError {
    fn from(error: MarkError) -> Self {
        match error {
            MarkError::Ledger(error) => Self::Ledger(error),
            MarkError::Lost(lost) => Self::Lost(lost),
        }
    }
}

pub(super) fn log(error: &ReadError, wait: Duration) {
    match error {
        ReadError::Replication(error) if error.remedy() == Remedy::Configuration => tracing::error!(
            %error, detail = error.detail(), hint = error.hint(), "the stream cannot be read until this is mended"
        ),
        ReadError::Replication(error) => {
            tracing::warn!(%error, detail = error.detail(), hint = error.hint(), ?wait, "the reader session ended");
        }
        error @ (ReadError::NoPublication(_) | ReadError::TwoServers) => {
            tracing::error!(%error, "the stream cannot be read until this is mended");
        }
        error => tracing::warn!(%error, ?wait, "the reader session ended"),
    }
}
