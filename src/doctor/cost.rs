//! What our presence costs the database: connections, WAL kept and written, disk, locks, CPU. Figures for the DBA; only a lock
//! beyond reading on a table of HR's would be a finding.

use serde::Deserialize;

use super::Check;
use super::description::Facts as Described;
use super::server::Facts as Server;
use crate::ledger::Session;
use crate::paint::{size, span};

/// Linux tells a process's times in hundredths of a second, whatever the kernel's own tick is.
const TICKS_A_SECOND: f64 = 100.0;
/// Fewer acknowledged updates say nothing of one.
const TELLING: i64 = 20;

/// See `sql/queries/doctor_costs.sql`.
#[derive(Debug, Clone, Deserialize)]
struct Facts {
    pids: Vec<i32>,
    oldest_seconds: Option<f64>,
    locks: i64,
    locks_beyond_reading: i64,
    waits: i64,
    acknowledged: i64,
    counts_statements: Option<String>,
}

pub(super) async fn check(
    session: &Session,
    server: &Server,
    described: &Described,
    slot: &str,
) -> Vec<Check> {
    let retained = server.slot.as_ref().and_then(|slot| slot.retained_bytes).unwrap_or(0);
    let mut checks = vec![
        Check::ok("cost.wal_kept", format!("the slot keeps {} of WAL on disk", size(retained))),
        Check::ok(
            "cost.schema",
            format!(
                "schema benefits takes {} for {} synced employees",
                size(described.schema_bytes),
                described.enrolled
            ),
        ),
    ];
    let sql = include_str!("../../sql/queries/doctor_costs.sql");
    let facts: Facts = match super::facts(session, "look at the costs", sql, &[&slot]).await {
        Ok(facts) => facts,
        Err(error) => {
            checks.push(Check::failed("cost.connections", error.to_string(), "benefits-sync setup"));
            return checks;
        }
    };
    checks.push(Check::ok("cost.connections", connections(&facts)));
    checks.push(locks(&facts));
    checks.push(Check::ok("cost.wal_written", wal_written(session, server, &facts).await));
    checks.push(Check::ok("cost.cpu", cpu(server, &facts)));
    checks
}

fn connections(facts: &Facts) -> String {
    match facts.oldest_seconds {
        Some(seconds) => {
            format!("{} sessions of ours are open, the oldest for {}", facts.pids.len(), span(seconds))
        }
        None => "no session of ours is open but this one".to_owned(),
    }
}

fn locks(facts: &Facts) -> Check {
    let id = "cost.locks";
    if facts.locks_beyond_reading > 0 {
        return Check::warning(
            id,
            format!(
                "our sessions hold {} locks beyond reading on tables that are not ours",
                facts.locks_beyond_reading
            ),
            "select l.*, l.relation::regclass from pg_locks as l where l.pid in (select pid from pg_stat_activity where application_name like 'benefits-sync%');",
        );
    }
    Check::ok(
        id,
        format!(
            "our sessions hold {} relation locks, on HR's tables none beyond reading; {} wait",
            facts.locks, facts.waits
        ),
    )
}

/// Exact from PostgreSQL 18 on, which counts WAL by session; before that by statement, where that is counted at all.
async fn wal_written(session: &Session, server: &Server, facts: &Facts) -> String {
    if facts.acknowledged < TELLING {
        return format!("too few updates ({}) were acknowledged to tell the WAL of one", facts.acknowledged);
    }
    let (sql, since) = if server.version_number >= 180_000 {
        let sql = "select coalesce(sum(w.wal_bytes), 0)::float8, $2::float8 \
                   from unnest($1::integer[]) as p (pid) cross join lateral pg_stat_get_backend_wal(p.pid) as w";
        (sql.to_owned(), "the sessions began")
    } else if let Some(view) = &facts.counts_statements {
        let sql = format!(
            "select coalesce(sum(s.wal_bytes), 0)::float8, (select count(*)::float8 from benefits.history as h where h.outcome = 'successful' \
             and h.at > (select i.stats_reset from {view}_info as i)) from {view} as s where s.userid = current_user::regrole \
             and s.dbid = (select d.oid from pg_database as d where d.datname = current_database()) and $1::integer[] is not null and $2::float8 is not null"
        );
        (sql, "pg_stat_statements was reset")
    } else {
        return "not counted: PostgreSQL 18 counts WAL by session, before it pg_stat_statements does"
            .to_owned();
    };
    let count = super::server::approximate(facts.acknowledged);
    match session.query("look at the WAL of ours", &sql, &[&facts.pids, &count]).await {
        Ok(rows) => {
            let Some((bytes, updates)) = rows.first().map(|row| (row.get::<_, f64>(0), row.get::<_, f64>(1)))
            else {
                return "not counted".to_owned();
            };
            let each = super::server::whole(bytes / updates.max(1.0));
            format!("{} of WAL for each of {updates:.0} acknowledged updates since {since}", size(each))
        }
        Err(error) => format!("not counted: {error}"),
    }
}

/// The server's processes that serve us, where they run on this machine.
fn cpu(server: &Server, facts: &Facts) -> String {
    let seconds: Vec<f64> = facts.pids.iter().filter_map(|pid| cpu_seconds(*pid)).collect();
    if !server.is_local || seconds.is_empty() {
        return "not known: the server's processes are not on this machine".to_owned();
    }
    format!("the server's processes for us have used {} of CPU", span(seconds.iter().sum()))
}

fn cpu_seconds(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.rsplit_once(") ")?;
    if !name.ends_with("(postgres") {
        return None;
    }
    // From "state", the third field, on: utime and stime are the 14th and 15th.
    let mut times = rest.split(' ').skip(11).take(2).map(str::parse::<u32>);
    let ticks = f64::from(times.next()?.ok()?) + f64::from(times.next()?.ok()?);
    Some(ticks / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_server_is_not_counted() {
        assert_eq!(cpu_seconds(i32::try_from(std::process::id()).unwrap()), None);
        assert_eq!(cpu_seconds(-1), None);
    }
}
