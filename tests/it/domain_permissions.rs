//! Who may do what: viewers read states and history and nothing more, managers act, nobody else sees anything.

use tokio_postgres::Client;

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::site::{Site, eventually};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What people read.
const READS: [&str; 8] = [
    "select * from benefits.employee_status",
    "select * from benefits.sync_history",
    "select * from benefits.hold",
    "select * from benefits.upcoming_change",
    "select * from benefits.known_level",
    "select benefits.why('1')",
    "select benefits.today()",
    "select benefits.now()",
];

/// What managers do.
const ACTS: [&str; 10] = [
    "select benefits.sync(array['1'])",
    "select benefits.assign_level(array['1'], 'Standard')",
    "select benefits.transfer_link('1', '2')",
    "select benefits.relink('1')",
    "select benefits.relink('1', 'b000001')",
    "select benefits.release(1)",
    "select benefits.discard(1)",
    "select benefits.pause('test')",
    "select benefits.resume()",
    "select benefits.forget('30')",
];

/// What nobody but the service touches.
const INNER: [&str; 12] = [
    "select * from benefits.enrolment",
    "select * from benefits.pending",
    "select * from benefits.site",
    "select * from benefits.employee",
    "select * from benefits.history",
    "insert into benefits.request (employee_id, kind, requested_by) values ('1', 'sync', 'forged')",
    "update benefits.site set platform_id = 'x'",
    "select * from benefits.read_records(array['1'])",
    "select benefits.set_level('1', 'Standard')",
    "select benefits.keep_history(0)",
    "select benefits.apply_holds(array[1])",
    "select benefits.describe_record('select 1 as employee_id')",
];

async fn is_refused(client: &Client, sql: &str) -> bool {
    match client.batch_execute(sql).await {
        Ok(()) => false,
        // A rule of the command itself: the caller has got so far.
        Err(error) => error.code().unwrap().code() == INSUFFICIENT_PRIVILEGE,
    }
}

/// A login of this test's own.
async fn login(site: &Site, role: Option<&str>) -> (String, Client) {
    let name = format!("{}_{}", role.unwrap_or("nobody"), site.database.name);
    let member = role.map(|role| format!(" in role {role}")).unwrap_or_default();
    site.hr.batch_execute(&format!("create role \"{name}\" login{member}")).await.unwrap();
    let client = connect(&site.database.url_as(&name)).await;
    (name, client)
}

for_each_major! {
    async fn a_viewer_reads_states_and_history_and_nothing_more(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let (name, viewer) = login(&site, Some("benefits_viewer")).await;
        for sql in READS {
            assert!(!is_refused(&viewer, sql).await, "{sql}");
        }
        for sql in ACTS.iter().chain(&INNER) {
            assert!(is_refused(&viewer, sql).await, "{sql}");
        }
        site.hr.batch_execute(&format!("drop role \"{name}\"")).await.unwrap();
        site.stop().await;
    }

    async fn a_manager_acts_and_does_not_reach_into_the_ledger(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let (name, manager) = login(&site, Some("benefits_manager")).await;
        for sql in READS.iter().chain(&ACTS) {
            assert!(!is_refused(&manager, sql).await, "{sql}");
        }
        for sql in INNER.iter().filter(|sql| !sql.contains("set_level")) {
            assert!(is_refused(&manager, sql).await, "{sql}");
        }
        let sql = "select count(*) from benefits.request where requested_by = $1";
        eventually("what was asked for so far is taken up", async || {
            site.hr.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        site.stop().await;
        manager.batch_execute("select benefits.sync(array['2'])").await.unwrap();
        assert_eq!(site.hr.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0), 1, "requested_by is the database user");
        site.hr.batch_execute(&format!("drop role \"{name}\"")).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_else_sees_anything() {
    let site = Site::new(18).await;
    let (name, nobody) = login(&site, None).await;
    for sql in READS.iter().chain(&ACTS).chain(&INNER) {
        assert!(is_refused(&nobody, sql).await, "{sql}");
    }
    site.hr.batch_execute(&format!("drop role \"{name}\"")).await.unwrap();
}

#[tokio::test]
async fn roles_that_are_set_count_as_logins_do() {
    let site = Site::new(18).await;
    site.hr.batch_execute("set role benefits_viewer").await.unwrap();
    assert!(!is_refused(&site.hr, READS[0]).await);
    assert!(is_refused(&site.hr, ACTS[0]).await);
    site.hr.batch_execute("reset role; set role benefits_manager").await.unwrap();
    assert!(!is_refused(&site.hr, ACTS[0]).await);
    site.hr.batch_execute("reset role; set role benefits_reader").await.unwrap();
    for sql in READS.iter().chain(&ACTS) {
        assert!(is_refused(&site.hr, sql).await, "{sql}");
    }
}

#[tokio::test]
async fn the_functions_check_by_themselves_whoever_was_given_the_right_to_execute() {
    let site = Site::new(18).await;
    let (name, viewer) = login(&site, Some("benefits_viewer")).await;
    site.hr
        .batch_execute("grant execute on all functions in schema benefits to benefits_viewer")
        .await
        .unwrap();
    for sql in ACTS {
        assert!(is_refused(&viewer, sql).await, "{sql}");
    }
    site.hr.batch_execute(&format!("drop owned by \"{name}\"; drop role \"{name}\"")).await.unwrap();
}

#[tokio::test]
async fn definer_functions_pin_their_search_path_and_belong_to_the_owner_that_nobody_logs_in_as() {
    let site = Site::new(18).await;
    let sql = "select p.oid::regprocedure::text from pg_proc as p
        where p.pronamespace = 'benefits'::regnamespace and p.prosecdef and p.proname <> 'set_level'
            and (not coalesce(array_to_string(p.proconfig, ' ') like '%search_path=%pg_temp%', false)
                or p.proowner <> 'benefits_owner'::regrole
                or has_function_privilege('public', p.oid, 'execute'))";
    let loose: Vec<String> = site.hr.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(loose.is_empty(), "{loose:?}");
    // A function of the caller's that is named as one of PostgreSQL's is not called instead.
    let (name, manager) = login(&site, Some("benefits_manager")).await;
    manager
        .batch_execute(
            "create function pg_temp.cardinality(anyarray) returns integer language plpgsql as $$ begin raise 'trapped'; end $$;
             set search_path = pg_temp, pg_catalog; select benefits.sync(array['1'])",
        )
        .await
        .unwrap();
    site.hr.batch_execute(&format!("drop owned by \"{name}\" cascade; drop role \"{name}\"")).await.unwrap();
}

#[tokio::test]
async fn the_pipeline_runs_with_the_rights_of_its_two_logins_alone() {
    let mut site = Site::new(18).await;
    site.logins = true;
    site.more = "[guard]\nminimum = 1\n".to_owned();
    site.start().await;
    site.hr.batch_execute("update hr.employee set leave_date = null").await.unwrap();
    site.sync(&["1", "2", "3"]).await;
    site.hr.batch_execute("update hr.department set name = name || ' (new)'; select benefits.assign_level(array['1'], 'Executive')").await.unwrap();
    site.settled().await;
    site.hr.batch_execute("insert into benefits.level_package values ('Legacy B', 'core'); update hr.employee set leave_date = '2027-01-01'").await.unwrap();
    eventually("held", async || site.why("1").await.contains("held")).await;
    site.hr
        .batch_execute("select benefits.release(hold_id) from benefits.hold where state = 'open'")
        .await
        .unwrap();
    site.settled().await;
    site.hr.batch_execute("select benefits.transfer_link('1', '4'), benefits.relink('2')").await.unwrap();
    site.settled().await;
    for id in ["1", "2", "3", "4"] {
        assert_eq!(site.status(id).await, ("successful".to_owned(), None), "{id}");
    }
    site.stop().await;
}
