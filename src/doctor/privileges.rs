//! Privileges: too few, and too many.

use serde::Deserialize;

use super::description::each;
use super::{Check, ident};

/// See `sql/queries/doctor_privileges.sql`.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
pub(super) struct Facts {
    service: String,
    reader_exists: bool,
    reader_replicates: bool,
    reader_powers: Vec<String>,
    service_powers: Vec<String>,
    service_reads: Vec<String>,
    service_lacks: Vec<String>,
    owner_logs_in: bool,
    owner_powers: Vec<String>,
    owner_sees_sessions: bool,
    open_to_all: Vec<String>,
    /// A schema, and a role that may create in it.
    open_schemas: Vec<(String, String)>,
}

pub(super) fn judge(facts: &Facts, reader: &str) -> Vec<Check> {
    vec![
        enough(facts),
        reads_slots(facts, reader),
        service(facts, reader),
        least(facts, reader),
        owner(facts),
        open(facts),
        path(facts),
    ]
}

fn enough(facts: &Facts) -> Check {
    let id = "privileges.service";
    if facts.service_lacks.is_empty() {
        return Check::ok(id, format!("{} may keep the ledger and read records", facts.service));
    }
    Check::failed(
        id,
        format!("{} lacks {} privileges in schema benefits", facts.service, facts.service_lacks.len()),
        each(&facts.service_lacks, |grant| format!("{grant};")),
    )
}

fn reads_slots(facts: &Facts, reader: &str) -> Check {
    let id = "privileges.reader";
    if !facts.reader_exists {
        return Check::failed(id, format!("there is no role {reader}"), "benefits-sync setup");
    }
    if facts.reader_replicates {
        return Check::ok(id, format!("{reader} may read the slot"));
    }
    Check::failed(
        id,
        format!("{reader} lacks REPLICATION"),
        format!("alter role {} replication;", ident(reader)),
    )
}

/// REPLICATION can read every table through a slot: it belongs to a login that does nothing else.
fn service(facts: &Facts, reader: &str) -> Check {
    let id = "privileges.service_least";
    let login = ident(&facts.service);
    if facts.service == reader {
        return Check::warning(
            id,
            format!(
                "{reader} both keeps the ledger and reads the slot: with REPLICATION it can read every table"
            ),
            "two logins: database.url as benefits_service, database.replication_url as benefits_reader",
        );
    }
    if !facts.service_powers.is_empty() {
        let powers = facts.service_powers.join(", ");
        return Check::warning(
            id,
            format!("{} has {powers}, which it does not need", facts.service),
            each(&facts.service_powers, |power| format!("alter role {login} no{};", power.to_lowercase())),
        );
    }
    if !facts.service_reads.is_empty() {
        return Check::warning(
            id,
            format!(
                "{} may read or write HR's tables itself: {}; it reads records through definer functions",
                facts.service,
                facts.service_reads.join(", ")
            ),
            each(&facts.service_reads, |table| format!("revoke all on {table} from {login};")),
        );
    }
    Check::ok(id, format!("{} may no more than it needs", facts.service))
}

fn least(facts: &Facts, reader: &str) -> Check {
    let id = "privileges.reader_least";
    if facts.reader_powers.is_empty() || facts.service == reader {
        return Check::ok(
            id,
            format!("{reader} has REPLICATION alone (which reads every table through a slot)"),
        );
    }
    Check::warning(
        id,
        format!("{reader} has {}, which it does not need", facts.reader_powers.join(", ")),
        each(&facts.reader_powers, |power| {
            format!("alter role {} no{};", ident(reader), power.to_lowercase())
        }),
    )
}

fn owner(facts: &Facts) -> Check {
    let id = "privileges.owner_least";
    if facts.owner_logs_in {
        return Check::warning(
            id,
            "benefits_owner, who can read every described table, can log in",
            "alter role benefits_owner nologin;",
        );
    }
    if !facts.owner_powers.is_empty() {
        return Check::warning(
            id,
            format!("benefits_owner has {}, which it does not need", facts.owner_powers.join(", ")),
            each(&facts.owner_powers, |power| {
                format!("alter role benefits_owner no{};", power.to_lowercase())
            }),
        );
    }
    if !facts.owner_sees_sessions {
        return Check::warning(
            id,
            "status cannot name whose transaction pins the WAL, nor how far the reader is",
            "grant pg_read_all_stats to benefits_owner;",
        );
    }
    Check::ok(id, "nobody logs in as benefits_owner")
}

fn open(facts: &Facts) -> Check {
    let id = "privileges.public";
    if facts.open_to_all.is_empty() {
        return Check::ok(id, "no function of ours is open to everybody");
    }
    Check::warning(
        id,
        format!("everybody may call {}", facts.open_to_all.join(", ")),
        each(&facts.open_to_all, |function| format!("revoke execute on function {function} from public;")),
    )
}

/// A function that fits its arguments better goes before PostgreSQL's own, wherever it is in the path.
fn path(facts: &Facts) -> Check {
    let id = "privileges.path";
    if facts.open_schemas.is_empty() {
        return Check::ok(id, "nobody else can make what runs as benefits_owner");
    }
    let who: Vec<String> =
        facts.open_schemas.iter().map(|(schema, role)| format!("{role} in {schema}")).collect();
    Check::warning(
        id,
        format!(
            "functions of ours look for names where others than a schema's owner may create: {}",
            who.join(", ")
        ),
        each(&facts.open_schemas, |(schema, role)| {
            format!(
                "revoke create on schema {schema} from {role};   or write the schema before every name of HR's in the description, and run it again"
            )
        }),
    )
}
