//! A platform that is down, slow or wrong: nobody is blamed for it, nothing is lost, and HR's server does not feel it.

use std::time::Duration;

use benefits_sync::sandbox::{Fault, FaultRule, Operation, SandboxOptions};

use crate::support;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

const QUICK: &str = "[delivery]\ntimeout = \"500ms\"\nbackoff_min = \"20ms\"\nbackoff_max = \"200ms\"\n";

/// A site that is up, with these employees synced. The platform's faults are not PostgreSQL's, so one version will do.
async fn site(settings: &str, synced: std::ops::RangeInclusive<i64>) -> Site {
    let options = SandboxOptions { keep_bodies: true, journal_max: 1_000_000, ..SandboxOptions::default() };
    let mut site = Site::with(18, options).await;
    settings.clone_into(&mut site.more);
    site.start().await;
    sync(&site, synced).await;
    site
}

async fn sync(site: &Site, ids: std::ops::RangeInclusive<i64>) {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    site.sync(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

async fn rename(site: &Site, surname: &str, up_to: i64) {
    let sql = "update hr.employee set surname = $1 where id <= $2";
    site.hr.execute(sql, &[&surname, &up_to]).await.unwrap();
}

async fn number(site: &Site, sql: &str) -> i64 {
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

async fn halted_for(site: &Site, code: &str) {
    let metric = format!("benefits_sync_delivery_halted{{reason=\"{code}\"}} 1");
    eventually("it is halted, and says so", async || {
        let (status, text) = site.get("/readyz").await;
        let shown = "select count(*) from benefits.site where halted_code = $1";
        status == 503
            && text.contains(code)
            && site.get("/metrics").await.1.contains(&metric)
            && site.hr.query_one(shown, &[&code]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(number(site, "select count(*) from benefits.enrolment where outcome = 'failed'").await, 0);
}

async fn goes_on(site: &Site) {
    site.until_ready().await;
    let metrics = site.get("/metrics").await.1;
    let halts = |line: &str| line.starts_with("benefits_sync_delivery_halted{") && line.ends_with(" 1");
    assert!(!metrics.lines().any(halts));
    prove(site).await;
    assert_eq!(number(site, "select count(*) from benefits.site where halted_code is not null").await, 0);
}

/// Rules whose `{on}` is each of reads and writes.
const SURVIVED: [&str; 11] = [
    "unavailable,next=6",
    "internal,next=3",
    "internal-after,next=3",
    "lost-before,next=3",
    "lost-after,next=3",
    "half-answer,next=3",
    "wrong-content-type,next=3",
    "huge-body,next=1",
    "invalid-json,next=3",
    "redirect,next=3",
    "slow-answer,delay=900ms,next=2",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wrong_answer_loses_a_change_or_makes_a_second_account() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=2).await;
    let mut newcomer = 2;
    for fault in SURVIVED {
        for on in ["reads", "writes"] {
            let rule = format!("{fault},on={on}");
            site.sandbox.arm(rule.parse().unwrap());
            newcomer += 1;
            let surname = rule.chars().filter(char::is_ascii_alphabetic).collect::<String>();
            rename(&site, &surname, 2).await;
            // Ids beyond the people are those that were synced before, sent again in full.
            let id = (newcomer % 28 + 1).to_string();
            site.hr.execute("select benefits.sync(array[$1])", &[&id]).await.unwrap();
            prove(&site).await;
            assert_eq!(site.held("2", "surname"), Some(surname), "{rule}");
            site.sandbox.disarm_all();
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_opens_the_breaker_and_drains_with_one_update_an_employee() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site("[delivery]\nbackoff_min = \"1s\"\nbackoff_max = \"2s\"\n", 1..=15).await;
    site.sandbox.arm(FaultRule::always(Fault::Unavailable(None)));
    rename(&site, "First", 15).await;
    eventually("the breaker is open", async || {
        site.get("/metrics").await.1.contains("benefits_sync_breaker_state 2")
    })
    .await;
    let waiting = "select count(*) from benefits.pending where not_before > now() and attempts > 0";
    eventually("the next attempts' times are in the ledger", async || number(&site, waiting).await > 0).await;
    for surname in ["Second", "Third", "Fourth"] {
        rename(&site, surname, 15).await;
    }
    site.passed().await;
    // Sent at most once each before it opened, and one probe at a time since: not once a change.
    assert!(site.sandbox.counts().faults["unavailable"] < 40, "{:?}", site.sandbox.counts().faults);
    let before = site.sandbox.journal().last().unwrap().sequence;
    assert_eq!(number(&site, "select count(*) from benefits.enrolment where outcome = 'failed'").await, 0);
    site.sandbox.disarm_all();
    prove(&site).await;
    for id in 1..=15_i64 {
        let id = id.to_string();
        let sent = site.sandbox.journal_of(&id).into_iter().filter(|e| e.sequence > before && e.acted());
        assert_eq!((sent.count(), site.held(&id, "surname").as_deref()), (1, Some("Fourth")), "{id}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_halts_the_site_blames_nobody_and_a_new_one_resumes() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=3).await;
    site.sandbox.set_token("rotated");
    rename(&site, "Halted", 3).await;
    halted_for(&site, "credentials").await;
    assert_eq!(site.status("1").await.0, "in_progress");
    std::fs::write(site.directory.path().join("token"), "rotated").unwrap();
    goes_on(&site).await;
    assert_eq!(site.held("3", "surname").as_deref(), Some("Halted"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_whose_cause_is_mended_does_not_outlive_its_session() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=1).await;
    site.sandbox.set_token("rotated");
    rename(&site, "Halted", 1).await;
    halted_for(&site, "credentials").await;
    std::fs::write(site.directory.path().join("token"), "rotated").unwrap();
    let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
               where application_name = 'benefits-sync delivery' and datname = current_database()";
    assert_eq!(number(&site, sql).await, 1);
    goes_on(&site).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_platform_halts_the_site_until_it_is_active() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=2).await;
    site.sandbox.set_suspended(true);
    rename(&site, "Suspended", 2).await;
    halted_for(&site, "platform-suspended").await;
    // Asked again, the platform answers 200 and "suspended": still a halt.
    let asked = || site.sandbox.counts().answers["getPlatform"][&200];
    let before = asked();
    eventually("it is asked again", async || asked() > before).await;
    halted_for(&site, "platform-suspended").await;
    site.sandbox.set_suspended(false);
    goes_on(&site).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_site_halts_until_it_is_allowed() {
    halts_on("forbidden", "forbidden").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_is_not_found_halts_the_site_and_breaks_no_link() {
    halts_on("not-found", "wrong-platform").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_platform_halts_the_site_and_breaks_no_link() {
    halts_on("gone", "wrong-platform").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_may_read_and_not_write_stays_halted_and_tries_one_employee_at_a_time() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=20).await;
    site.sandbox.arm("forbidden,on=writes".parse().unwrap());
    rename(&site, "Forbidden", 20).await;
    halted_for(&site, "forbidden").await;
    let refused = || site.sandbox.counts().faults["forbidden"];
    let asked = || site.sandbox.counts().answers["getPlatform"][&200];
    let (refused_before, asked_before) = (refused(), asked());
    eventually("it was tried once more", async || {
        assert_eq!(site.get("/readyz").await.0, 503, "it was never over");
        asked() > asked_before && refused() > refused_before
    })
    .await;
    // Each time the platform answers one employee is tried; the one of the time before may have been refused since.
    let (refused, asked) = (refused() - refused_before, asked() - asked_before);
    assert!(refused <= asked + 1, "{refused} were refused, and the platform was asked {asked} times");
    site.sandbox.disarm_all();
    goes_on(&site).await;
    assert_eq!(site.held("20", "surname").as_deref(), Some("Forbidden"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_no_write_does_not_end_a_halt_of_writes() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=2).await;
    site.sandbox.arm("forbidden,on=writes".parse().unwrap());
    rename(&site, "Forbidden", 1).await;
    halted_for(&site, "forbidden").await;
    site.hr.execute("update hr.employee set title = 'Herr Doktor' where id = 2", &[]).await.unwrap();
    eventually("what cannot be sent is refused here", async || {
        assert_eq!(site.get("/readyz").await.0, 503, "nothing was written");
        site.status("2").await.1.as_deref() == Some("unknown-value")
    })
    .await;
    let asked = || site.sandbox.counts().answers["getPlatform"][&200];
    let asked_before = asked();
    eventually("the platform is asked again", async || {
        assert_eq!(site.get("/readyz").await.0, 503, "nothing was written");
        asked() > asked_before
    })
    .await;
    site.sandbox.disarm_all();
    eventually("it is sent", async || site.held("1", "surname").as_deref() == Some("Forbidden")).await;
    site.hr.execute("update hr.employee set title = 'Mx' where id = 2", &[]).await.unwrap();
    site.settled().await;
    goes_on(&site).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_resumes_too_early_and_an_instance_that_is_mended_leave_the_halts_that_stand() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=1).await;
    site.sandbox.set_suspended(true);
    rename(&site, "Suspended", 1).await;
    halted_for(&site, "platform-suspended").await;
    let shown = async || {
        let row = site.hr.query_one("select halted_code from benefits.site", &[]).await.unwrap();
        row.get::<_, Option<String>>(0)
    };
    eventually("people see it", async || shown().await.is_some()).await;
    site.hr.execute("select benefits.resume()", &[]).await.unwrap();
    eventually("people see it again", async || shown().await.as_deref() == Some("platform-suspended")).await;
    // Another instance meets another writer; then what halted this one is over.
    let sql = "update benefits.site set halted_code = 'another-writer'";
    site.hr.execute(sql, &[]).await.unwrap();
    site.sandbox.set_suspended(false);
    halted_for(&site, "another-writer").await;
    assert_eq!(shown().await.as_deref(), Some("another-writer"));
    site.hr.execute("select benefits.resume()", &[]).await.unwrap();
    goes_on(&site).await;
    site.stop().await;
}

async fn halts_on(fault: &str, code: &str) {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=3).await;
    site.sandbox.arm(fault.parse().unwrap());
    rename(&site, "Withdrawn", 3).await;
    halted_for(&site, code).await;
    site.sandbox.disarm_all();
    goes_on(&site).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linked_account_that_is_gone_is_broken_only_after_the_platform_was_proved() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=3).await;
    for (id, gone) in [("1", false), ("2", true)] {
        let account = site.sandbox.account_of(id).unwrap().id;
        let proofs = || site.sandbox.counts().answers["getPlatform"][&200];
        let before = proofs();
        assert!(site.sandbox.remove_account(&account, gone));
        rename(&site, &format!("Gone{id}"), 3).await;
        site.settled().await;
        assert_eq!(site.status(id).await, ("failed".to_owned(), Some("link-broken".to_owned())));
        assert!(proofs() > before);
        assert!(site.sandbox.account_of(id).is_none(), "never created again by itself");
        assert_eq!(site.status("3").await.0, "successful");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_holds_everybody_for_as_long_as_it_says() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site(QUICK, 1..=3).await;
    // A date has whole seconds: four ahead are more than three.
    for (round, after) in ["3", "date:4"].into_iter().enumerate() {
        site.sandbox.arm(format!("429,retry-after={after},next=1").parse().unwrap());
        let start: std::time::SystemTime =
            site.hr.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        rename(&site, &format!("Round{round}"), 1).await;
        eventually("one was throttled", async || site.sandbox.faults().is_empty()).await;
        let held = "select count(*) from benefits.pending where not_before >= $1::timestamptz + interval '3 seconds'";
        eventually("its time is in the ledger", async || {
            site.hr.query_one(held, &[&start]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        rename(&site, &format!("Round{round}b"), 3).await;
        prove(&site).await;
        let sql = "select extract(epoch from min(at) - $1)::float8 from benefits.sync_history where at > $1";
        let first: f64 = site.hr.query_one(sql, &[&start]).await.unwrap().get(0);
        assert!(first >= 3.0, "sent after {first} s, though {after} was asked for");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_that_does_not_say_how_long_holds_everybody_for_a_while_that_grows() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site("[delivery]\nbackoff_min = \"20ms\"\nbackoff_max = \"2s\"\n", 1..=20).await;
    let acted = || site.sandbox.journal().iter().filter(|entry| entry.acted()).count();
    site.sandbox.arm("429,retry-after=none,on=writes".parse().unwrap());
    let before = acted();
    let begun = std::time::Instant::now();
    rename(&site, "Throttled", 20).await;
    let held = "select count(*) from benefits.pending where not_before > now()";
    eventually("its time is in the ledger", async || number(&site, held).await > 0).await;
    eventually("it is asked again and again", async || site.sandbox.counts().faults["rate-limited"] > 40)
        .await;
    // At least a second between two rounds, in each of which at most those go who were let in together.
    let refused = site.sandbox.counts().faults["rate-limited"];
    let rounds = begun.elapsed().as_secs() + 1;
    assert!(refused <= 20 * rounds, "{refused} in {rounds} s");
    assert_eq!(number(&site, "select count(*) from benefits.enrolment where outcome = 'failed'").await, 0);
    assert!(site.get("/metrics").await.1.contains("benefits_sync_breaker_state 0"), "it is no failure");
    site.sandbox.disarm_all();
    prove(&site).await;
    assert_eq!(acted() - before, 20, "once each");
    site.stop().await;
}

/// WAL that may be on the server's disk for the slot's sake, as nobody has an old transaction open.
const RETAINED_MAX: i64 = 64 << 20;

/// `OUTAGE=600 OUTAGE_RATE=200` (seconds, and changes a second) is the outage whose figures are in the README; `make soak` runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_keeps_no_wal_and_takes_no_memory_however_many_changes_come() {
    if !support::wanted(18) {
        return;
    }
    let setting = |name: &str, default: u32| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, rate) = (setting("OUTAGE", 4), setting("OUTAGE_RATE", 500));
    // Alone: other tests would write WAL, and keep transactions open.
    let (_cluster, mut site) = Site::apart(support::options(18), 18).await;
    // After a long outage the platform is asked again within backoff_max, which is five minutes where nothing is said.
    "[delivery]\nbackoff_max = \"5s\"\n".clone_into(&mut site.more);
    let process = site.spawn().await;
    sync(&site, 1..=30).await;
    // As it works, which is what the outage is compared with.
    for n in 0..300 {
        change(&site, n, "Warm").await;
    }
    site.settled().await;
    let memory = || resident_bytes(process.child.id());
    let before = memory();
    site.sandbox.arm(FaultRule::always(Fault::Unavailable(None)));
    let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
    let changes = i64::from(seconds) * i64::from(rate);
    let (mut most, mut unconfirmed, mut retained) = (0, 0_i64, 0_i64);
    for n in 0..changes {
        every.tick().await;
        change(&site, n, "Outage").await;
        if n % (changes / 40).max(1) == 0 {
            most = most.max(memory());
            site.passed().await;
            let sql = "select (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint, \
                       (pg_current_wal_lsn() - restart_lsn)::bigint from pg_replication_slots where slot_name = $1::text::name";
            let row = site.hr.query_one(sql, &[&site.database.slot]).await.unwrap();
            unconfirmed = unconfirmed.max(row.get(0));
            retained = retained.max(row.get(1));
        }
    }
    site.passed().await;
    let after = memory();
    eprintln!(
        "{changes} changes in {seconds} s: at most {unconfirmed} bytes of WAL unconfirmed, {retained} retained; \
         memory {before} bytes before, {after} after, {most} at most"
    );
    assert!(unconfirmed < 1 << 20, "{unconfirmed} bytes of WAL are unconfirmed");
    assert!(retained < RETAINED_MAX, "{retained} bytes of WAL are kept");
    assert!(after < before + before / 10, "{before} bytes grew to {after}");
    let sent = site.sandbox.counts().updated;
    let end = site.sandbox.journal().last().unwrap().sequence;
    site.sandbox.disarm_all();
    let began = std::time::Instant::now();
    prove(&site).await;
    eprintln!("drained in {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(site.sandbox.counts().updated, sent + 30);
    for id in 1..=30_i64 {
        let id = id.to_string();
        let writes: Vec<_> = site.sandbox.journal_of(&id).into_iter().filter(|e| e.sequence > end).collect();
        assert!(matches!(&*writes, [one] if one.operation == Operation::Update), "{id}: {writes:#?}");
    }
    process.kill9();
}

async fn change(site: &Site, n: i64, what: &str) {
    let sql = "update hr.employee set known_as = $1 where id = $2";
    site.hr.execute(sql, &[&format!("{what} {n}"), &(n % 30 + 1)]).await.unwrap();
}

fn resident_bytes(process: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
}
