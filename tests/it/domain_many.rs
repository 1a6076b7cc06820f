//! Many people at once: Sync of everybody in one call, and the mass-change guard's limits.
//!
//! `make test` takes a few hundred; `make soak CROWD=50000` as many as that, and prints figures.

use std::time::{Duration, Instant};

use benefits_sync::sandbox::SandboxOptions;

use crate::support::database::database;
use crate::support::site::{Site, eventually, prepare_with};

/// A site with so many people, nobody of whom has left.
async fn crowd(count: usize, more: &str) -> Site {
    let database = database(18).await;
    prepare_with(&database.url, count).await;
    let mut site = Site::on(database, SandboxOptions::default()).await;
    more.clone_into(&mut site.more);
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site
}

async fn number(site: &Site, sql: &str) -> i64 {
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits for as long as many people may take; how long that was.
async fn at_length(what: &str, most: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < most, "not within {most:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    begun.elapsed()
}

fn left(site: &Site) -> usize {
    site.sandbox.accounts().iter().filter(|account| account.get("leaveDate").is_some()).count()
}

const PENDING: &str =
    "select (select count(*) from benefits.pending) + (select count(*) from benefits.request)";

/// First sync of everybody in one call; then one statement that ends too many of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_synced_in_one_call_and_more_than_ten_percent_that_would_leave_are_held() {
    let people = std::env::var("CROWD").ok().and_then(|text| text.parse().ok()).unwrap_or(400_usize);
    let ended = people / 10 + 1;
    // Twenty minutes for 50,000.
    let most = Duration::from_mins(1) + Duration::from_millis(24) * u32::try_from(people).unwrap();
    let mut site = crowd(people, "").await;
    site.start().await;
    let begun = Instant::now();
    let count: i32 = site
        .hr
        .query_one("select benefits.sync(array(select id::text from hr.employee))", &[])
        .await
        .unwrap()
        .get(0);
    let called = begun.elapsed();
    assert_eq!(usize::try_from(count).unwrap(), people);
    let synced =
        at_length("everybody is synced", most, async || number(&site, PENDING).await == 0).await + called;
    let linked = number(&site, "select count(*) from benefits.enrolment where linked").await;
    assert_eq!(
        number(
            &site,
            "select count(*) from benefits.employee_status where state in ('successful', 'failed')"
        )
        .await,
        i64::try_from(people).unwrap()
    );
    eprintln!(
        "{people} people: sync() returned in {called:?}, {linked} accounts after {synced:?}: {:.0}/s",
        f64::from(count) / synced.as_secs_f64()
    );

    let sent = site.sandbox.counts().updated;
    let begun = Instant::now();
    site.hr
        .batch_execute(&format!(
            "update hr.employee set leave_date = '2027-03-31' where id in (
                 select e.employee_id::bigint from benefits.enrolment as e where e.linked order by 1 limit {ended})"
        ))
        .await
        .unwrap();
    let updated = begun.elapsed();
    // Somebody else's change flows meanwhile.
    let other =
        "select max(e.employee_id::bigint)::text from benefits.enrolment as e where e.outcome = 'successful'";
    let other: String = site.hr.query_one(other, &[]).await.unwrap().get(0);
    let sql = "update hr.employee set surname = 'Flows' where id = $1::text::bigint";
    site.hr.execute(sql, &[&other]).await.unwrap();
    let held =
        "select coalesce(max(cardinality(employee_ids)), 0)::bigint from benefits.hold where state = 'open'";
    let all = i64::try_from(ended).unwrap();
    at_length("they are held", most, async || number(&site, held).await == all).await;
    let judged = begun.elapsed();
    at_length("the other's change is there", most, async || {
        site.held(&other, "surname").as_deref() == Some("Flows")
    })
    .await;
    assert_eq!(left(&site), 0, "counted before anything is sent");
    assert_eq!(site.sandbox.counts().updated, sent + 1, "and everyone else flows");
    let row =
        site.hr.query_one("select reason, transaction_user, hold_id from benefits.hold", &[]).await.unwrap();
    let (reason, user): (String, Option<String>) = (row.get(0), row.get(1));
    assert!(
        reason.starts_with(&format!("{ended} employees ({ended} would get a leave date) within 00:10:00")),
        "{reason}"
    );
    eprintln!("UPDATE of {ended}: {updated:?}; held after {judged:?}: {reason}; by {user:?}");

    let begun = Instant::now();
    site.hr.execute("select benefits.release($1)", &[&row.get::<_, i64>(2)]).await.unwrap();
    at_length("all are sent", most, async || left(&site) == ended).await;
    eprintln!("released: {ended} sent after {:?}", begun.elapsed());
    site.stop().await;
}

#[tokio::test]
async fn ten_percent_flow_and_the_next_within_the_window_is_held() {
    let mut site = crowd(300, "").await;
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
    site.settled().await;
    let limit =
        number(&site, "select floor(0.1 * count(*))::bigint from benefits.enrolment where linked").await;
    assert!(limit > 20, "ten percent are more than 20: {limit}");
    let end = async |count: i64| {
        site.hr
            .batch_execute(&format!(
                "update hr.employee set leave_date = '2027-03-31' where id in (select e.employee_id::bigint from benefits.enrolment as e
                    inner join hr.employee as h on h.id = e.employee_id::bigint where e.linked and h.leave_date is null order by 1 limit {count})"
            ))
            .await
            .unwrap();
        site.passed().await;
    };
    end(limit).await;
    site.settled().await;
    assert_eq!(left(&site), usize::try_from(limit).unwrap());
    end(1).await;
    eventually("one is held", async || {
        number(&site, "select count(*) from benefits.hold where state = 'open'").await == 1
    })
    .await;
    assert_eq!(left(&site), usize::try_from(limit).unwrap());
    site.stop().await;
}

#[tokio::test]
async fn of_few_people_twenty_flow_and_twenty_one_are_held() {
    let mut site = crowd(60, "").await;
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
    site.settled().await;
    let end = "update hr.employee set leave_date = '2027-03-31' where id in (select employee_id::bigint from benefits.enrolment where linked order by 1 limit";
    site.hr.batch_execute(&format!("{end} 21)")).await.unwrap();
    eventually("they are held", async || {
        number(&site, "select coalesce(max(cardinality(employee_ids)), 0)::bigint from benefits.hold").await
            == 21
    })
    .await;
    assert_eq!(left(&site), 0);
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site.settled().await;
    site.hr.batch_execute("delete from benefits.ending").await.unwrap();
    site.hr.batch_execute(&format!("{end} 20)")).await.unwrap();
    site.settled().await;
    assert_eq!(left(&site), 20);
    site.stop().await;
}

#[tokio::test]
async fn endings_that_are_further_apart_than_the_window_are_not_counted_together() {
    let mut site = crowd(20, "[guard]\nminimum = 2\nwindow = \"1s\"\n").await;
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
    site.settled().await;
    for (first, last) in [(1, 2), (3, 4), (5, 6)] {
        site.hr
            .batch_execute(&format!(
                "update hr.employee set leave_date = '2027-03-31' where id between {first} and {last}"
            ))
            .await
            .unwrap();
        site.settled().await;
        eventually("the window has passed", async || {
            number(
                &site,
                "select count(*) from benefits.ending where at > clock_timestamp() - interval '1 second'",
            )
            .await
                == 0
        })
        .await;
    }
    assert_eq!(left(&site), 6);
    assert_eq!(number(&site, "select count(*) from benefits.hold").await, 0);
    site.stop().await;
}

#[tokio::test]
async fn who_has_had_no_progress_for_a_quarter_of_an_hour_is_stuck_and_who_is_held_or_only_queued_is_not() {
    let mut site = crowd(20, "[guard]\nminimum = 1\n").await;
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array['1', '2', '3', '4', '5'])").await.unwrap();
    site.settled().await;
    site.hr
        .batch_execute("update hr.employee set leave_date = '2027-03-31' where id in (1, 2)")
        .await
        .unwrap();
    eventually("two are held", async || {
        number(&site, "select count(*) from benefits.pending where hold_id is not null").await == 2
    })
    .await;
    // Changes are collected, and nobody delivers.
    site.stop().await;
    "enabled = false".clone_into(&mut site.benefits);
    site.start().await;
    site.hr.batch_execute("update hr.employee set surname = 'Waits' where id in (3, 4)").await.unwrap();
    site.passed().await;
    // 3 waits for its turn while others were served; 4 has been tried, and nothing has come of it.
    site.hr
        .batch_execute(
            "update benefits.pending set pending_since = now() - interval '16 minutes', progressed_at = now() - interval '16 minutes';
             update benefits.pending set attempts = 1 where employee_id = '4'",
        )
        .await
        .unwrap();
    eventually("one is stuck", async || {
        site.get("/metrics").await.1.contains("benefits_sync_stuck_employees 1")
    })
    .await;
    // Nobody else has been served either.
    site.hr.batch_execute("delete from benefits.history").await.unwrap();
    eventually("two are stuck", async || {
        site.get("/metrics").await.1.contains("benefits_sync_stuck_employees 2")
    })
    .await;
    site.stop().await;
}

#[tokio::test]
async fn a_command_for_thousands_that_is_cut_off_between_its_pages_forgets_and_repeats_nobody() {
    // The last page goes with the commit itself; the first has what is left.
    let (people, page) = (2_060, 60);
    let site = crowd(people, "").await;
    let go = site.directory.path().join("go");
    let process = site.spawn_armed(&format!("command-page=pause:{}", go.display()));
    site.until_ready().await;
    // The comparison of a first start would mark whom it finds under way, and they would be sent in full once more.
    eventually("the first start's comparison has ended", async || {
        number(&site, "select count(*) from benefits.site where doubt is null").await == 1
    })
    .await;
    let everybody = "select benefits.sync(array(select id::text from hr.employee))";
    site.hr.batch_execute(everybody).await.unwrap();
    let begun = async |site: &Site| number(site, "select count(*) from benefits.enrolment").await;
    let reached = go.with_extension("reached");
    eventually("a page is released", async || reached.exists()).await;
    assert_eq!(begun(&site).await, page);
    eventually("the page is delivered", async || {
        number(&site, "select count(*) from benefits.pending").await == 0
    })
    .await;
    let first = site.sandbox.journal().len();
    process.kill9();
    let process = site.spawn().await;
    at_length("everybody is delivered", Duration::from_mins(3), async || number(&site, PENDING).await == 0)
        .await;
    assert_eq!(begun(&site).await, i64::try_from(people).unwrap());
    assert!(first >= usize::try_from(page).unwrap());
    let counts = site.sandbox.counts();
    assert_eq!((counts.updated, counts.replayed), (0, 0), "nobody is sent twice");
    let twice = "select count(*) from (select employee_id from benefits.history group by employee_id having count(*) > 1) as h";
    assert_eq!(number(&site, twice).await, 0);
    process.kill9();
}
