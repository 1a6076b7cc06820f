//! What an update costs: the ledger's part of PostgreSQL's work, and CPU time of both sides.

use super::BenchSite;

/// What the ledger did to PostgreSQL.
#[derive(Default, Clone)]
pub struct Cost {
    wal_bytes: f64,
    fsyncs: f64,
    statements: f64,
    pub server_cpu_micros: f64,
    pub cpu_micros: f64,
    pub rss_mb: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "an update costs {:.0} WAL bytes, {:.3} WAL syncs, {:.3} commits, {:.0} µs of our CPU, {:.0} µs of \
             PostgreSQL's; RSS {:.0} MB",
            self.wal_bytes,
            self.fsyncs,
            self.statements,
            self.cpu_micros,
            self.server_cpu_micros,
            self.rss_mb
        )
    }
}

impl Cost {
    pub fn since(&self, before: &Self, updates: u64, cpu_seconds: f64, rss_mb: f64) -> Self {
        let updates = updates as f64;
        Self {
            wal_bytes: (self.wal_bytes - before.wal_bytes) / updates,
            fsyncs: (self.fsyncs - before.fsyncs) / updates,
            statements: (self.statements - before.statements) / updates,
            cpu_micros: cpu_seconds * 1e6 / updates,
            server_cpu_micros: (self.server_cpu_micros - before.server_cpu_micros) / updates,
            rss_mb,
        }
    }
}

impl BenchSite {
    pub async fn ledger_cost(&self) -> Cost {
        let sql = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8, \
                   (select coalesce(sum(fsyncs), 0) from pg_stat_io where object = 'wal')::float8, \
                   (select xact_commit from pg_stat_database where datname = current_database())::float8";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        Cost {
            wal_bytes: row.get(0),
            fsyncs: row.get(1),
            statements: row.get(2),
            server_cpu_micros: self.server_cpu_micros().await,
            ..Cost::default()
        }
    }

    /// CPU time of all of PostgreSQL's processes but for the session that makes HR's changes, those that have ended included.
    async fn server_cpu_micros(&self) -> f64 {
        let own: i32 = self.client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        let postmaster = stat_of(&own.to_string()).unwrap()[1];
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ids = processes
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| id.parse::<u32>().is_ok());
        let ticks: u64 = ids
            .filter_map(|id| {
                let stat = stat_of(&id)?;
                let is_server = id.parse() == Ok(postmaster);
                let ended = if is_server { stat[13] + stat[14] } else { 0 };
                let is_ours = is_server || stat[1] == postmaster && id.parse() != Ok(own);
                is_ours.then(|| stat[11] + stat[12] + ended)
            })
            .sum();
        ticks as f64 * 10_000.0
    }
}

/// The fields of `/proc/ID/stat` from the state on, as numbers: the parent at 1, user and system time at 11 and 12, those of
/// children that have ended at 13 and 14.
pub(super) fn stat_of(id: &str) -> Option<Vec<u64>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let after = stat.rsplit(')').next()?;
    Some(after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}
