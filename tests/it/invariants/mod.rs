//! The first five invariants of the design, each broken on purpose at the place where it would hurt.

mod durable;
mod instances;
mod versions;

use benefits_sync::sandbox::{FaultRule, JournalEntry};

use crate::support::site::{Site, eventually};

fn fault(text: &str) -> FaultRule {
    text.parse().unwrap()
}

async fn confirmed(site: &Site) -> String {
    let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1::text::name";
    site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get(0)
}

async fn is_before(site: &Site, a: &str, b: &str) -> bool {
    let sql = "select $1::text::pg_lsn < $2::text::pg_lsn";
    site.hr.query_one(sql, &[&a, &b]).await.unwrap().get(0)
}

async fn wal_end(site: &Site) -> String {
    site.hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0)
}

async fn surname(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

/// Waits until somebody waits for a lock on the table.
async fn until_blocked(site: &Site, table: &str) {
    eventually("the marker waits for the lock", async || {
        let sql = "select exists (select from pg_locks where relation = $1::text::regclass and not granted)";
        site.hr.query_one(sql, &[&table]).await.unwrap().get(0)
    })
    .await;
}

/// Writes of the employee that reached the platform, whatever became of them.
fn writes(site: &Site, id: &str) -> Vec<JournalEntry> {
    site.sandbox.journal_of(id)
}

fn versions_rise(entries: &[JournalEntry]) {
    let mut acted: Vec<i64> = entries.iter().filter(|e| e.acted()).filter_map(|e| e.source_version).collect();
    let seen = acted.clone();
    acted.sort_unstable();
    acted.dedup();
    assert_eq!(acted, seen, "versions of accepted writes rise");
}
