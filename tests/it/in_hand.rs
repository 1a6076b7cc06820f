//! Commits in hand: delivered before the ledger has a mark for them. Death at every step of that way, and everything that
//! makes delivery mark them after all.

use std::path::PathBuf;
use std::time::Duration;

use benefits_sync::sandbox::{Fault, FaultRule, JournalEntry, Operations};

use crate::for_each_major;
use crate::support::proof::prove;
use crate::support::site::{Process, Site, eventually};

/// Where a change in hand stands when the process dies; the ledger learns of the write first in the last two.
const STEPS: [&str; 6] =
    ["in-hand", "record-read", "request-sent", "answer-received", "outcome-recorded", "taken-into-ledger"];

/// Marks that were ever made: none is for what is delivered in hand.
pub async fn marks(site: &Site) -> i64 {
    let sql = "select last_value from benefits.pending_life";
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

async fn marks_left(site: &Site) -> i64 {
    site.hr.query_one("select count(*) from benefits.pending", &[]).await.unwrap().get(0)
}

async fn rename(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

async fn until_held(site: &Site, id: &str, name: &str) {
    eventually(name, async || site.held(id, "surname").as_deref() == Some(name)).await;
}

/// Synced, and stopped in order: the next process knows that nothing was in hand.
async fn synced(major: u32) -> Site {
    let mut site = Site::new(major).await;
    site.start().await;
    site.sync(&["1", "2", "3"]).await;
    site.stop().await;
    site
}

for_each_major! {
    async fn a_change_that_is_answered_at_once_is_recorded_without_a_mark(major: u32) {
        let mut site = synced(major).await;
        site.start().await;
        rename(&site, 1, "First").await;
        until_held(&site, "1", "First").await;
        site.passed().await;
        let before = marks(&site).await;
        for n in 0..20 {
            rename(&site, 2, &format!("Direct {n}")).await;
            until_held(&site, "2", &format!("Direct {n}")).await;
        }
        site.passed().await;
        prove(&site).await;
        // A busy machine may take longer than a change stays in hand, but not twenty times of twenty.
        assert!(marks(&site).await - before < 20);
        let updates = site.history("2").await;
        assert!(updates.len() >= 21 && updates.iter().skip(1).all(|(event, ..)| event == "updated"), "{updates:?}");
        assert_eq!(site.status("2").await, ("successful".to_owned(), None));
        site.stop().await;
    }

    async fn a_process_that_dies_with_changes_in_hand_loses_nothing_and_sends_them_in_full(major: u32) {
        let mut site = synced(major).await;
        for (step, round) in STEPS.iter().zip(1..) {
            // What is late is taken into the ledger.
            if *step == "taken-into-ledger" {
                let late = Fault::SlowAnswer { delay: Duration::from_millis(300), jitter: Duration::ZERO };
                site.sandbox.arm(FaultRule::always(late).on(Operations::Writes));
            }
            let process = site.spawn_armed(&format!("{step}=abort@2"));
            site.until_ready().await;
            let mut n = 0;
            while site.get("/livez").await.0 == 200 {
                n += 1;
                rename(&site, 1 + n % 3, &format!("Round {round} {n}")).await;
            }
            let ended = process.ended().await;
            assert!(ended.code().is_none(), "{step}: {ended:?}");
            site.sandbox.disarm_all();
            // HR goes back to what was acknowledged before: only a sending in full can find the difference.
            let before = site.held("1", "surname").unwrap();
            rename(&site, 1, "Another").await;
            rename(&site, 1, &before).await;
            site.start().await;
            prove(&site).await;
            site.stop().await;
        }
    }

    async fn what_is_in_hand_when_the_delivery_session_ends_is_read_again(major: u32) {
        let site = synced(major).await;
        let process = site.spawn_armed("outcome-recorded=error@2;record-read=error@4;request-sent=error@6");
        site.until_ready().await;
        for n in 0..30 {
            rename(&site, 1 + n % 3, &format!("Name {n}")).await;
        }
        prove(&site).await;
        process.kill9();
    }

    async fn a_command_that_comes_while_a_change_is_in_hand_finds_it_done(major: u32) {
        let mut site = synced(major).await;
        site.start().await;
        let slow = Fault::SlowAnswer { delay: Duration::from_millis(40), jitter: Duration::ZERO };
        site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
        for n in 0..10 {
            rename(&site, 1, &format!("Before {n}")).await;
            site.hr.batch_execute("select benefits.sync(array['1'])").await.unwrap();
            rename(&site, 1, &format!("After {n}")).await;
        }
        prove(&site).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("After 9"));
        site.stop().await;
    }
}

#[tokio::test]
async fn a_platform_that_is_slow_or_down_holds_no_wal_back() {
    let mut site = synced(18).await;
    "[delivery]\ntimeout = \"2m\"\n".clone_into(&mut site.more);
    site.start().await;
    let slow = Fault::SlowAnswer { delay: Duration::from_hours(1), jitter: Duration::ZERO };
    site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
    rename(&site, 1, "Slow").await;
    rename(&site, 2, "Slow").await;
    // Long before the answers are there.
    site.passed().await;
    eventually("the ledger knows of the writes", async || {
        let sql = "select count(*) from benefits.pending where intent_version is not null";
        site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
    })
    .await;
    site.sandbox.disarm_all();
    prove(&site).await;
    site.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_turn_at_a_slow_platform_holds_no_wal_back() {
    let mut site = synced(18).await;
    "[delivery]\ntimeout = \"2m\"\nconcurrency = 1\n".clone_into(&mut site.more);
    site.start().await;
    site.sync(&["4", "5", "6", "7", "8"]).await;
    let slow = Fault::SlowAnswer { delay: Duration::from_hours(1), jitter: Duration::ZERO };
    site.sandbox.arm(FaultRule::always(slow).on(Operations::Writes));
    // One is being sent, a few are ready for it, and the others have not begun.
    for id in 1..=8 {
        rename(&site, id, "Waits").await;
    }
    site.passed().await;
    eventually("the ledger knows of everybody", async || marks_left(&site).await == 8).await;
    site.sandbox.disarm_all();
    prove(&site).await;
    site.stop().await;
}

#[tokio::test]
async fn what_ends_a_person_is_never_decided_in_hand() {
    let mut site = synced(18).await;
    site.start().await;
    let before = marks(&site).await;
    site.hr.batch_execute("update hr.employee set leave_date = '2026-12-31' where id = 1").await.unwrap();
    eventually("the leave date is sent", async || site.held("1", "leaveDate").is_some()).await;
    assert!(marks(&site).await > before, "it was counted by the guard, from the ledger");
    prove(&site).await;
    site.stop().await;
}

/// A process that waits, at a step, with a change of employee 1 in hand; the file that lets it go on.
async fn waits_in_hand(site: &Site, step: &str) -> (Process, PathBuf) {
    for round in 0..10 {
        let go = site.directory.path().join(format!("{step}-{round}"));
        let process = site.spawn_armed(&format!("{step}=pause:{}", go.display()));
        site.until_ready().await;
        let reached = go.with_extension("reached");
        for n in 0.. {
            let recorded = site.history("1").await.len();
            rename(site, 1, &format!("Waits {round} {n}")).await;
            // A busy machine marks it before it comes so far.
            eventually("it waits, or is recorded", async || {
                reached.exists() || site.history("1").await.len() > recorded
            })
            .await;
            if reached.exists() {
                break;
            }
        }
        let sql = "select not exists (select from benefits.pending)";
        if site.hr.query_one(sql, &[]).await.unwrap().get(0) {
            return (process, go);
        }
        std::fs::write(go, "").unwrap();
        site.settled().await;
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
    }
    panic!("never in hand");
}

fn name_in(entry: &JournalEntry) -> String {
    let body: serde_json::Value = serde_json::from_slice(entry.body.as_ref().unwrap()).unwrap();
    body["surname"].as_str().unwrap().to_owned()
}

/// Commits that the marker has let through the gate; what it does with them comes next.
async fn let_through(site: &Site) -> u64 {
    let (_, text) = site.get("/metrics").await;
    let line = text.lines().find(|line| line.starts_with("benefits_sync_commits_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

for_each_major! {
    async fn a_command_does_not_overtake_a_change_in_hand(major: u32) {
        let site = synced(major).await;
        let (process, go) = waits_in_hand(&site, "record-read").await;
        let before = let_through(&site).await;
        site.hr.batch_execute("select benefits.sync(array['1'])").await.unwrap();
        eventually("the command has come so far", async || let_through(&site).await > before).await;
        // Time enough for it to go wrong: a mark takes a millisecond.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sql = "select count(*), (select count(*) from benefits.pending) from benefits.request";
        let row = site.hr.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 0), "it waits for who is in hand");
        std::fs::write(go, "").unwrap();
        prove(&site).await;
        process.kill9();
    }

    async fn an_update_that_cannot_be_recorded_is_followed_by_everything(major: u32) {
        let site = synced(major).await;
        let (process, go) = waits_in_hand(&site, "update-accepted").await;
        // Of the surname the ledger believes what it recorded last.
        let sent = site.sandbox.journal_of("1");
        let believed = name_in(&sent[sent.len() - 2]);
        assert_ne!(site.held("1", "surname"), Some(believed.clone()), "the platform has another");
        // Somebody else records something, and HR goes back to what the ledger believes.
        site.hr.batch_execute("update benefits.enrolment set outcome = outcome where employee_id = '1'").await.unwrap();
        rename(&site, 1, &believed).await;
        std::fs::write(go, "").unwrap();
        prove(&site).await;
        assert_eq!(site.held("1", "surname"), Some(believed));
        process.kill9();
    }

    async fn a_stop_with_a_change_in_hand_is_not_one_in_order(major: u32) {
        let site = synced(major).await;
        let (process, _go) = waits_in_hand(&site, "update-accepted").await;
        process.signal("TERM");
        eventually("nobody reads the slot", async || {
            let sql = "select not active from pg_replication_slots where slot_name = $1::text::name";
            site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get(0)
        })
        .await;
        let sql = "select closed from benefits.checkpoint";
        assert!(!site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
        process.kill9();
        let process = site.spawn().await;
        prove(&site).await;
        process.kill9();
    }
}

#[tokio::test]
async fn who_waits_in_hand_for_their_turn_is_marked_before_long() {
    let site = synced(18).await;
    let go = |n: u32| site.directory.path().join(format!("go-{n}"));
    let points: Vec<String> = (1..=2).map(|n| format!("record-read=pause:{}", go(n).display())).collect();
    let process = site.spawn_armed(&points.join(";"));
    site.until_ready().await;
    // As many loads as there may be, and neither ends. The second point counts from when the first is passed over.
    for n in 1..=2 {
        rename(&site, i64::from(n), "Loads").await;
        eventually("it loads", async || go(n).with_extension("reached").exists()).await;
    }
    rename(&site, 3, "Waits").await;
    eventually("who waits is marked", async || {
        let sql = "select exists (select from benefits.pending where employee_id = '3')";
        site.hr.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    for n in 1..=2 {
        std::fs::write(go(n), "").unwrap();
    }
    prove(&site).await;
    process.kill9();
}
