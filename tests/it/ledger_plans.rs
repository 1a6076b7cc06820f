//! How delivery's statements find their rows: by key, also where they were planned before there was anybody.

use benefits_sync::ledger::Session;
use benefits_sync::postgres::Target;
use tokio_postgres::SimpleQueryMessage;

use crate::for_each_major;
use crate::support::site::Site;

/// Each with the types of its parameters.
const STATEMENTS: [(&str, &str); 5] = [
    (include_str!("../../sql/queries/load_work.sql"), "text[], boolean[], boolean"),
    (
        include_str!("../../sql/queries/write_intents.sql"),
        "bigint, text[], bigint[], bigint[], text[], bigint[], bigint[], bytea[], text[]",
    ),
    (
        include_str!("../../sql/queries/record_in_hand.sql"),
        "text[], text[], text[], bigint[], bytea[], bigint[], text[], float8[], timestamptz[]",
    ),
    (
        include_str!("../../sql/queries/record_outcomes.sql"),
        "text[], bigint[], bigint[], bigint[], bytea[], bigint[], text[], text[], text[], text[], boolean[], float8[], \
         boolean[], text[], text[], bigint[], text[], text[], text[], text[], bigint[], boolean[], boolean[], bytea[], bigint[]",
    ),
    (
        include_str!("../../sql/queries/take_into_ledger.sql"),
        "bigint, text[], timestamptz[], timestamptz[], bigint[], bigint[], bytea[], boolean[], bigint[]",
    ),
];

for_each_major! {
    async fn what_is_planned_while_the_ledger_is_empty_finds_its_rows_by_key_when_it_is_not(major: u32) {
        let site = Site::new(major).await;
        let session = Session::connect_by_key(&Target::parse(&site.database.url).unwrap(), "test").await.unwrap();
        for (n, (sql, types)) in STATEMENTS.iter().enumerate() {
            let nulls = vec!["null"; types.split(", ").count()].join(", ");
            session.batch("prepare", &format!("prepare s{n} ({types}) as {sql}")).await.unwrap();
            let plan = session.client().simple_query(&format!("explain (costs off) execute s{n} ({nulls})")).await.unwrap();
            let lines: Vec<&str> = plan.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            }).collect();
            let mut by_key = 0;
            for (at, line) in lines.iter().enumerate() {
                if !["enrolment", "pending"].iter().any(|table| line.contains(&format!(" on {table} "))) || !line.contains("Scan") {
                    continue;
                }
                let by_place = line.contains("Tid Scan") && lines[at + 1].contains("TID Cond: ");
                let by_index =
                    line.contains("Index Scan using") && lines[at + 1].contains("Index Cond: (employee_id = ");
                assert!(by_place || by_index, "{line} in {lines:#?}");
                by_key += 1;
            }
            assert!(by_key > 0, "{lines:#?}");
        }
    }
}
