//! What our presence costs the database. Never a finding: figures for the DBA.

use super::Check;
use super::description::Facts as Described;
use super::server::Facts as Server;
use crate::paint::size;

pub(super) fn judge(server: &Server, described: &Described) -> Vec<Check> {
    let retained = server.slot.as_ref().and_then(|slot| slot.retained_bytes).unwrap_or(0);
    vec![
        Check::ok("cost.connections", format!("{} sessions of ours are open", server.connections_ours)),
        Check::ok("cost.wal", format!("the slot keeps {} of WAL on disk", size(retained))),
        Check::ok(
            "cost.schema",
            format!(
                "schema benefits takes {} for {} synced employees",
                size(described.schema_bytes),
                described.enrolled
            ),
        ),
    ]
}
