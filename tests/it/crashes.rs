//! Death at every step: of the service, of PostgreSQL, of the platform. It always converges, nobody is created twice,
//! versions never fall, no key serves two bodies.

use benefits_sync::sandbox::{Fault, FaultRule, Operations, SandboxOptions, SeedAccount};

use crate::for_each_major;
use crate::support;
use crate::support::database::connect;
use crate::support::proof::prove;
use crate::support::site::{self, Site, eventually};

/// Where a change stands when the process dies: the reader's steps, then delivery's.
const READING: [&str; 4] = ["row-read", "commit-handed", "pending-written", "lsn-confirmed"];
const DELIVERING: [&str; 8] = [
    "record-read",
    "intent-written",
    "intent-written=abort@3",
    "request-sent",
    "request-sent=abort@5",
    "answer-received",
    "answer-received=abort@5",
    "outcome-recorded",
];

/// Employees 1 and 2 are synced; 20 to 29 have registered at Benefits by themselves.
async fn site_with_two_synced(major: u32) -> Site {
    let site = Site::new(major).await;
    let sql = "select address from hr.email where kind = 'work' and employee_id between 20 and 29";
    for row in site.hr.query(sql, &[]).await.unwrap() {
        site.sandbox.seed(SeedAccount::new(row.get(0))).unwrap();
    }
    let process = site.spawn().await;
    site.sync(&["1", "2"]).await;
    process.kill9();
    site
}

/// Changes of every kind while nobody looks: two updates of several rows, a create, a link.
async fn changes(site: &Site, round: i64) {
    let sql = format!(
        "update hr.employee set surname = 'Round {round}' where id = 1;
         insert into hr.address (employee_id, kind, line_1, postcode, from_date)
         values (2, 'home', '{round} High Street', 'LS1 4AP', '2020-01-01'::date + {round});
         update hr.employee set known_as = 'Try {round}' where id in (1, 2);
         select benefits.sync(array['{}', '{}'])",
        3 + round,
        20 + round % 10
    );
    site.hr.batch_execute(&sql).await.unwrap();
}

async fn dies_at_each_of(major: u32, steps: &[&str]) {
    let site = site_with_two_synced(major).await;
    for (step, round) in steps.iter().zip(1..) {
        changes(&site, round).await;
        let point = if step.contains('=') { (*step).to_owned() } else { format!("{step}=abort") };
        let ended = site.spawn_armed(&point).ended().await;
        assert!(!ended.success() && ended.code().is_none(), "{step}: {ended:?}");
        let process = site.spawn().await;
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), Some(format!("Round {round}")), "{step}");
        process.kill9();
    }
}

/// Lets the process come to the step and wait there; the file that lets it go on.
async fn paused_at(site: &Site, step: &str) -> (site::Process, std::path::PathBuf) {
    let path = site.directory.path().join(step);
    let process = site.spawn_armed(&format!("{step}=pause:{}", path.display()));
    let reached = path.with_extension("reached");
    eventually(&format!("{step} is reached"), async || reached.exists()).await;
    (process, path)
}

/// Every step by its name alone.
fn steps() -> impl Iterator<Item = (&'static str, i64)> {
    READING.into_iter().chain(DELIVERING).filter(|step| !step.contains('=')).zip(1..)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_killed_at_any_step_loses_and_repeats_nothing() {
    if !support::wanted(18) {
        return;
    }
    let (cluster, mut site) = Site::apart(support::options(18), 18).await;
    let process = site.spawn().await;
    site.sync(&["1", "2"]).await;
    process.kill9();
    for (step, round) in steps() {
        changes(&site, round).await;
        let (process, go_on) = paused_at(&site, step).await;
        cluster.kill9().await.unwrap();
        std::fs::write(go_on, "").unwrap();
        eventually("the process has felt it", async || site.get("/readyz").await.0 == 503).await;
        cluster.restart().await.unwrap();
        site.hr = connect(&site.database.url).await;
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), Some(format!("Round {round}")), "{step}");
        process.kill9();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_killed_at_any_step_is_caught_up_with() {
    if !support::wanted(18) {
        return;
    }
    let mut site = site_with_two_synced(18).await;
    "[delivery]\nbackoff_max = \"1s\"\n".clone_into(&mut site.more);
    for (step, round) in steps() {
        changes(&site, round).await;
        let (process, go_on) = paused_at(&site, step).await;
        let (address, platform) = (site.sandbox.address(), site.sandbox.sandbox().clone());
        let nobody = benefits_sync::sandbox::Sandbox::start(SandboxOptions::default()).await.unwrap();
        std::mem::replace(&mut site.sandbox, nobody).stop().await.unwrap();
        std::fs::write(go_on, "").unwrap();
        eventually("what is left is tried, and not answered", async || {
            let sql = "select count(*) filter (where attempts > 0) > 0 or count(*) = 0 from benefits.pending";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
        site.sandbox = platform.start_at(address).await.unwrap();
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), Some(format!("Round {round}")), "{step}");
        process.kill9();
    }
}

for_each_major! {
    async fn a_process_that_dies_while_it_reads_loses_nothing(major: u32) {
        dies_at_each_of(major, &READING).await;
    }

    async fn a_process_that_dies_while_it_delivers_repeats_nothing(major: u32) {
        dies_at_each_of(major, &DELIVERING).await;
    }

    async fn a_session_that_fails_at_any_step_is_followed_by_another(major: u32) {
        let site = site_with_two_synced(major).await;
        changes(&site, 1).await;
        let steps = READING.iter().chain(&DELIVERING).filter(|step| !step.contains('='));
        let armed: Vec<String> = steps.map(|step| format!("{step}=error@2")).collect();
        let process = site.spawn_armed(&armed.join(";"));
        changes(&site, 2).await;
        prove(&site).await;
        process.kill9();
    }

    async fn a_kill_while_the_platform_works_on_a_create_makes_no_second_account(major: u32) {
        let site = site_with_two_synced(major).await;
        let process = site.spawn().await;
        let late = FaultRule::next(Fault::SlowAnswer { delay: site::PATIENCE, jitter: std::time::Duration::ZERO }, 1);
        site.sandbox.arm(late.on(Operations::Writes).for_employee("9"));
        site.hr.execute("select benefits.sync(array['9'])", &[]).await.unwrap();
        eventually("the platform has the account", async || site.sandbox.account_of("9").is_some()).await;
        process.kill9();
        // And HR goes on in the meantime, so that the create is not repeated as it was.
        site.hr.execute("update hr.employee set surname = 'Elsewhere' where id = 9", &[]).await.unwrap();
        let process = site.spawn().await;
        prove(&site).await;
        assert_eq!(site.held("9", "surname").as_deref(), Some("Elsewhere"));
        process.kill9();
    }

    async fn a_create_without_an_answer_is_remembered_through_a_refusal(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sandbox.arm(FaultRule::always(Fault::LostAfter).on(Operations::Writes).for_employee("9"));
        site.hr.execute("select benefits.sync(array['9'])", &[]).await.unwrap();
        eventually("the platform has the account", async || site.sandbox.account_of("9").is_some()).await;
        // Now HR's record cannot be sent at all.
        site.hr.execute("update hr.employee set surname = '' where id = 9", &[]).await.unwrap();
        eventually("it is refused", async || site.status("9").await.1.as_deref() == Some("required")).await;
        site.sandbox.disarm_all();
        site.hr.execute("update hr.employee set surname = 'Mended' where id = 9", &[]).await.unwrap();
        prove(&site).await;
        assert_eq!(site.held("9", "surname").as_deref(), Some("Mended"));
        site.stop().await;
    }

    async fn a_b_a_with_bs_answer_lost_ends_at_a(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        let before = site.held("1", "surname");
        let set = "update hr.employee set surname = $1 where id = 1";
        site.sandbox.arm(FaultRule::always(Fault::LostAfter).on(Operations::Writes));
        site.hr.execute(set, &[&"Between"]).await.unwrap();
        eventually("the platform has B", async || site.held("1", "surname").as_deref() == Some("Between")).await;
        site.hr.execute(set, &[&before]).await.unwrap();
        site.sandbox.disarm_all();
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), before);
        site.stop().await;
    }

    async fn a_b_a_with_the_process_killed_after_b_was_sent_ends_at_a(major: u32) {
        let site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        let before = site.held("1", "surname");
        let set = "update hr.employee set surname = $1 where id = 1";
        let slow = Fault::SlowAnswer { delay: site::PATIENCE, jitter: std::time::Duration::ZERO };
        site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
        site.hr.execute(set, &[&"Between"]).await.unwrap();
        eventually("the platform has B", async || site.held("1", "surname").as_deref() == Some("Between")).await;
        process.kill9();
        site.sandbox.disarm_all();
        site.hr.execute(set, &[&before]).await.unwrap();
        let process = site.spawn().await;
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), before);
        process.kill9();
    }

    async fn a_b_a_with_the_process_killed_after_b_was_sent_and_the_slot_lost_ends_at_a(major: u32) {
        let site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        process.signal("TERM");
        assert!(process.ended().await.success());
        let before = site.held("1", "surname");
        let set = "update hr.employee set surname = $1 where id = 1";
        // The last answer of several, so that delivery has found its pace.
        let mut process = site.spawn_armed("answer-received=abort@8");
        site.until_ready().await;
        for n in 1.. {
            let name = format!("Between {n}");
            site.hr.execute(set, &[&name]).await.unwrap();
            // In hand or pending, it may be recorded before the process dies at the next one.
            eventually("the platform has B, or the process is dead", async || {
                process.child.try_wait().unwrap().is_some()
                    || site.held("1", "surname").as_ref() == Some(&name)
            })
            .await;
            if process.child.try_wait().unwrap().is_some() {
                break;
            }
        }
        // Nobody will read again in the WAL that B was sent.
        crate::reconcile::drop_slot(&site).await;
        site.hr.execute(set, &[&before]).await.unwrap();
        let process = site.spawn().await;
        crate::reconcile::calm(&site).await;
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), before);
        process.kill9();
    }

    async fn postgresql_killed_in_a_burst_loses_nothing_that_was_committed(major: u32) {
        let (cluster, mut site) = Site::apart(support::options(major), major).await;
        let process = site.spawn().await;
        site.sync(&["1", "2", "3", "4", "5"]).await;
        for round in 1..=2 {
            let burst = {
                let url = site.database.url.clone();
                tokio::spawn(async move {
                    let client = connect(&url).await;
                    let mut last = 0;
                    for n in 1.. {
                        let sql = format!("update hr.employee set known_as = '{round} {n}' where id <= 5");
                        if client.batch_execute(&sql).await.is_err() {
                            break;
                        }
                        last = n;
                    }
                    last
                })
            };
            eventually("the burst has arrived", async || {
                site.sandbox.account_of("1").and_then(|a| a.get("knownAs").map(|k| k.starts_with(&round.to_string()))) == Some(true)
            })
            .await;
            cluster.kill9().await.unwrap();
            let acknowledged = burst.await.unwrap();
            cluster.restart().await.unwrap();
            site.hr = connect(&site.database.url).await;
            site.until_ready().await;
            prove(&site).await;
            // fsync is off in tests, but a killed process is no power cut: what was committed is there.
            let held = site.held("5", "knownAs").unwrap();
            let n: i64 = held.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(n >= acknowledged, "{held}: {acknowledged} was committed");
        }
        process.kill9();
    }

    async fn a_platform_that_dies_and_comes_back_is_caught_up_with(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        let (address, platform) = (site.sandbox.address(), site.sandbox.sandbox().clone());
        let nobody = benefits_sync::sandbox::Sandbox::start(SandboxOptions::default()).await.unwrap();
        std::mem::replace(&mut site.sandbox, nobody).stop().await.unwrap();
        site.hr
            .batch_execute("update hr.employee set surname = 'Away' where id <= 2; select benefits.sync(array['3'])")
            .await
            .unwrap();
        eventually("it was tried", async || {
            let sql = "select coalesce(min(attempts), 0) from benefits.pending where not_before is not null";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i32>(0) > 0
        })
        .await;
        site.sandbox = platform.start_at(address).await.unwrap();
        prove(&site).await;
        assert_eq!(site.held("2", "surname").as_deref(), Some("Away"));
        site.stop().await;
    }

    async fn a_graceful_stop_ends_what_is_under_way_and_gives_the_rest_back(major: u32) {
        let mut site = Site::new(major).await;
        "[delivery]\nconcurrency = 1\ntimeout = \"2m\"\n".clone_into(&mut site.more);
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        let slow = Fault::SlowAnswer { delay: std::time::Duration::from_hours(1), jitter: std::time::Duration::ZERO };
        site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
        site.hr.execute("update hr.employee set surname = 'Going' where id in (1, 2)", &[]).await.unwrap();
        eventually("one is with the platform", async || {
            ["1", "2"].iter().any(|id| site.held(id, "surname").as_deref() == Some("Going"))
        })
        .await;
        process.signal("TERM");
        eventually("it has heard", async || site.log().contains("stopping: what is under way ends first")).await;
        site.sandbox.disarm_all();
        assert_eq!(process.ended().await.code(), Some(0));
        // The one whose answer came is recorded; the other was never sent, is nobody's, and may go at once.
        let sql = "select count(*), count(claim), count(*) filter (where not_before > now()) from benefits.pending";
        let row = site.hr.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1), row.get(2)), (1_i64, 0_i64, 0_i64));
        let process = site.spawn().await;
        prove(&site).await;
        process.kill9();
    }

    async fn a_graceful_stop_waits_no_longer_than_its_deadline(major: u32) {
        let mut site = Site::new(major).await;
        "[delivery]\ntimeout = \"2m\"\n".clone_into(&mut site.more);
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        let slow = Fault::Slow { delay: std::time::Duration::from_mins(2), jitter: std::time::Duration::ZERO };
        site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
        site.hr.execute("update hr.employee set surname = 'Going' where id = 1", &[]).await.unwrap();
        eventually("one is with the platform", async || {
            let sql = "select count(*) from benefits.pending where claim is not null";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        let told = std::time::Instant::now();
        process.signal("TERM");
        // 20 s, and what the rest takes; `ended` waits half a minute.
        assert_eq!(process.ended().await.code(), Some(0));
        assert!(told.elapsed() < std::time::Duration::from_secs(25), "{:?}", told.elapsed());
        site.sandbox.disarm_all();
        let process = site.spawn().await;
        prove(&site).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Going"));
        process.kill9();
    }
}
