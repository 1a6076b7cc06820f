//! Mass changes in hand: handed over whole, delivered behind everybody else, and marked after all where they end somebody,
//! take too long, or something waits for their end.

use std::time::{Duration, Instant};

use benefits_sync::sandbox::{Fault, FaultRule, Operations, SandboxOptions};

use crate::domain_guard::{guarded, hold_of};
use crate::for_each_major;
use crate::in_hand::marks;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};
use crate::unequal::{MANY, number};

/// Where a mass change in hand stands when the process dies.
const STEPS: [&str; 5] =
    ["mass-in-hand", "record-read", "answer-received@3", "update-accepted", "outcome-recorded"];

/// After so long nothing is held against the platform's pace, which a few updates at a time leave low.
const IDLE: Duration = Duration::from_millis(300);

/// All twelve in one transaction, which is four times what may go unjudged.
async fn rename_all(site: &Site, name: &str) {
    let sql = format!("update hr.employee set surname = '{name} ' || id where id <= 12");
    site.hr.batch_execute(&sql).await.unwrap();
}

fn have(site: &Site, name: &str) -> usize {
    (1..=12).filter(|id| site.held(&id.to_string(), "surname") == Some(format!("{name} {id}"))).count()
}

async fn until_judged(site: &Site) {
    let sql = "select count(*) from benefits.mass_change";
    eventually("every mass change is judged", async || number(site, sql).await == 0).await;
}

for_each_major! {
    async fn a_mass_change_that_ends_nobody_is_delivered_without_marks(major: u32) {
        let mut site = guarded(major).await;
        // Stopped in order: the next process knows that nothing was in hand.
        site.restart().await;
        rename_all(&site, "Warm").await;
        eventually("all are delivered", async || have(&site, "Warm") == 12).await;
        site.passed().await;
        tokio::time::sleep(IDLE).await;
        let before = (marks(&site).await, site.sandbox.counts().updated);
        rename_all(&site, "Direct").await;
        eventually("all are delivered", async || have(&site, "Direct") == 12).await;
        prove(&site).await;
        assert_eq!(site.sandbox.counts().updated - before.1, 12, "one update an employee");
        // A busy machine may take longer for some than they stay in hand.
        assert!(marks(&site).await - before.0 < 12);
        until_judged(&site).await;
        site.stop().await;
    }

    async fn a_process_that_dies_with_a_mass_change_in_hand_loses_nothing(major: u32) {
        let mut site = guarded(major).await;
        site.stop().await;
        for step in STEPS {
            let process = site.spawn_armed(&match step.split_once('@') {
                Some((step, at)) => format!("{step}=abort@{at}"),
                None => format!("{step}=abort"),
            });
            site.until_ready().await;
            // The first may come before anybody is taken in hand.
            for n in 0.. {
                rename_all(&site, &format!("At {step} {n}")).await;
                tokio::time::sleep(IDLE).await;
                if site.get("/livez").await.0 != 200 {
                    break;
                }
            }
            let ended = process.ended().await;
            assert!(ended.code().is_none(), "{step}: {ended:?}");
            // HR goes back: only a sending in full can find the difference.
            rename_all(&site, "Back").await;
            site.start().await;
            prove(&site).await;
            assert_eq!(have(&site, "Back"), 12, "{step}");
            until_judged(&site).await;
            site.stop().await;
        }
    }

    async fn the_endings_of_a_mass_change_in_hand_are_judged_together_and_the_others_delivered(major: u32) {
        let mut site = guarded(major).await;
        site.restart().await;
        let sql = "update hr.employee set surname = 'Mixed ' || id, \
                   leave_date = case when id % 3 = 0 then date '2027-03-31' end where id <= 12";
        site.hr.batch_execute(sql).await.unwrap();
        let (hold, reason) = hold_of(&site, 4).await;
        assert!(reason.contains("4 would get a leave date"), "{reason}");
        eventually("the others are delivered", async || have(&site, "Mixed") == 8).await;
        assert_eq!(site.held("3", "leaveDate"), None);
        site.hr.execute("select benefits.release($1)", &[&hold]).await.unwrap();
        prove(&site).await;
        assert_eq!(have(&site, "Mixed"), 12);
        until_judged(&site).await;
        site.stop().await;
    }

    async fn mass_changes_that_follow_each_other_end_with_the_last(major: u32) {
        let mut site = guarded(major).await;
        site.restart().await;
        for n in 0..5 {
            rename_all(&site, &format!("Wave {n}")).await;
            site.hr.batch_execute("update hr.employee set known_as = surname where id = 7").await.unwrap();
        }
        prove(&site).await;
        assert_eq!(have(&site, "Wave 4"), 12);
        assert_eq!(site.held("7", "knownAs").as_deref(), Some("Wave 4 7"));
        until_judged(&site).await;
        site.stop().await;
    }
}

#[tokio::test]
async fn a_mass_change_at_a_platform_that_does_not_answer_holds_back_neither_wal_nor_a_command() {
    let mut site = guarded(18).await;
    site.stop().await;
    "[guard]\nminimum = 3\n[delivery]\ntimeout = \"2m\"\nconcurrency = 1\n".clone_into(&mut site.more);
    site.start().await;
    let slow = Fault::SlowAnswer { delay: Duration::from_hours(1), jitter: Duration::ZERO };
    site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
    rename_all(&site, "Slow").await;
    site.hr.batch_execute("select benefits.sync(array['13'])").await.unwrap();
    // Long before there is any answer.
    site.passed().await;
    let sql = "select count(*) from benefits.pending";
    eventually("the ledger knows of everybody, the commanded too", async || number(&site, sql).await == 13)
        .await;
    site.sandbox.disarm_all();
    prove(&site).await;
    assert_eq!(have(&site, "Slow"), 12);
    until_judged(&site).await;
    site.stop().await;
}

#[tokio::test]
async fn a_mass_change_waits_for_its_turn_but_lets_no_command_wait_for_it() {
    let mut site = guarded(18).await;
    site.stop().await;
    let go = |n: u32| site.directory.path().join(format!("go-{n}"));
    let points: Vec<String> = (1..=2).map(|n| format!("record-read=pause:{}", go(n).display())).collect();
    let process = site.spawn_armed(&points.join(";"));
    site.until_ready().await;
    // As many loads as there may be, and neither ends: whoever comes now waits.
    for n in 1..=2 {
        let sql = format!("update hr.employee set surname = 'Loads' where id = {}", 10 + n);
        site.hr.batch_execute(&sql).await.unwrap();
        eventually("it loads", async || go(n).with_extension("reached").exists()).await;
    }
    tokio::time::sleep(IDLE).await;
    let handed = Instant::now();
    let sql = "update hr.employee set surname = 'Waits ' || id where id <= 10";
    site.hr.batch_execute(sql).await.unwrap();
    // Longer than a single change may wait in hand, and a look at who is overdue.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sql = "select count(*) from benefits.pending where employee_id::integer <= 10";
    assert_eq!(number(&site, sql).await, 0, "marked too early");
    site.hr.batch_execute("select benefits.sync(array['13'])").await.unwrap();
    eventually("whoever waits is marked", async || number(&site, sql).await == 10).await;
    assert!(
        handed.elapsed() < Duration::from_secs(4),
        "marked because it took too long, not for the command"
    );
    for n in 1..=2 {
        std::fs::write(go(n), "").unwrap();
    }
    prove(&site).await;
    until_judged(&site).await;
    process.kill9();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_change_overtakes_a_mass_change_of_thousands() {
    if !crate::support::wanted(18) {
        return;
    }
    let options = SandboxOptions { keep_bodies: false, journal_max: 1_000_000, ..SandboxOptions::default() };
    let mut site = Site::with(18, options).await;
    "[delivery]\nconcurrency = 32\n".clone_into(&mut site.more);
    site.hr.batch_execute(&MANY.replace("{times}", "100")).await.unwrap();
    site.start().await;
    site.hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
    site.settled().await;
    site.restart().await;
    site.sandbox.arm("slow,delay=5ms".parse().unwrap());
    let (before, own) = (site.sandbox.counts().updated, site.sandbox.journal_of("1").len());
    site.hr.batch_execute("update hr.employee set surname = 'Mass' where id > 1").await.unwrap();
    site.sandbox.until(|sandbox| sandbox.counts().updated > before + 200).await;
    site.hr.execute("update hr.employee set surname = 'Overtaking' where id = 1", &[]).await.unwrap();
    let then = site.sandbox.counts().updated;
    site.sandbox.until(|sandbox| sandbox.journal_of("1").len() > own).await;
    let waited_for = site.sandbox.counts().updated - then;
    let left = before + 3_000 - site.sandbox.counts().updated;
    eprintln!("of a mass change of 3000 it overtook {left}, {waited_for} writes later");
    assert!(left > 1_000, "the mass change was over already: {left} left");
    assert!(waited_for < 600, "{waited_for} writes came before it");
    site.stop().await;
}
