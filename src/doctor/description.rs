//! The description against the catalogue: drift, keys, indexes, the publication.

use serde::Deserialize;

use super::{Check, ident};
use crate::config::Config;
use crate::ledger::work;
use crate::record::FieldSet;

/// A scan of fewer rows is over before anybody notices.
pub(super) const SMALL_TABLE_ROWS: i64 = 1_000;

/// See `sql/queries/doctor_description.sql`.
#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
pub(super) struct Facts {
    versions: Vec<i32>,
    pub(super) is_described: bool,
    columns: Vec<String>,
    pub(super) platform_id: Option<String>,
    pub(super) time_zone: String,
    pub(super) fingerprint_check: Option<String>,
    pub(super) has_started: bool,
    roots: i64,
    pub(super) has_search: bool,
    has_set_level: bool,
    query_columns_gone: Vec<String>,
    tables_not_described: Vec<String>,
    publication: Option<Publication>,
    sources: Vec<Source>,
    pub(super) levels: Vec<String>,
    pub(super) translations: Vec<(String, String, String)>,
    pub(super) schema_bytes: i64,
    pub(super) enrolled: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Publication {
    publishes_all: bool,
    via_root: bool,
    tables_of_ours_missing: Vec<String>,
    tables_not_described: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each answered by itself")]
struct Source {
    table: String,
    is_gone: bool,
    is_swapped: bool,
    columns_gone: Vec<String>,
    has_identity: Option<bool>,
    same_key: bool,
    /// Partitions whose replica identity is not the table's key.
    partitions_without_identity: Vec<String>,
    /// Tables that inherit from this one and are no partitions.
    children: Vec<String>,
    employee_key: Option<String>,
    is_indexed: bool,
    effective_from: Option<String>,
    /// The sort of index that finds rows that become current at an instant; none where they do so at midnight.
    instants: Option<String>,
    instants_indexed: bool,
    rows: i64,
    is_published: bool,
    is_filtered: bool,
    columns_not_published: Vec<String>,
    owner_can_read: bool,
    has_row_security: bool,
}

impl Source {
    /// It is still the table that was described: what else is wrong with another one is that it is another one.
    fn is_there(&self) -> bool {
        !self.is_gone && !self.is_swapped
    }

    /// Mapped columns that exist and are not published.
    fn left_out(&self) -> Vec<&str> {
        let columns = self.columns_not_published.iter().filter(|column| !self.columns_gone.contains(column));
        columns.map(String::as_str).collect()
    }
}

impl Facts {
    fn sound(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.is_there())
    }
}

pub(super) fn judge(config: &Config, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![migrations(facts)];
    if !facts.is_described || facts.sources.is_empty() {
        checks.push(Check::failed(
            "description.present",
            "the site is not described",
            "psql -f your-description.sql   (describe_record and describe_source; sql/demo/describe.sql is an example)",
        ));
        return checks;
    }
    checks.push(Check::ok(
        "description.present",
        format!("{} columns from {} tables", facts.columns.len(), facts.sources.len()),
    ));
    checks.push(complete(facts));
    checks.push(mandatory(config, facts));
    checks.push(drift(facts));
    checks.push(keys(facts));
    checks.push(indexes(facts));
    checks.extend(instants(facts));
    checks.push(readable(facts));
    checks.push(publication(config, facts));
    if !facts.has_set_level {
        checks.push(Check::warning(
            "description.set_level",
            "there is no function benefits.set_level(text, text), so a level cannot be assigned",
            "create it as sql/demo/describe.sql does",
        ));
    }
    checks
}

fn migrations(facts: &Facts) -> Check {
    let id = "ledger.schema";
    let missing: Vec<String> = crate::setup::versions()
        .filter(|known| !facts.versions.contains(known))
        .map(|version| version.to_string())
        .collect();
    let newest = facts.versions.iter().max().copied().unwrap_or(0);
    if !missing.is_empty() {
        let text = format!("the schema lacks migrations {}", missing.join(", "));
        return Check::failed(id, text, "benefits-sync setup");
    }
    if crate::setup::versions().all(|known| known < newest) {
        let text = format!("the schema's version {newest} is newer than this program");
        return Check::warning(id, text, "install the newer program here too");
    }
    Check::ok(id, format!("the schema's version is {newest}"))
}

fn complete(facts: &Facts) -> Check {
    let id = "description.sources";
    if facts.roots == 0 {
        return Check::failed(
            id,
            "no described table has the employee's id as its key, so nobody knows who is employed",
            "select benefits.describe_source('hr.employee', employee_key => 'id');   (its primary key)",
        );
    }
    if facts.tables_not_described.is_empty() {
        return Check::ok(id, "every table under the record query is described");
    }
    Check::failed(
        id,
        format!(
            "the record query reads tables whose changes nobody watches: {}",
            facts.tables_not_described.join(", ")
        ),
        each(&facts.tables_not_described, |table| {
            format!("select benefits.describe_source('{table}', employee_key => '...');")
        }),
    )
}

fn mandatory(config: &Config, facts: &Facts) -> Check {
    let id = "description.mandatory";
    let described = work::described(&facts.columns).fields(config.benefits.email_source);
    let lacking = FieldSet::mandatory().difference(described);
    if lacking.is_empty() {
        return Check::ok(id, "every field that Benefits demands is described");
    }
    Check::failed(
        id,
        format!(
            "the record query lacks fields that Benefits demands of everyone: {}",
            lacking.names().join(", ")
        ),
        "add the columns to the query and run the description again (benefits.email_source says which email)",
    )
}

fn drift(facts: &Facts) -> Check {
    let mut found = Vec::new();
    for source in &facts.sources {
        if source.is_gone {
            found.push(format!("table {} is gone", source.table));
        } else if source.is_swapped {
            found.push(format!(
                "table {} is another table than the one described (swapped by a rename?)",
                source.table
            ));
        } else if !source.same_key && source.has_identity != Some(false) {
            found.push(format!("the key of {} is another than when it was described", source.table));
        }
        let table = &source.table;
        found.extend(source.columns_gone.iter().map(|column| format!("column {table}.{column} is gone")));
    }
    let known = found.join("; ");
    let more = facts.query_columns_gone.iter().filter(|name| {
        let table_is_gone =
            facts.sources.iter().any(|s| s.is_gone && name.starts_with(&format!("{}.", s.table)));
        !table_is_gone && !known.contains(name.as_str())
    });
    found.extend(more.map(|name| format!("column {name} is gone")).collect::<Vec<_>>());
    if found.is_empty() {
        return Check::ok("description.drift", "tables and columns are as described");
    }
    Check::failed(
        "description.drift",
        found.join("; "),
        "change the description to what HR has now, and run it again with psql",
    )
}

fn keys(facts: &Facts) -> Check {
    let id = "description.keys";
    let without: Vec<&str> =
        facts.sound().filter(|s| s.has_identity == Some(false)).map(|s| s.table.as_str()).collect();
    if !without.is_empty() {
        return Check::failed(
            id,
            format!(
                "no replica identity, so that updates fail while they are published: {}",
                without.join(", ")
            ),
            each(&without, |table| {
                format!("alter table {table} add primary key (...);   or replica identity using index ...;")
            }),
        );
    }
    let partitions: Vec<&str> =
        facts.sound().flat_map(|s| &s.partitions_without_identity).map(String::as_str).collect();
    if !partitions.is_empty() {
        return Check::failed(
            id,
            format!(
                "partitions without their table's replica identity, so that their updates fail, or do not say which row: {}",
                partitions.join(", ")
            ),
            each(&partitions, |partition| {
                format!("alter table {partition} replica identity using index ...;   (of the table's key)")
            }),
        );
    }
    let children: Vec<(&str, &str)> = facts
        .sound()
        .flat_map(|s| s.children.iter().map(|child| (child.as_str(), s.table.as_str())))
        .collect();
    if !children.is_empty() {
        let names: Vec<&str> = children.iter().map(|(child, _)| *child).collect();
        return Check::failed(
            id,
            format!(
                "tables inherit from described ones, so that nobody sees their rows change: {}",
                names.join(", ")
            ),
            each(&children, |(child, table)| format!("alter table {child} no inherit {table};")),
        );
    }
    Check::ok(id, "every described table has a replica identity")
}

fn indexes(facts: &Facts) -> Check {
    let id = "description.indexes";
    let without: Vec<&Source> =
        facts.sound().filter(|s| !s.is_indexed && s.rows > SMALL_TABLE_ROWS).collect();
    if without.is_empty() {
        return Check::ok(id, "every larger table is indexed by the employee's id");
    }
    let tables: Vec<&str> = without.iter().map(|source| source.table.as_str()).collect();
    Check::warning(
        id,
        format!(
            "no index begins with the employee's id, so that each record read scans: {}",
            tables.join(", ")
        ),
        each(&without, |source| {
            format!(
                "create index concurrently on {} ({});",
                source.table,
                ident(source.employee_key.as_deref().unwrap_or_default())
            )
        }),
    )
}

/// Rows that become current at instants are looked for every few seconds.
fn instants(facts: &Facts) -> Option<Check> {
    let id = "description.instants";
    let dated: Vec<&Source> = facts.sound().filter(|s| s.instants.is_some()).collect();
    if dated.is_empty() {
        return None;
    }
    let slow: Vec<&Source> =
        dated.into_iter().filter(|s| !s.instants_indexed && s.rows > SMALL_TABLE_ROWS).collect();
    if slow.is_empty() {
        return Some(Check::ok(id, "rows that become current at an instant are found by index"));
    }
    let tables: Vec<&str> = slow.iter().map(|source| source.table.as_str()).collect();
    Some(Check::warning(
        id,
        format!(
            "no index finds the rows that become current now, so every ten seconds scan: {}",
            tables.join(", ")
        ),
        each(&slow, |source| {
            let column = ident(source.effective_from.as_deref().unwrap_or_default());
            let using = if source.instants.as_deref() == Some("gist") { "using gist " } else { "" };
            format!("create index concurrently on {} {using}({column});", source.table)
        }),
    ))
}

fn readable(facts: &Facts) -> Check {
    let id = "privileges.owner";
    let closed: Vec<&str> = facts.sound().filter(|s| !s.owner_can_read).map(|s| s.table.as_str()).collect();
    if !closed.is_empty() {
        return Check::failed(
            id,
            format!("benefits_owner, as whom records are read, may not read {}", closed.join(", ")),
            each(&closed, |table| {
                let schema = table.split('.').next().unwrap_or_default();
                format!(
                    "grant usage on schema {schema} to benefits_owner; grant select on {table} to benefits_owner;"
                )
            }),
        );
    }
    let secured: Vec<&str> = facts.sound().filter(|s| s.has_row_security).map(|s| s.table.as_str()).collect();
    if !secured.is_empty() {
        return Check::failed(
            id,
            format!(
                "row security would hide employees from benefits_owner, so that reading fails: {}",
                secured.join(", ")
            ),
            "alter role benefits_owner bypassrls;   (nobody can log in as it)",
        );
    }
    Check::ok(id, "benefits_owner can read every described table")
}

fn publication(config: &Config, facts: &Facts) -> Check {
    let (id, name) = ("publication.tables", ident(&config.database.publication));
    let Some(publication) = &facts.publication else {
        return Check::failed(
            id,
            format!("there is no publication {name}"),
            "select benefits.publish_sources();",
        );
    };
    let mut missing: Vec<String> =
        facts.sound().filter(|s| !s.is_published).map(|s| s.table.clone()).collect();
    missing.extend(publication.tables_of_ours_missing.iter().map(|table| format!("benefits.{table}")));
    if !missing.is_empty() {
        return Check::failed(
            id,
            format!("changes of these tables are not published: {}", missing.join(", ")),
            each(&missing, |table| format!("alter publication {name} add table {table};")),
        );
    }
    if !publication.publishes_all || !publication.via_root {
        return Check::failed(
            id,
            "the publication leaves out inserts, updates or deletes, or names partitions instead of their table",
            format!(
                "alter publication {name} set (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);"
            ),
        );
    }
    for source in facts.sound() {
        let left_out = source.left_out();
        if source.is_filtered || !left_out.is_empty() {
            let what = if source.is_filtered {
                "a row filter".to_owned()
            } else {
                format!("a column list without {}", left_out.join(", "))
            };
            return Check::failed(
                id,
                format!("the publication has {what} for {}", source.table),
                format!(
                    "alter publication {name} drop table {0}; alter publication {name} add table {0};",
                    source.table
                ),
            );
        }
    }
    // A table that was renamed away is still in the publication, under its new name.
    let swapped = facts.sources.iter().any(|source| !source.is_there());
    if !publication.tables_not_described.is_empty() && !swapped {
        return Check::warning(
            id,
            format!(
                "the publication has tables that are nobody's business here: {}",
                publication.tables_not_described.join(", ")
            ),
            each(&publication.tables_not_described, |table| {
                format!("alter publication {name} drop table {table};")
            }),
        );
    }
    Check::ok(id, format!("publication {name} has the described tables and no other"))
}

/// A line for each.
pub(super) fn each<T>(things: &[T], line: impl Fn(&T) -> String) -> String {
    things.iter().map(line).collect::<Vec<_>>().join("\n")
}
