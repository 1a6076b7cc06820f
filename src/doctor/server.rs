//! The server: versions, WAL, slots, senders, connections, the line to it.

use serde::Deserialize;

use super::{Check, ident};
use crate::config::Config;
use crate::paint::{size, span};

/// Sessions that an instance opens, the stream's included.
const SESSIONS: i64 = 8;
/// Headroom that a DBA has a chance to act in.
const HEADROOM_LOW_SECONDS: f64 = 4.0 * 3600.0;
/// Statistics of a shorter time say little of a day.
const RATE_TELLS_AFTER_SECONDS: f64 = 3600.0;

/// See `sql/queries/doctor_server.sql`.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
pub(super) struct Facts {
    version: String,
    pub(super) version_number: u32,
    is_standby: bool,
    encoding: String,
    wal_level: String,
    slots_max: i64,
    slots: i64,
    senders_max: i64,
    senders: i64,
    standbys: i64,
    standby_slots_named: bool,
    standby_slots_down: Vec<String>,
    keep_megabytes: i64,
    slot_timeout_seconds: Option<i64>,
    wal_bytes: Option<f64>,
    wal_seconds: Option<f64>,
    wal_end: Option<f64>,
    connections_max: i64,
    connections: i64,
    pub(super) connections_ours: i64,
    role_connections_max: Option<i64>,
    database_connections_max: Option<i64>,
    is_encrypted: bool,
    pub(super) is_local: bool,
    knows_time_zone: bool,
    pub(super) now: f64,
    pub(super) has_schema: bool,
    pub(super) slot: Option<Slot>,
}

/// The slot of our name.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
pub(super) struct Slot {
    is_ours: bool,
    plugin: Option<String>,
    is_active: bool,
    wal_status: Option<String>,
    why_lost: Option<String>,
    pub(super) has_failover: bool,
    is_synced: bool,
    is_temporary: bool,
    safe_wal_bytes: Option<i64>,
    pub(super) retained_bytes: Option<i64>,
}

impl Facts {
    /// Bytes of WAL a second between two looks.
    pub(super) fn wal_rate_since(&self, earlier: &Self) -> Option<f64> {
        let seconds = self.now - earlier.now;
        Some((self.wal_end? - earlier.wal_end?) / seconds).filter(|rate| rate.is_finite() && *rate >= 0.0)
    }

    /// Bytes of WAL a second since the statistics were reset, where they cover enough time to say something.
    fn wal_rate_of_the_day(&self) -> Option<f64> {
        let seconds = self.wal_seconds.filter(|seconds| *seconds >= RATE_TELLS_AFTER_SECONDS)?;
        Some(self.wal_bytes? / seconds).filter(|rate| *rate > 0.0)
    }
}

pub(super) fn judge(config: &Config, facts: &Facts, rate_now: Option<f64>) -> Vec<Check> {
    let mut checks = vec![version(facts), primary(facts), encoding(facts)];
    checks.extend([wal_level(facts), slots(facts), senders(facts)]);
    checks.push(wal_limit(facts, rate_now));
    checks.extend(slot_timeout(facts));
    checks.push(connections(facts));
    checks.push(tls(facts));
    checks.push(if facts.knows_time_zone {
        Check::ok("server.time_zone", format!("the site's time zone is {}", config.reconcile.time_zone))
    } else {
        Check::failed(
            "server.time_zone",
            format!("PostgreSQL does not know the time zone {}", config.reconcile.time_zone),
            "set reconcile.time_zone to a name of: select name from pg_timezone_names",
        )
    });
    checks
}

fn version(facts: &Facts) -> Check {
    let (id, text) = ("server.version", format!("PostgreSQL {}", facts.version));
    match facts.version_number / 10_000 {
        0..15 => Check::failed(
            id,
            text,
            "PostgreSQL 15 or later is needed (row filters, pg_publication_tables.attnames)",
        ),
        15..=18 => Check::ok(id, text),
        _ => Check::warning(id, text, "tested with PostgreSQL 15 to 18: try it on a copy first"),
    }
}

fn primary(facts: &Facts) -> Check {
    if facts.is_standby {
        let remedy = "name all servers in database.url and add target_session_attrs=read-write";
        return Check::failed(
            "server.primary",
            "this server is a standby: the ledger cannot be written here",
            remedy,
        );
    }
    Check::ok("server.primary", "this server takes writes")
}

/// Without an encoding PostgreSQL takes any bytes for text, and refuses to hand on those that are not UTF-8.
fn encoding(facts: &Facts) -> Check {
    let (id, text) = ("server.encoding", format!("the database's encoding is {}", facts.encoding));
    if facts.encoding != "SQL_ASCII" {
        return Check::ok(id, text);
    }
    Check::warning(
        id,
        format!(
            "{text}: the first change that has a byte which is not UTF-8 stops the stream, and its record cannot be read"
        ),
        "dump the database and restore it into one made with: create database ... encoding 'UTF8' template template0;",
    )
}

fn wal_level(facts: &Facts) -> Check {
    let (id, text) = ("server.wal_level", format!("wal_level is {}", facts.wal_level));
    if facts.wal_level == "logical" {
        return Check::ok(id, text);
    }
    Check::failed(id, text, "alter system set wal_level = 'logical';   then restart PostgreSQL")
}

fn slots(facts: &Facts) -> Check {
    let (id, free) = ("server.slots", facts.slots_max - facts.slots);
    let text = format!("{} of {} replication slots are in use", facts.slots, facts.slots_max);
    if free > 0 || facts.slot.is_some() {
        return Check::ok(id, text);
    }
    let remedy = format!(
        "alter system set max_replication_slots = {};   then restart PostgreSQL",
        facts.slots_max + 5
    );
    Check::failed(id, text, remedy)
}

fn senders(facts: &Facts) -> Check {
    let (id, free) = ("server.wal_senders", facts.senders_max - facts.senders);
    let text = format!("{} of {} WAL senders are in use", facts.senders, facts.senders_max);
    if free > 0 || facts.slot.as_ref().is_some_and(|slot| slot.is_active) {
        return Check::ok(id, text);
    }
    let remedy =
        format!("alter system set max_wal_senders = {};   then restart PostgreSQL", facts.senders_max + 5);
    Check::failed(id, text, remedy)
}

fn wal_limit(facts: &Facts, rate_now: Option<f64>) -> Check {
    let id = "server.wal_limit";
    let megabytes = facts.keep_megabytes;
    if megabytes < 0 {
        return Check::warning(
            id,
            "nothing limits the WAL that a slot keeps: while nobody reads it, it grows until the disk is full",
            "alter system set max_slot_wal_keep_size = '50GB';   select pg_reload_conf();",
        );
    }
    let bytes = megabytes.saturating_mul(1 << 20);
    // A count of bytes fits a float well enough for a time.
    let hours = |rate: f64| span(approximate(bytes) / rate);
    let now = rate_now.map_or_else(String::new, |rate| format!("; now {}/s is written", size(whole(rate))));
    match facts.wal_rate_of_the_day() {
        Some(rate) if approximate(bytes) / rate < HEADROOM_LOW_SECONDS => Check::warning(
            id,
            format!("a slot may keep {}, which is {} at the average rate{now}", size(bytes), hours(rate)),
            format!(
                "alter system set max_slot_wal_keep_size = '{}MB';   select pg_reload_conf();   (a day, if the disk has it)",
                whole(rate * 86_400.0) >> 20
            ),
        ),
        Some(rate) => Check::ok(
            id,
            format!("a slot may keep {}, which is {} at the average rate{now}", size(bytes), hours(rate)),
        ),
        None => Check::ok(id, format!("a slot may keep {}{now}", size(bytes))),
    }
}

fn slot_timeout(facts: &Facts) -> Option<Check> {
    let seconds = facts.slot_timeout_seconds.filter(|seconds| *seconds > 0)?;
    let text = format!(
        "PostgreSQL gives up a slot that nobody has read for {seconds} s (idle_replication_slot_timeout)"
    );
    Some(if seconds < 86_400 {
        Check::warning(
            "server.slot_timeout",
            text,
            "alter system set idle_replication_slot_timeout = '3d';   select pg_reload_conf();",
        )
    } else {
        Check::ok("server.slot_timeout", text)
    })
}

fn connections(facts: &Facts) -> Check {
    let id = "server.connections";
    let needed = (SESSIONS - facts.connections_ours).max(0);
    let text = format!("{} of {} connections are in use", facts.connections, facts.connections_max);
    let limit = [facts.role_connections_max, facts.database_connections_max].into_iter().flatten().min();
    if let Some(limit) = limit.filter(|limit| *limit < SESSIONS) {
        return Check::failed(
            id,
            format!(
                "the service's login or the database allows {limit} connections; an instance opens {SESSIONS}"
            ),
            "alter role benefits_service connection limit 20;",
        );
    }
    if facts.connections_max - facts.connections < needed {
        return Check::failed(
            id,
            format!("{text}; an instance opens {SESSIONS}"),
            "raise max_connections and restart PostgreSQL, or close what is not needed",
        );
    }
    Check::ok(id, text)
}

fn tls(facts: &Facts) -> Check {
    let id = "server.tls";
    match (facts.is_encrypted, facts.is_local) {
        (true, _) => Check::ok(id, "the connection is encrypted"),
        (false, true) => Check::ok(id, "the connection is not encrypted, and stays on this machine"),
        (false, false) => Check::warning(
            id,
            "records and passwords' proofs cross the network unencrypted",
            "database.tls = \"verify-full\", with database.ca_file; at the server ssl = on",
        ),
    }
}

/// The slot, which the ledger has followed (`has_started`) or is to follow.
pub(super) fn judge_slot(config: &Config, facts: &Facts, has_started: bool) -> Vec<Check> {
    let (id, name) = ("slot.state", &config.database.slot);
    let Some(slot) = &facts.slot else {
        let gone = "benefits-sync run makes a new one and compares everyone: nothing is lost but time";
        return vec![if has_started {
            Check::failed(id, format!("the slot {name} is gone"), gone)
        } else {
            Check::ok(id, format!("there is no slot {name} yet: benefits-sync run makes it"))
        }];
    };
    let other = "choose another name: database.slot";
    let state = if !slot.is_ours {
        Check::failed(id, format!("the slot {name} belongs to another database"), other)
    } else if slot.plugin.as_deref() != Some("pgoutput") {
        Check::failed(id, format!("the slot {name} is not one of pgoutput"), other)
    } else if slot.wal_status.as_deref() == Some("lost") {
        let why = slot.why_lost.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        Check::failed(
            id,
            format!("the slot {name} is lost{why}"),
            "benefits-sync run makes a new one and compares everyone; raise max_slot_wal_keep_size",
        )
    } else if !slot.is_active {
        Check::warning(
            id,
            format!(
                "nobody reads the slot {name}: it keeps {} of WAL",
                size(slot.retained_bytes.unwrap_or(0))
            ),
            format!("start benefits-sync run; or, for good: select pg_drop_replication_slot('{name}');"),
        )
    } else {
        let safe =
            slot.safe_wal_bytes.map_or_else(String::new, |safe| format!(", {} until it is lost", size(safe)));
        Check::ok(
            id,
            format!("{name} is read; it keeps {} of WAL{safe}", size(slot.retained_bytes.unwrap_or(0))),
        )
    };
    vec![state, failover(facts, slot, name)]
}

/// Whether the slot survives a failover.
fn failover(facts: &Facts, slot: &Slot, name: &str) -> Check {
    let id = "slot.failover";
    let has_synced_slots = facts.version_number >= 170_000;
    if !facts.standby_slots_down.is_empty() && slot.has_failover {
        let down = facts.standby_slots_down.join(", ");
        return Check::failed(
            id,
            format!(
                "changes wait until the standby is back whose slot is {down} (synchronized_standby_slots)"
            ),
            "start the standby; or go on without it: alter system set synchronized_standby_slots = '';   select pg_reload_conf();",
        );
    }
    if facts.standbys == 0 {
        return Check::ok(id, "no standby is connected");
    }
    if !has_synced_slots {
        let text =
            "a failover loses the slot (PostgreSQL 17 and later can keep it): everyone is compared then";
        return Check::ok(id, text);
    }
    if !slot.has_failover {
        let remedy = format!(
            "stop benefits-sync, then on a replication connection: ALTER_REPLICATION_SLOT {} (FAILOVER true)",
            ident(name)
        );
        return Check::warning(
            id,
            format!("there are standbys, and the slot {name} does not follow a failover"),
            remedy,
        );
    }
    if !facts.standby_slots_named {
        return Check::warning(
            id,
            "the slot follows a failover, but may be ahead of the standby then (synchronized_standby_slots is empty)",
            "alter system set synchronized_standby_slots = 'the_standbys_slot';   select pg_reload_conf();",
        );
    }
    Check::ok(id, "the slot follows a failover")
}

/// Another host of `database.url`: whether a standby there would go on with the slot. `None` for a server that is none.
pub(super) fn judge_standby(host: &str, facts: &Facts, name: &str) -> Option<Check> {
    let id = "slot.standby";
    if !facts.is_standby {
        return None;
    }
    if facts.version_number < 170_000 {
        let text = format!(
            "a failover to {host} loses the slot (PostgreSQL 17 and later can keep it): everyone is compared then"
        );
        return Some(Check::ok(id, text));
    }
    let why = match &facts.slot {
        None => Some((
            "has no copy of",
            "on the standby: alter system set sync_replication_slots = on;   alter system set hot_standby_feedback = on;\n\
             primary_conninfo names the database (dbname=...), primary_slot_name a physical slot; then select pg_reload_conf();",
        )),
        Some(slot) if slot.why_lost.is_some() => Some((
            "has given up its copy of",
            "on the standby: select pg_sync_replication_slots();   and see that max_slot_wal_keep_size is no less than on the primary",
        )),
        Some(slot) if slot.is_temporary || !slot.is_synced => Some((
            "is not through with copying",
            "nothing, if it goes by itself within minutes; on the primary select pg_log_standby_snapshot(); hastens it",
        )),
        Some(_) => None,
    };
    Some(match why {
        Some((has, remedy)) => Check::warning(
            id,
            format!("the standby {host} {has} the slot {name}: a failover now would lose it"),
            remedy,
        ),
        None => Check::ok(id, format!("the standby {host} has a copy of the slot {name}")),
    })
}

/// A count as a float: exact up to 2^53.
pub(super) fn approximate(bytes: i64) -> f64 {
    std::time::Duration::from_secs(u64::try_from(bytes).unwrap_or(0)).as_secs_f64()
}

pub(super) fn whole(value: f64) -> i64 {
    std::time::Duration::try_from_secs_f64(value.max(0.0))
        .map_or(i64::MAX, |span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn facts(change: impl FnOnce(&mut serde_json::Value)) -> Facts {
        let mut facts = serde_json::json!({
            "version": "18.1", "version_number": 180_001, "is_standby": false, "encoding": "UTF8", "wal_level": "logical",
            "slots_max": 10, "slots": 1, "senders_max": 10, "senders": 1, "standbys": 0,
            "standby_slots_named": false, "standby_slots_down": [], "keep_megabytes": 51_200,
            "slot_timeout_seconds": 0, "wal_bytes": 86_400e6, "wal_seconds": 86_400.0, "wal_end": 0.0,
            "connections_max": 100, "connections": 20, "connections_ours": 8, "role_connections_max": null,
            "database_connections_max": null, "is_encrypted": true, "is_local": false, "knows_time_zone": true,
            "now": 0.0, "has_schema": true, "slot": null
        });
        change(&mut facts);
        serde_json::from_value(facts).unwrap()
    }

    fn findings(change: impl FnOnce(&mut serde_json::Value)) -> Vec<(&'static str, Level)> {
        let text = "[database]\nurl = \"postgresql://a@b/c\"\n[ledger]\n[benefits]\nplatform_id = \"d\"\nsubdomain = \"d\"\n\
                    token_file = \"t\"\nemail_source = \"work\"\n";
        let config = Config::parse(text, "test", []).unwrap();
        let checks = judge(&config, &facts(change), None);
        checks.iter().filter(|check| check.level != Level::Ok).map(|check| (check.id, check.level)).collect()
    }

    #[test]
    fn what_no_test_server_can_be_made_to_have_is_named_and_nothing_else() {
        assert_eq!(findings(|_| {}), []);
        assert_eq!(findings(|f| f["version_number"] = 140_010.into()), [("server.version", Level::Failed)]);
        assert_eq!(findings(|f| f["version_number"] = 190_000.into()), [("server.version", Level::Warning)]);
        assert_eq!(findings(|f| f["encoding"] = "SQL_ASCII".into()), [("server.encoding", Level::Warning)]);
        assert_eq!(findings(|f| f["knows_time_zone"] = false.into()), [("server.time_zone", Level::Failed)]);
        // 50 GB at 10 MB a second are an hour and a half.
        assert_eq!(findings(|f| f["wal_bytes"] = 864_000e6.into()), [("server.wal_limit", Level::Warning)]);
        let full = |f: &mut serde_json::Value| {
            f["connections"] = 97.into();
            f["connections_ours"] = 0.into();
        };
        assert_eq!(findings(full), [("server.connections", Level::Failed)]);
        assert_eq!(findings(|f| f["is_encrypted"] = false.into()), [("server.tls", Level::Warning)]);
    }
}
