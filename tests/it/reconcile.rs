//! Everyone compared: starters and requests that were missed, who has gone, the nightly time, the platform.

use std::process::{Command, Output};

use benefits_sync::pipeline;
use benefits_sync::sandbox::{FaultRule, SandboxOptions};
use tokio_util::sync::CancellationToken;

use crate::for_each_major;
use crate::support::site::{Site, eventually};
use crate::support::{database::database_on, options, private_cluster};

/// Waits until no doubt is left and nothing is pending.
pub async fn calm(site: &Site) {
    eventually("no doubt is left", async || {
        let sql = "select s.doubt is null and c.reconciled_at is not null \
                   from benefits.site as s left join benefits.checkpoint as c on true";
        site.hr.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    site.settled().await;
}

/// Starts the pipeline, and waits until everyone was compared.
pub async fn start(site: &mut Site) {
    site.start().await;
    calm(site).await;
}

/// Waits until it is noticed that the ledger may have lost its tail: it is reported, and delivery waits for a comparison with
/// the platform, which the test keeps from listing its accounts (see [`unlisted`]).
pub async fn doubted(site: &Site) {
    eventually("it is noticed, and reported", async || {
        let doubted = "select coalesce(doubt = 'platform', false) from benefits.site";
        let (ready, text) = site.get("/readyz").await;
        ready == 503
            && text.contains("platform-doubt")
            && site.hr.query_one(doubted, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
}

/// So that a platform which does not answer is soon asked again, in [`asked_in_vain`] and after it.
pub const ASKS_SOON: &str = "[delivery]\nbackoff_max = \"1s\"\n";

/// From now on the platform does not list its accounts: whoever looks meanwhile sees the pipeline wait.
pub fn unlisted(site: &Site) {
    site.sandbox.arm("unavailable,on=findEmployees".parse::<FaultRule>().unwrap());
}

/// Waits until the list was asked for twice more: what is to happen in doubt has had its time.
pub async fn asked_in_vain(site: &Site) {
    let asked = || site.sandbox.counts().faults.get("unavailable").copied().unwrap_or(0);
    let before = asked();
    eventually("the accounts are asked for again", async || asked() > before + 1).await;
}

/// Waits until nobody reads the slot: who read it may have gone a moment ago.
pub async fn slot_is_free(site: &Site) {
    eventually("nobody reads the slot", async || {
        let sql = "select not active from pg_replication_slots where slot_name = $1::text::name";
        site.hr.query_one(sql, &[&site.database.slot]).await.unwrap().get(0)
    })
    .await;
}

/// Drops the slot, so that what is committed next is never read from the WAL.
pub async fn drop_slot(site: &Site) {
    slot_is_free(site).await;
    let sql = "select pg_drop_replication_slot($1::text::name)";
    site.hr.execute(sql, &[&site.database.slot]).await.unwrap();
}

async fn reconcile(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
    command.arg("reconcile").arg("--config").arg(site.config_file()).args(arguments);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

async fn report(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let output = reconcile(site, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Writes so far.
fn writes(site: &Site) -> usize {
    site.sandbox.journal().len()
}

for_each_major! {
    async fn only_differences_are_sent_after_the_slot_is_gone(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1", "2", "3", "4"]).await;
        site.stop().await;
        let before = writes(&site);
        drop_slot(&site).await;
        site.hr.batch_execute(
            "update hr.employee set surname = 'Lovelace' where id = 2;
             delete from hr.job_pay where employee_id = 3; delete from hr.job where employee_id = 3;
             delete from hr.phone where employee_id = 3; delete from hr.email where employee_id = 3;
             delete from hr.address where employee_id = 3; delete from hr.employee where id = 3",
        ).await.unwrap();
        start(&mut site).await;
        let sent: Vec<_> = site.sandbox.journal().into_iter().skip(before).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!((sent[0].external_id.as_deref(), &*sent[0].fields), (Some("2"), &["surname"][..]));
        assert_eq!(site.status("3").await, ("failed".to_owned(), Some("record-gone".to_owned())));
        assert!(site.held("3", "surname").is_some(), "a deleted row deletes nothing at Benefits");
        let gone = "select gone_at is not null from benefits.employee where employee_id = '3'";
        assert!(site.hr.query_one(gone, &[]).await.unwrap().get::<_, bool>(0));
        site.stop().await;
    }

    async fn missed_starters_are_enrolled_but_not_those_of_the_baseline(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.stop().await;
        drop_slot(&site).await;
        site.hr.batch_execute(
            "update hr.employee set create_benefits_record = true where id in (5, 6);
             update benefits.employee set starter_baseline = true where employee_id = '6'",
        ).await.unwrap();
        start(&mut site).await;
        assert_eq!(site.status("5").await.0, "successful");
        assert_eq!(site.status("6").await.0, "not_syncing");
        // The reader knows them: a change is theirs from now on.
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 5", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("5", "surname").as_deref(), Some("Lovelace"));
        site.stop().await;
    }

    async fn a_request_older_than_the_slot_is_not_stranded(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.stop().await;
        site.hr.execute("select benefits.sync('{7}')", &[]).await.unwrap();
        drop_slot(&site).await;
        start(&mut site).await;
        assert_eq!(site.status("7").await.0, "successful");
        let asked = "select requested_by = session_user from benefits.sync_history where employee_id = '7' limit 1";
        assert!(site.hr.query_one(asked, &[]).await.unwrap().get::<_, bool>(0), "whoever asked is kept");
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 7", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("7", "surname").as_deref(), Some("Lovelace"));
        site.stop().await;
    }

    async fn a_child_row_that_came_while_there_was_no_slot_is_known_when_it_leaves(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.stop().await;
        drop_slot(&site).await;
        site.hr.batch_execute(
            "delete from hr.phone where employee_id = 1 and kind = 'mobile';
             insert into hr.phone (employee_id, kind, number) values (1, 'mobile', '07700 900123')",
        ).await.unwrap();
        start(&mut site).await;
        assert_eq!(site.held("1", "mobile").as_deref(), Some("07700 900123"));
        site.hr.execute("delete from hr.phone where employee_id = 1 and kind = 'mobile'", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "mobile"), None);
        site.stop().await;
    }

    async fn the_nightly_comparison_puts_right_what_differs_and_leaves_the_failed_alone(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1", "2", "3"]).await;
        site.hr.batch_execute("update hr.employee set surname = '' where id = 2").await.unwrap();
        site.settled().await;
        assert_eq!(site.status("2").await, ("failed".to_owned(), Some("required".to_owned())));
        site.stop().await;
        let (lines, before) = (site.history("2").await.len(), writes(&site));
        // A difference that no WAL tells of, and a night that was slept through.
        site.hr.batch_execute(
            "update benefits.enrolment set acknowledged = null where employee_id = '1';
             update benefits.checkpoint set reconciled_at = reconciled_at - interval '2 days'",
        ).await.unwrap();
        site.start().await;
        eventually("the night was made up for", async || {
            let sql = "select reconciled_at > clock_timestamp() - interval '1 day' from benefits.checkpoint";
            site.hr.query_one(sql, &[]).await.unwrap().get(0)
        }).await;
        site.settled().await;
        let sent: Vec<_> = site.sandbox.journal().into_iter().skip(before).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0].external_id.as_deref(), Some("1"));
        assert_eq!(site.history("2").await.len(), lines, "an unchanged record that was refused is not tried again");
        site.stop().await;
    }

    async fn a_failed_employee_is_tried_again_after_doubt(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["2"]).await;
        site.sandbox.arm("reject,on=writes,next=1".parse().unwrap());
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 2", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.status("2").await.0, "failed");
        site.hr.execute("update benefits.site set doubt = 'slot', doubt_count = doubt_count + 1", &[]).await.unwrap();
        calm(&site).await;
        assert_eq!(site.status("2").await.0, "successful");
        assert_eq!(site.held("2", "surname").as_deref(), Some("Lovelace"));
        site.stop().await;
    }

    async fn a_graver_doubt_is_not_forgotten_for_a_lesser_one(major: u32) {
        let site = Site::new(major).await;
        let note = include_str!("../../sql/queries/note_doubt.sql");
        for (why, stays) in [("roster", "roster"), ("platform", "platform"), ("roster", "platform"), ("slot", "platform")] {
            site.hr.execute(note, &[&why]).await.unwrap();
            let row = site.hr.query_one("select doubt from benefits.site", &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), stays);
        }
    }

    async fn the_command_counts_and_changes_nothing_in_a_dry_run(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1", "2"]).await;
        site.stop().await;
        site.hr.batch_execute(
            "update hr.employee set surname = 'Lovelace' where id = 2;
             update hr.employee set create_benefits_record = true where id = 5",
        ).await.unwrap();
        let counted = report(&site, &["--dry-run"]).await;
        for (name, count) in [("roster", 30), ("compared", 2), ("differing", 1), ("starters", 1), ("gone", 0)] {
            assert_eq!(counted[name], count, "{name}: {counted}");
        }
        let pending = "select (select count(*) from benefits.pending) + (select count(*) from benefits.request)";
        assert_eq!(site.hr.query_one(pending, &[]).await.unwrap().get::<_, i64>(0), 0);
        let output = reconcile(&site, &["--dry-run"]).await;
        assert_eq!(output.status.code(), Some(0));
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains("nothing was changed"), "{table}");
        assert_eq!(report(&site, &[]).await["differing"], 1);
        assert_eq!(site.hr.query_one(pending, &[]).await.unwrap().get::<_, i64>(0), 2);
        site.start().await;
        site.settled().await;
        assert_eq!(site.held("2", "surname").as_deref(), Some("Lovelace"));
        assert_eq!(site.status("5").await.0, "successful");
        site.stop().await;
    }

    async fn drift_on_the_platform_is_found_and_put_right(major: u32) {
        let mut site = Site::new(major).await;
        start(&mut site).await;
        site.sync(&["1", "2", "3"]).await;
        let id = |employee: &str| site.sandbox.account_of(employee).unwrap().id;
        let surname = site.held("1", "surname").unwrap();
        assert!(site.sandbox.tamper(&id("1"), &[("surname", Some("Drifted"))]));
        assert!(site.sandbox.remove_account(&id("3"), false));
        let counted = report(&site, &["--platform", "--dry-run"]).await;
        assert_eq!((&counted["platform"]["drifted"], &counted["platform"]["missing"]), (&1.into(), &1.into()));
        assert_eq!(site.held("1", "surname").as_deref(), Some("Drifted"), "a dry run changes nothing");
        let counted = report(&site, &["--platform"]).await;
        assert_eq!((&counted["platform"]["drifted"], &counted["platform"]["accounts"]), (&1.into(), &2.into()));
        site.settled().await;
        assert_eq!(site.held("1", "surname"), Some(surname));
        assert_eq!(site.status("3").await, ("failed".to_owned(), Some("link-broken".to_owned())));
        assert_eq!(report(&site, &["--platform"]).await["platform"]["drifted"], 0);
        site.stop().await;
    }

    async fn the_command_says_what_is_wrong_by_its_exit_code(major: u32) {
        let site = Site::new(major).await;
        site.hr.batch_execute("drop schema benefits cascade").await.unwrap();
        assert_eq!(reconcile(&site, &[]).await.status.code(), Some(3), "not set up");
        std::fs::write(site.directory.path().join("key"), "no key").unwrap();
        assert_eq!(reconcile(&site, &[]).await.status.code(), Some(2), "a bad key file");
    }

    async fn the_services_login_needs_no_more_than_its_grants_to_compare(major: u32) {
        let cluster = private_cluster(major).await;
        let mut database = database_on(&cluster, major).await;
        crate::support::site::prepare(&database.url).await;
        let hr = crate::support::database::connect(&database.url).await;
        // One login for both sessions, which this file's configuration has.
        hr.batch_execute("alter role benefits_service replication").await.unwrap();
        database.url = cluster.url_as("benefits_service", "hr");
        let mut site = Site::on(database, SandboxOptions::default()).await;
        site.hr = hr;
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.stop().await;
        drop_slot(&site).await;
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        start(&mut site).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Lovelace"));
        assert_eq!(report(&site, &["--platform"]).await["platform"]["ours"], 1);
        site.stop().await;
    }

    async fn a_halt_that_ends_in_doubt_leaves_delivery_waiting_and_the_doubts_end_is_told(major: u32) {
        let mut site = Site::new(major).await;
        ASKS_SOON.clone_into(&mut site.more);
        start(&mut site).await;
        site.sync(&["1"]).await;
        site.sandbox.set_suspended(true);
        site.hr.execute("update hr.employee set surname = 'Lovelace' where id = 1", &[]).await.unwrap();
        eventually("it is halted", async || site.get("/readyz").await.1.contains("platform-suspended")).await;
        unlisted(&site);
        let doubt = "update benefits.site set doubt = 'platform', doubt_count = doubt_count + 1";
        site.hr.batch_execute(doubt).await.unwrap();
        site.sandbox.set_suspended(false);
        eventually("the halt is over, and it waits", async || {
            let (status, text) = site.get("/readyz").await;
            assert_eq!(status, 503);
            text.contains("platform-doubt")
        })
        .await;
        let gauge = "benefits_sync_delivery_halted{reason=\"platform-doubt\"}";
        assert!(site.get("/metrics").await.1.contains(&format!("{gauge} 1")));
        site.sandbox.disarm_all();
        calm(&site).await;
        site.until_ready().await;
        assert!(site.get("/metrics").await.1.contains(&format!("{gauge} 0")));
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Lovelace"));
        site.stop().await;
    }

    async fn nothing_is_sent_on_another_timeline_before_the_platform_was_compared(major: u32) {
        let (cluster, mut site) = Site::apart(options(major), major).await;
        ASKS_SOON.clone_into(&mut site.more);
        start(&mut site).await;
        site.sync(&["1", "2"]).await;
        let surname = site.held("1", "surname").unwrap();
        site.stop().await;
        // Pending already when the service comes up, so that delivery has something to send at once.
        site.hr.batch_execute(
            "update hr.employee set surname = 'Lovelace' where id = 2;
             insert into benefits.pending (employee_id, cause, changed_at, last_changed_at) values ('2', 'change', now(), now())",
        ).await.unwrap();
        cluster.stop(benefits_sync::demo::cluster::StopMode::Fast).await.unwrap();
        let data = cluster.directory().join("data");
        std::fs::write(data.join("standby.signal"), "").unwrap();
        cluster.restart().await.unwrap();
        cluster.psql("hr", "select pg_promote()").await.unwrap();
        site.hr = crate::support::database::connect(&site.database.url).await;
        // What the ledger's lost tail would have known of.
        assert!(site.sandbox.tamper(&site.sandbox.account_of("1").unwrap().id, &[("surname", Some("Later"))]));
        let before = writes(&site);
        unlisted(&site);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(pipeline::run(site.config(), shutdown.clone()));
        doubted(&site).await;
        asked_in_vain(&site).await;
        assert_eq!(writes(&site), before, "nothing is sent while the ledger may have lost its tail");
        site.sandbox.disarm_all();
        calm(&site).await;
        assert_eq!(site.held("1", "surname"), Some(surname));
        assert_eq!(site.held("2", "surname").as_deref(), Some("Lovelace"));
        site.until_ready().await;
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
