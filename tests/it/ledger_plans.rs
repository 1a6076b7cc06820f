//! How delivery's statements find their rows: by key, also where they were planned before there was anybody.

use benefits_sync::ledger::Session;
use benefits_sync::postgres::Target;
use tokio_postgres::SimpleQueryMessage;

use crate::for_each_major;
use crate::support::site::Site;

/// Each with the types of its parameters.
const STATEMENTS: [(&str, &str); 8] = [
    (include_str!("../../sql/queries/load_work.sql"), "text[], boolean[], boolean"),
    (
        include_str!("../../sql/queries/write_intents.sql"),
        "bigint, text[], bigint[], bigint[], text[], bigint[], bigint[], bytea[], text[], timestamptz[]",
    ),
    (
        include_str!("../../sql/queries/record_in_hand.sql"),
        "text[], text[], text[], bigint[], bytea[], bigint[], text[], float8[], timestamptz[]",
    ),
    (
        include_str!("../../sql/queries/record_outcomes.sql"),
        "text[], bigint[], bigint[], bigint[], bytea[], bigint[], text[], text[], text[], text[], boolean[], float8[], \
         boolean[], text[], text[], bigint[], text[], text[], text[], text[], bigint[], boolean[], boolean[], bytea[], bigint[], \
         timestamptz[]",
    ),
    (
        include_str!("../../sql/queries/take_into_ledger.sql"),
        "bigint, text[], timestamptz[], timestamptz[], bigint[], bigint[], bytea[], boolean[], bigint[]",
    ),
    (include_str!("../../sql/queries/postpone.sql"), "bigint, text[], float8[], integer[]"),
    (include_str!("../../sql/queries/judge.sql"), "text[], bigint[], bytea[], text[]"),
    (include_str!("../../sql/queries/rescue_claims.sql"), "oid"),
];

/// What the planner may have seen of the tables when a session began, one after the other.
const STATES: [(&str, &str); 4] = [
    ("as they were made", "select"),
    // What autovacuum makes of a ledger in which nobody waits: it then believes in one page and one row.
    ("known to be empty", "vacuum analyze benefits.pending, benefits.enrolment"),
    (
        "everybody enrolled, nobody waiting",
        "insert into benefits.employee (employee_id) select n::text from generate_series(1, 5000) as n on conflict do nothing; \
         insert into benefits.enrolment (employee_id, platform_id, requested_by, outcome, linked) \
         select e.employee_id, 'p', 'test', 'successful', false from benefits.employee as e; \
         analyze benefits.pending, benefits.enrolment",
    ),
    (
        "one waiting",
        "insert into benefits.pending (employee_id, cause, changed_at, last_changed_at) values ('1', 'change', now(), now()); \
         analyze benefits.pending, benefits.enrolment",
    ),
];

for_each_major! {
    async fn whatever_was_known_of_the_tables_when_a_statement_was_planned_it_finds_its_rows_by_key(major: u32) {
        let site = Site::new(major).await;
        let target = Target::parse(&site.database.url).unwrap();
        for (state, sql) in STATES {
            site.hr.batch_execute(sql).await.unwrap();
            let session = Session::connect_by_key(&target, "test").await.unwrap();
            for (n, (sql, types)) in STATEMENTS.iter().enumerate() {
                let nulls = vec!["null"; types.split(", ").count()].join(", ");
                session.batch("prepare", &format!("prepare s{n} ({types}) as {sql}")).await.unwrap();
                let explain = format!("explain (costs off) execute s{n} ({nulls})");
                let plan = session.client().simple_query(&explain).await.unwrap();
                let lines: Vec<&str> = plan.iter().filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                }).collect();
                assert!(by_key(&lines).unwrap_or_else(|line| panic!("{state}: {line} in {lines:#?}")) > 0, "{lines:#?}");
            }
        }
    }
}

/// How many scans of a plan find rows of the ledger by place or key, or the line of one that does not.
fn by_key<'l>(plan: &[&'l str]) -> Result<usize, &'l str> {
    let mut count = 0;
    for (at, line) in plan.iter().enumerate() {
        let of_the_ledger =
            ["enrolment", "pending"].iter().any(|table| line.contains(&format!(" on {table} ")));
        let condition = plan.get(at + 1).unwrap_or(line);
        // Claims are looked for among all who wait, once.
        let of_all_claims = condition.contains("Filter: (claim IS NOT NULL)")
            && plan.iter().any(|line| line.contains("pg_lock"));
        if !of_the_ledger || !line.contains("Scan") || of_all_claims {
            continue;
        }
        let by_place = line.contains("Tid Scan") && condition.contains("TID Cond: ");
        let by_index =
            line.contains("Index Scan using") && condition.contains("Index Cond: (employee_id = ANY (ARRAY[");
        if !by_place && !by_index {
            return Err(line);
        }
        count += 1;
    }
    Ok(count)
}
