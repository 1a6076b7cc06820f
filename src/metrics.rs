//! Every metric: name, label, help text. The README's table is checked against a scrape of these.
//!
//! Base units, `_total` on counters only, labels of bounded range, and no person in any of them.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::delivery::breaker::BreakerState;
use crate::lsn::Lsn;
use crate::selection::Decisions;

/// A metric could not be registered: two of one name, or a bad name. Found by the first test that makes a [`Metrics`].
pub type MetricsError = prometheus::Error;

/// The instance's metrics. Cheap to clone: all clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    replication_connected: IntGauge,
    replication_lag: IntGaugeVec,
    slot_unconfirmed: IntGauge,
    slot_retained: IntGauge,
    slot_safe_wal: IntGauge,
    slot_headroom: Gauge,
    slot_active: IntGauge,
    observed: Gauge,
    stuck: IntGauge,
    row_changes: IntCounterVec,
    commits: IntCounter,
    invisible_seconds: Gauge,
    employees: IntGaugeVec,
    pending: IntGauge,
    pending_oldest: Gauge,
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    change_latency: Histogram,
    breaker: IntGauge,
    halted: GaugeVec,
    holds: IntGauge,
    reconcile_runs: IntCounterVec,
    reconcile_differences: IntCounter,
    reconcile_last: Gauge,
}

/// Upper bounds in seconds: a commit is acknowledged in milliseconds when all is well, and in hours when it is not.
const LATENCY: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0, 21_600.0];
/// Why delivery can be halted: these series exist from the start.
const HALT_REASONS: [&str; 7] = [
    "credentials",
    "forbidden",
    "platform-suspended",
    "wrong-platform",
    "another-writer",
    "record-query",
    "platform-doubt",
];
const ATTEMPT: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new_custom(Some("benefits_sync".to_owned()), None)?;
        let r = &registry;
        let up = keep(r, IntGauge::new("up", "1 while the process runs.")?)?;
        up.set(1);
        let build = IntGaugeVec::new(Opts::new("build_info", "1; the version is a label."), &["version"])?;
        keep(r, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            replication_connected: gauge(r, "replication_connected", "1 while this instance holds the slot and streams.")?,
            replication_lag: gauges(
                r,
                "replication_lag_bytes",
                "WAL between the server's end and what was received, or persisted in the ledger.",
                "stage",
            )?,
            slot_unconfirmed: gauge(r, "slot_unconfirmed_bytes", "WAL between the server's end and the slot's confirmed LSN.")?,
            slot_retained: gauge(
                r,
                "slot_retained_bytes",
                "WAL that the slot's restart_lsn keeps on the server's disk; an old open transaction in any database can do that.",
            )?,
            slot_safe_wal: gauge(
                r,
                "slot_safe_wal_bytes",
                "WAL that can still be written before the slot is lost; -1 where nothing limits it.",
            )?,
            slot_headroom: keep(
                r,
                Gauge::new(
                    "slot_headroom_seconds",
                    "How long the slot lasts unread at the rate WAL was written lately; +Inf where nothing limits it or none is written.",
                )?,
            )?,
            slot_active: gauge(r, "slot_active", "1 while any instance reads the slot.")?,
            observed: keep(
                r,
                Gauge::new(
                    "observed_timestamp_seconds",
                    "When the gauges of slot, employees and pending were last read from PostgreSQL, in Unix time.",
                )?,
            )?,
            stuck: gauge(r, "stuck_employees", "Employees in progress for 15 minutes without any progress; who is held is not.")?,
            row_changes: counters(r, "row_changes_total", "Row changes read from the WAL, by what was decided.", "decision")?,
            commits: keep(r, IntCounter::new("commits_total", "Committed transactions read from the WAL.")?)?,
            invisible_seconds: keep(
                r,
                Gauge::new(
                    "commit_invisible_seconds",
                    "How long the oldest commit read has been waiting to become visible to new snapshots.",
                )?,
            )?,
            employees: gauges(r, "employees", "Employees by state.", "state")?,
            pending: gauge(r, "pending_employees", "Employees with a change that is not acknowledged.")?,
            pending_oldest: keep(
                r,
                Gauge::new("pending_oldest_age_seconds", "Age of the oldest change that is not acknowledged.")?,
            )?,
            attempts: keep(
                r,
                IntCounterVec::new(
                    Opts::new("delivery_attempts_total", "Requests to the platform, by operation and outcome."),
                    &["operation", "outcome"],
                )?,
            )?,
            attempt_duration: keep(
                r,
                HistogramVec::new(
                    HistogramOpts::new("delivery_attempt_duration_seconds", "Time of one request to the platform.")
                        .buckets(ATTEMPT.to_vec()),
                    &["operation"],
                )?,
            )?,
            change_latency: keep(
                r,
                Histogram::with_opts(
                    HistogramOpts::new("change_latency_seconds", "From HR's commit to the platform's acknowledgement.")
                        .buckets(LATENCY.to_vec()),
                )?,
            )?,
            breaker: gauge(r, "breaker_state", "0 closed (flowing), 1 half-open (one probe), 2 open (stopped).")?,
            halted: keep(
                r,
                GaugeVec::new(
                    Opts::new("delivery_halted", "1 while delivery is stopped for the site, by reason."),
                    &["reason"],
                )?,
            )?,
            holds: gauge(r, "holds", "Mass changes that wait for a person.")?,
            reconcile_runs: counters(r, "reconcile_runs_total", "Comparisons of everyone, by outcome.", "outcome")?,
            reconcile_differences: keep(
                r,
                IntCounter::new("reconcile_differences_total", "Employees that a comparison found out of step.")?,
            )?,
            reconcile_last: keep(
                r,
                Gauge::new("reconcile_last_success_timestamp_seconds", "When a comparison last ended well, in Unix time.")?,
            )?,
            registry,
        }
        .with_known_labels())
    }

    /// Series that exist from the start, so that a rate over them never misses its first count.
    fn with_known_labels(self) -> Self {
        for stage in ["received", "persisted"] {
            self.replication_lag.with_label_values(&[stage]).set(0);
        }
        for decision in ["other_table", "not_synced", "unchanged", "marked"] {
            self.row_changes.with_label_values(&[decision]).inc_by(0);
        }
        for state in ["not_syncing", "in_progress", "failed", "successful"] {
            self.employees.with_label_values(&[state]).set(0);
        }
        for operation in ["find", "create", "link", "update", "get", "platform"] {
            for outcome in ["accepted", "rejected", "unavailable", "throttled", "halted"] {
                self.attempts.with_label_values(&[operation, outcome]).inc_by(0);
            }
            // To have asked for the series is to have made it.
            drop(self.attempt_duration.with_label_values(&[operation]));
        }
        self.halted(None);
        self.slot_headroom.set(f64::INFINITY);
        for outcome in ["well", "failed"] {
            self.reconcile_runs.with_label_values(&[outcome]).inc_by(0);
        }
        self.slot_safe_wal.set(-1);
        self
    }

    /// The scrape, in Prometheus's text format 0.0.4.
    pub fn render(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// One request to the platform.
    pub fn attempt(&self, operation: &str, outcome: &str, took: Duration) {
        self.attempts.with_label_values(&[operation, outcome]).inc();
        self.attempt_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// A change was acknowledged so long after HR's commit.
    pub fn acknowledged(&self, latency_seconds: f64) {
        self.change_latency.observe(latency_seconds);
    }

    /// Whether this instance streams.
    pub fn connected(&self, connected: bool) {
        self.replication_connected.set(i64::from(connected));
    }

    /// Row changes that were decided on.
    pub fn decided(&self, decisions: &Decisions) {
        for (decision, count) in [
            ("other_table", decisions.other_table),
            ("not_synced", decisions.not_synced),
            ("unchanged", decisions.unchanged),
            ("marked", decisions.marked),
        ] {
            if count > 0 {
                self.row_changes.with_label_values(&[decision]).inc_by(count);
            }
        }
    }

    /// Commits that were read.
    pub fn commits(&self, count: usize) {
        self.commits.inc_by(u64::try_from(count).unwrap_or(0));
    }

    /// How long the oldest commit has been waiting to become visible.
    pub fn invisible(&self, waited: Duration) {
        self.invisible_seconds.set(waited.as_secs_f64());
    }

    /// How far the stream is behind the server.
    pub fn lag(&self, server_end: Lsn, received: Lsn, persisted: Lsn) {
        for (stage, lsn) in [("received", received), ("persisted", persisted)] {
            self.replication_lag.with_label_values(&[stage]).set(bytes(server_end.bytes_since(lsn)));
        }
    }

    /// What the slot costs the server. `safe_wal` is -1 where nothing limits it; `headroom_seconds` is infinite then.
    pub fn slot(&self, unconfirmed: i64, retained: i64, safe_wal: i64, headroom_seconds: f64) {
        self.slot_unconfirmed.set(unconfirmed);
        self.slot_retained.set(retained);
        self.slot_safe_wal.set(safe_wal);
        self.slot_headroom.set(headroom_seconds);
    }

    /// The gauges were read at this Unix time; whether any instance reads the slot.
    pub fn observed(&self, at_unix_seconds: f64, slot_active: bool) {
        self.observed.set(at_unix_seconds);
        self.slot_active.set(i64::from(slot_active));
    }

    /// Employees that were tried again and again without an answer.
    pub fn stuck(&self, count: i64) {
        self.stuck.set(count);
    }

    /// Employees in a state.
    pub fn employees(&self, state: &str, count: i64) {
        self.employees.with_label_values(&[state]).set(count);
    }

    /// What is pending.
    pub fn pending(&self, count: i64, oldest_seconds: f64) {
        self.pending.set(count);
        self.pending_oldest.set(oldest_seconds);
    }

    /// The breaker.
    pub fn breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        });
    }

    /// Whether and why delivery is halted.
    pub fn halted(&self, reason: Option<&str>) {
        for known in HALT_REASONS {
            self.halted.with_label_values(&[known]).set(0.0);
        }
        if let Some(reason) = reason {
            self.halted.with_label_values(&[reason]).set(1.0);
        }
    }

    /// Holds that wait.
    pub fn holds(&self, count: i64) {
        self.holds.set(count);
    }

    /// A comparison of everyone has ended.
    pub fn reconciled(&self, well: bool, differences: u64, at_unix_seconds: f64) {
        self.reconcile_runs.with_label_values(&[if well { "well" } else { "failed" }]).inc();
        self.reconcile_differences.inc_by(differences);
        if well {
            self.reconcile_last.set(at_unix_seconds);
        }
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
    keep(registry, IntGauge::new(name, help)?)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, MetricsError> {
    keep(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, MetricsError> {
    keep(registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
