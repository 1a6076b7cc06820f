//! What HR's pages ask of `benefits.employee_status`, with many people in it: nobody waits for a page.

use crate::at_most;
use crate::bench_site::{BenchSite, Keys};
use crate::table::Line;

const EMPLOYEES: u64 = 200_000;
const STATUS: &str = "select * from benefits.employee_status";

/// Few in every state but Successful, at the end of the order by id or spread; names that are not all alike.
const STATES: [&str; 8] = [
    "update hr.person set forenames = 'Fore' || n % 997, surname = 'Last' || n",
    "select benefits.describe_search($$ select id as employee_id, forenames || ' ' || surname as name from hr.person $$)",
    "insert into benefits.employee (employee_id) select id::text from hr.person where n <= 200000 on conflict do nothing",
    "insert into benefits.enrolment (employee_id, platform_id, requested_by, outcome, error_code, last_synced_at)
     select id::text, 'bench', 'bench', case when n % 100 = 50 then 'failed' else 'successful' end,
         case when n % 100 = 50 then 'required' end, timestamptz '2026-01-01' + n * interval '1 minute'
     from hr.person where n <= 200000 and n % 1000 <> 999",
    "insert into benefits.pending (employee_id, cause, changed_at, last_changed_at)
     select id::text, 'change', now(), now() from hr.person where n <= 200000 and n % 500 in (50, 150) and n % 1000 < 500",
    "vacuum analyze hr.person",
    "vacuum analyze benefits.employee, benefits.enrolment, benefits.pending, benefits.request",
    "checkpoint",
];

pub async fn pages() -> Vec<Line> {
    let site = BenchSite::new(EMPLOYEES, Keys::Bigint).await;
    site.run_statements(&STATES).await;
    let page = |filter: &str| format!("{STATUS} {filter} order by employee_id limit 50");
    let of_state = |state: &str| page(&format!("where state = '{state}'"));
    let joined = format!("{STATUS} as s inner join hr.person as p on s.employee_id = p.id::text where p.n");
    vec![
        slowest(
            &site,
            "a page of 50",
            &[
                ("first", page("")),
                ("after an id", page("where employee_id > '150000'")),
                ("Not syncing", of_state("not_syncing")),
                ("In progress", of_state("in_progress")),
                ("Failed", of_state("failed")),
                ("Successful", of_state("successful")),
            ],
            (20.0, "20 ms"),
        )
        .await,
        slowest(
            &site,
            "joined with HR",
            &[
                ("one employee", format!("{joined} = 150000")),
                ("50 rows", format!("{joined} between 5000 and 5049")),
            ],
            (20.0, "20 ms"),
        )
        .await,
        slowest(
            &site,
            "search",
            &[
                ("two words", "select * from benefits.search_employees('fore12 last1')".to_owned()),
                ("nobody", "select * from benefits.search_employees('fore12 nobody')".to_owned()),
            ],
            (250.0, "250 ms"),
        )
        .await,
        slowest(
            &site,
            "everybody is read",
            &[
                (
                    "counted by state",
                    "select state, count(*) from benefits.employee_status group by state".to_owned(),
                ),
                ("sorted by last sync", format!("{STATUS} order by last_synced_at desc nulls last limit 50")),
                ("page 2,000 by offset", format!("{STATUS} order by employee_id limit 50 offset 100000")),
            ],
            (500.0, "500 ms"),
        )
        .await,
    ]
}

/// A line of several questions; the slowest of them has to meet the target.
async fn slowest(
    site: &BenchSite,
    what: &str,
    questions: &[(&str, String)],
    target: (f64, &'static str),
) -> Line {
    let mut longest = 0.0_f64;
    let mut figures = Vec::new();
    for (name, sql) in questions {
        let taken = site.question_ms(sql).await;
        longest = longest.max(taken);
        figures.push(format!("{name} {taken:.1} ms"));
    }
    let scene = format!("pages of {EMPLOYEES} employees: {what}");
    at_most(&scene, longest, target.0, figures.join(", "), target.1)
}
