//! What was in hand when a process died is known to nobody but the platform. Whatever comes after the death (a stop in
//! order, another instance, a lost slot), the doubt stays until everybody concerned was sent in full or compared.

use std::path::Path;

use crate::for_each_major;
use crate::reconcile::slot_is_free;
use crate::support::port;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

async fn rename(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

async fn is_true(site: &Site, sql: &str) -> bool {
    site.hr.query_one(sql, &[]).await.unwrap().get(0)
}

/// Employees 1 and 2 are synced; the process has stopped in order.
async fn synced(major: u32) -> Site {
    let mut site = Site::new(major).await;
    site.start().await;
    site.sync(&["1", "2"]).await;
    site.stop().await;
    site
}

async fn paused_at(path: &Path) {
    let reached = path.with_extension("reached");
    eventually(&format!("{} is there", reached.display()), async || reached.exists()).await;
}

/// Commits that touch nobody, more than the reader hands over at once.
const MORE_THAN_A_HAND_OVER: &str = "do $$ begin for n in 1..1200 loop
    update hr.employee set surname = 'N' || n where id = 30; commit; end loop; end $$";

/// A process dies with an update of employee 1 in hand that the platform has accepted, and with `first` and all that came
/// after it unconfirmed. Before each change the one before it is recorded, so that the name given back is what the ledger
/// believes.
async fn dies_with_a_change_in_hand(site: &Site, first: &str) -> String {
    for round in 0..10 {
        let confirming = site.directory.path().join(format!("confirming-{round}"));
        let points = format!("answer-received=abort@5;lsn-confirmed=pause:{}", confirming.display());
        let mut process = site.spawn_armed(&points);
        site.until_ready().await;
        paused_at(&confirming).await;
        site.hr.batch_execute(first).await.unwrap();
        eventually("nothing is pending", async || {
            is_true(site, "select not exists (select from benefits.pending)").await
        })
        .await;
        for n in 0.. {
            let (believed, recorded) = (site.held("1", "surname").unwrap(), site.history("1").await.len());
            let sent = format!("Round {round} {n}");
            rename(site, 1, &sent).await;
            let mut dead = false;
            eventually("it is recorded, or the process is dead", async || {
                dead = process.child.try_wait().unwrap().is_some();
                dead || site.history("1").await.len() > recorded
            })
            .await;
            if dead {
                let unmarked = "select not exists (select from benefits.pending)";
                if site.held("1", "surname") == Some(sent) && is_true(site, unmarked).await {
                    slot_is_free(site).await;
                    return believed;
                }
                // A busy machine: it was marked before it died.
                break;
            }
        }
    }
    panic!("never in hand");
}

/// Starts a process and proves that it finds what the platform was sent without the ledger's knowing.
async fn is_found(site: &Site, believed: &str) {
    let process = site.spawn().await;
    prove(site).await;
    assert_eq!(site.held("1", "surname").as_deref(), Some(believed));
    process.kill9();
}

for_each_major! {
    async fn what_was_sent_in_hand_before_a_death_is_found_though_hr_is_as_the_ledger_believes(major: u32) {
        let site = synced(major).await;
        let believed = dies_with_a_change_in_hand(&site, "select").await;
        rename(&site, 1, &believed).await;
        is_found(&site, &believed).await;
    }

    async fn a_slot_that_is_lost_after_a_death_leaves_no_doubt_unanswered(major: u32) {
        let site = synced(major).await;
        let believed = dies_with_a_change_in_hand(&site, "select").await;
        crate::reconcile::drop_slot(&site).await;
        rename(&site, 1, &believed).await;
        let process = site.spawn().await;
        crate::reconcile::calm(&site).await;
        process.kill9();
        is_found(&site, &believed).await;
    }

    async fn a_stop_in_order_halfway_through_what_is_read_again_leaves_the_rest_of_it_in_doubt(major: u32) {
        let site = synced(major).await;
        let believed = dies_with_a_change_in_hand(&site, MORE_THAN_A_HAND_OVER).await;
        rename(&site, 1, &believed).await;
        let go = site.directory.path().join("go");
        let process = site.spawn_armed(&format!("commit-handed=pause:{}", go.display()));
        paused_at(&go).await;
        process.signal("TERM");
        assert_eq!(process.ended().await.code(), Some(0));
        is_found(&site, &believed).await;
    }

    async fn a_process_that_took_the_slot_and_was_overtaken_finds_what_the_other_had_in_hand(major: u32) {
        let mut site = synced(major).await;
        let port = std::mem::replace(&mut site.http, port::own());
        let go = site.directory.path().join("go");
        let slow = site.spawn_armed(&format!("slot-taken=pause:{}", go.display()));
        paused_at(&go).await;
        site.http = port;
        let believed = dies_with_a_change_in_hand(&site, "select").await;
        rename(&site, 1, &believed).await;
        std::fs::write(go, "").unwrap();
        prove(&site).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some(&*believed));
        slow.kill9();
    }

    async fn a_reader_that_was_overtaken_does_not_say_how_the_reading_has_ended(major: u32) {
        let mut site = synced(major).await;
        site.start().await;
        rename(&site, 1, "Read").await;
        site.settled().await;
        // As the next reader would, once this one's connection is known to be dead.
        site.hr.execute("update benefits.checkpoint set reader = reader + 1", &[]).await.unwrap();
        site.stop().await;
        assert!(is_true(&site, "select not closed from benefits.checkpoint").await);
        site.start().await;
        site.settled().await;
        site.stop().await;
        assert!(is_true(&site, "select closed from benefits.checkpoint").await);
    }
}
