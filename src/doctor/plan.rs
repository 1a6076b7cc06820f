//! The record query's plan: reading one employee must not grow with the number of employees.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Check;
use super::description::each;
use crate::ledger::Session;

/// A sequential scan of more rows than this for each record is refused.
const SCAN_MAX_ROWS: f64 = 10_000.0;

/// Explains the query for one employee, without running it.
pub(super) async fn check(session: &Session) -> Vec<Check> {
    let id = "description.plan";
    let sql =
        "select benefits.explain_record(coalesce((select min(employee_id) from benefits.employee), '0'))";
    let plan: Value = match session.query("explain the record query", sql, &[]).await {
        Ok(rows) => rows.first().map(|row| row.get(0)).unwrap_or_default(),
        Err(error) => {
            return vec![Check::failed(
                "description.query",
                format!("the record query does not work: {error}"),
                "change the description to what HR has now, and run it again with psql",
            )];
        }
    };
    let mut tables = BTreeSet::new();
    scans(&plan, &mut tables);
    let mut sizes = Vec::new();
    for (schema, table) in tables {
        let sql = "select greatest(c.reltuples, c.relpages * 10.0)::float8 from pg_class as c \
                   where c.relnamespace = (select n.oid from pg_namespace as n where n.nspname = $1::text) and c.relname = $2::text";
        let rows = session.query("look at a table's size", sql, &[&schema, &table]).await.unwrap_or_default();
        let rows = rows.first().map_or(0.0, |row| row.get::<_, f64>(0));
        if rows > SCAN_MAX_ROWS {
            sizes.push((format!("{}.{}", super::ident(&schema), super::ident(&table)), rows));
        }
    }
    let ok = Check::ok("description.query", "the record query works");
    if sizes.is_empty() {
        return vec![ok, Check::ok(id, "reading one employee scans no large table")];
    }
    let text =
        sizes.iter().map(|(table, rows)| format!("{table} ({rows:.0} rows)")).collect::<Vec<_>>().join(", ");
    let remedy = each(&sizes, |(table, _)| {
        format!("create index concurrently on {table} (...);   on what the query joins it by")
    });
    vec![ok, Check::failed(id, format!("reading one employee scans the whole of {text}"), remedy)]
}

/// Whether people can be found by name, where the site has described how.
pub(super) async fn search(session: &Session, is_described: bool) -> Check {
    let id = "description.search";
    if !is_described {
        return Check::ok(
            id,
            "names are not described (benefits.describe_search): people are found by id alone",
        );
    }
    match session.query("explain the search", "select benefits.explain_search()", &[]).await {
        Ok(_) => Check::ok(id, "people can be found by name"),
        Err(error) => Check::warning(
            id,
            format!("the search query does not work any more: {error}"),
            "select benefits.describe_search($$ ... $$);   with what HR has now, or null to do without",
        ),
    }
}

/// Tables, by schema and name, that a plan scans from end to end.
fn scans(plan: &Value, tables: &mut BTreeSet<(String, String)>) {
    match plan {
        Value::Array(items) => items.iter().for_each(|item| scans(item, tables)),
        Value::Object(node) => {
            let text = |key: &str| node.get(key).and_then(Value::as_str);
            if text("Node Type") == Some("Seq Scan")
                && let (Some(schema), Some(table)) = (text("Schema"), text("Relation Name"))
            {
                tables.insert((schema.to_owned(), table.to_owned()));
            }
            ["Plan", "Plans"].iter().filter_map(|key| node.get(*key)).for_each(|below| scans(below, tables));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_found_however_deep_it_is() {
        let plan = serde_json::json!([{"Plan": {"Node Type": "Nested Loop", "Plans": [
            {"Node Type": "Index Scan", "Relation Name": "employee", "Schema": "hr"},
            {"Node Type": "Limit", "Plans": [{"Node Type": "Seq Scan", "Relation Name": "Pay", "Schema": "hr"}]}
        ]}}]);
        let mut tables = BTreeSet::new();
        scans(&plan, &mut tables);
        assert_eq!(tables.into_iter().collect::<Vec<_>>(), [("hr".to_owned(), "Pay".to_owned())]);
    }
}
