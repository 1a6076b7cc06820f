//! Employees are not alike: one is always refused, one always slow, one changes without end. The others do not notice.

use std::time::Instant;

use benefits_sync::sandbox::{Fault, FaultRule, SandboxOptions};

use crate::support;
use crate::support::database::connect;
use crate::support::proof::{offences, prove};
use crate::support::site::{PATIENCE, Site, eventually};

/// Each of the 30 people so many times more.
pub const MANY: &str = "
    create temp table copy as
    select e.id as of, 1000 + row_number() over (order by n, e.id) as id
    from hr.employee as e cross join generate_series(1, {times}) as n;
    insert into hr.employee
        (id, employee_number, title, forenames, surname, date_of_birth, gender, start_date, continuous_service_date)
    select c.id, 'C' || c.id, e.title, e.forenames, e.surname, e.date_of_birth, e.gender, e.start_date, e.start_date
    from copy as c join hr.employee as e on e.id = c.of;
    insert into hr.email (employee_id, kind, address) select id, 'work', 'person' || id || '@example.com' from copy;
    insert into hr.job (id, employee_id, is_primary, title, started_on)
    select 1000000 + c.id, c.id, true, 'Clerk', '2020-01-01' from copy as c;
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
    select c.id, 1000000 + c.id, '2020-01-01', 30000, 'Per annum', 'Calendar monthly', 'Starter' from copy as c";

async fn site(settings: &str) -> Site {
    let options = SandboxOptions { keep_bodies: true, journal_max: 1_000_000, ..SandboxOptions::default() };
    let mut site = Site::with(18, options).await;
    settings.clone_into(&mut site.more);
    site.start().await;
    site
}

pub async fn number(site: &Site, sql: &str) -> i64 {
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_refused_one_slow_and_one_that_changes_without_end_delay_nobody() {
    if !support::wanted(18) {
        return;
    }
    let site = site("[delivery]\nconcurrency = 4\ntimeout = \"2m\"\n").await;
    let ids: Vec<String> = (1..=12).map(|id: i64| id.to_string()).collect();
    site.sync(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    site.sandbox.arm("reject,external-id=1".parse().unwrap());
    let slow = Fault::Slow { delay: 2 * PATIENCE, jitter: std::time::Duration::ZERO };
    site.sandbox.arm(FaultRule::always(slow).for_employee("2"));
    let hot = {
        let url = site.database.url.clone();
        tokio::spawn(async move {
            let client = connect(&url).await;
            for n in 0.. {
                let sql = format!("update hr.employee set known_as = 'Hot {n}' where id = 3");
                client.batch_execute(&sql).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        })
    };
    site.hr.execute("update hr.employee set surname = 'Trouble' where id <= 2", &[]).await.unwrap();
    eventually("the slow one is under way", async || {
        number(&site, "select count(*) from benefits.pending where employee_id = '2' and claim is not null")
            .await
            == 1
    })
    .await;
    for round in 0..5 {
        let sql = format!("update hr.employee set surname = 'Round {round}' where id between 4 and 12");
        site.hr.batch_execute(&sql).await.unwrap();
        eventually("the others are sent", async || {
            (4..=12).all(|id| site.held(&format!("{id}"), "surname") == Some(format!("Round {round}")))
        })
        .await;
    }
    // All that while the slow one's first request was open, the refused one Failed, and the hot one hot.
    let slow = "select count(*) from benefits.pending where employee_id = '2' and claim is not null and attempts = 0";
    assert_eq!(number(&site, slow).await, 1);
    assert_eq!(site.status("1").await.1.as_deref(), Some("validation"));
    assert!(!hot.is_finished());
    hot.abort();
    assert_eq!(offences(&site), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_change_overtakes_a_first_sync_of_thousands() {
    if !support::wanted(18) {
        return;
    }
    let options = SandboxOptions { keep_bodies: false, journal_max: 1_000_000, ..SandboxOptions::default() };
    let mut site = Site::with(18, options).await;
    "[delivery]\nconcurrency = 32\n".clone_into(&mut site.more);
    let times = std::env::var("FIRST_SYNC")
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .map_or(100, |n| n.div_ceil(30));
    site.hr.batch_execute(&MANY.replace("{times}", &times.to_string())).await.unwrap();
    site.start().await;
    site.sync(&["1"]).await;
    site.sandbox.arm("slow,delay=5ms".parse().unwrap());
    let everyone = "select benefits.sync(array(select id::text from hr.employee where id > 1))";
    site.hr.batch_execute(everyone).await.unwrap();
    if times > 100 {
        // The WAL is read in its order: the transaction that enrolled tens of thousands takes seconds, and is not what is asked.
        site.passed().await;
    }
    site.sandbox.until(|sandbox| sandbox.counts().created > 200).await;
    site.hr.execute("update hr.employee set surname = 'Overtaking' where id = 1", &[]).await.unwrap();
    let then = site.sandbox.journal().last().unwrap().sequence;
    let began = Instant::now();
    site.sandbox.until(|sandbox| sandbox.journal_of("1").len() > 1).await;
    let waited = began.elapsed();
    let sent = site.sandbox.journal_of("1").pop().unwrap().sequence;
    let left = number(&site, "select count(*) from benefits.pending").await;
    eprintln!(
        "of a first sync of {} it overtook {left}, {} writes and {waited:?} later",
        30 * times,
        sent - then
    );
    assert!(left > 1_000, "the first sync was over already: {left} left");
    // What had begun before it, and what was sent until it was read: 200. Behind what was prepared before it would be 450.
    assert!(sent - then < 350, "{} writes came before it", sent - then);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_min_interval_a_hot_employee_costs_calls_by_time_and_not_by_changes() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site("[delivery]\nmin_interval = \"1s\"\n").await;
    site.sync(&["1"]).await;
    let before = site.sandbox.counts().updated;
    let start = Instant::now();
    let mut changes = 0_u64;
    let mut waited = 0;
    while site.sandbox.counts().updated < before + 3 {
        changes += 1;
        let sql = format!("update hr.employee set known_as = 'Hot {changes}' where id = 1");
        site.hr.batch_execute(&sql).await.unwrap();
        if waited == 0 {
            let sql = "select count(*) from benefits.pending where not_before > now() and attempts = 0";
            waited = number(&site, sql).await;
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(waited, 1, "the wait is in the ledger, so that no scan finds the employee due");
    prove(&site).await;
    let (calls, seconds) = (site.sandbox.counts().updated - before, start.elapsed().as_secs() + 1);
    assert!(calls <= seconds + 1, "{calls} calls in {seconds} s");
    assert!(changes > 10 * calls, "{changes} changes made {calls} calls");
    assert_eq!(site.held("1", "knownAs"), Some(format!("Hot {changes}")));
    site.stop().await;
}
