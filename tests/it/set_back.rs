//! A database that is set back: restored to a point in time, or its files put back as they were. The ledger has lost its
//! tail with it, the platform has not: the two are compared before anything leaves.

use std::process::Command;

use benefits_sync::demo::cluster::{Cluster, StopMode};
use benefits_sync::postgres::Target;
use benefits_sync::{demo, setup};

use crate::for_each_major;
use crate::reconcile::{ASKS_SOON, asked_in_vain, calm, doubted, unlisted};
use crate::slot::doubts;
use crate::support::database::connect;
use crate::support::options;
use crate::support::proof::prove;
use crate::support::site::{Process, Site, eventually};

/// A site on a server of its own whose files were copied once, with employees 1 to 3 synced and 1 named `Kept`.
struct Kept {
    cluster: Cluster,
    site: Site,
    process: Option<Process>,
}

impl Kept {
    async fn new(major: u32, witness: bool) -> Self {
        let (cluster, mut site) = Site::apart(options(major), major).await;
        ASKS_SOON.clone_into(&mut site.more);
        if witness {
            site.more_of_ledger = format!("witness_file = \"{}/witness\"\n", site.directory.path().display());
        }
        let process = site.spawn().await;
        calm(&site).await;
        site.sync(&["1", "2", "3"]).await;
        surname(&site, "Kept").await;
        site.settled().await;
        end(process).await;
        cluster.stop(StopMode::Fast).await.unwrap();
        shell(&cluster, "cp -a data kept");
        cluster.restart().await.unwrap();
        site.hr = connect(&site.database.url).await;
        let process = Some(site.spawn().await);
        Self { cluster, site, process }
    }

    /// What will be lost here, and is at the platform. From now on that lists no accounts.
    async fn lose(&self) {
        surname(&self.site, "Lost").await;
        self.site.sync(&["6"]).await;
        self.site.passed().await;
        unlisted(&self.site);
    }

    /// Stops the server, does this to its files, and starts it again.
    async fn put_back(&mut self, script: &str) {
        self.cluster.stop(StopMode::Immediate).await.unwrap();
        shell(&self.cluster, &format!("mv data lost; mv kept data; {script}"));
        self.cluster.restart().await.unwrap();
        self.site.hr = connect(&self.site.database.url).await;
        assert_eq!(self.site.status("6").await.0, "not_syncing", "nothing was lost");
    }

    /// It is noticed and reported, nothing leaves before the comparison, and then the platform has what HR has.
    async fn taken_back(&self) {
        let site = &self.site;
        let sent = site.sandbox.journal().len();
        doubted(site).await;
        asked_in_vain(site).await;
        assert_eq!(site.sandbox.journal().len(), sent, "nothing leaves before the platform was compared");
        site.sandbox.disarm_all();
        calm(site).await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Kept"));
        assert_eq!(site.sandbox.journal().len(), sent + 1, "only what differs is sent");
        prove(site).await;
        site.until_ready().await;
    }
}

async fn surname(site: &Site, name: &str) {
    site.hr.execute("update hr.employee set surname = $1 where id = 1", &[&name]).await.unwrap();
}

async fn end(process: Process) {
    process.signal("TERM");
    assert!(process.ended().await.success());
}

/// Runs a script in the cluster's directory, as who may touch the server's files.
fn shell(cluster: &Cluster, script: &str) {
    let done = Command::new("sh").args(["-ec", script]).current_dir(cluster.directory()).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// More WAL than anybody has lost.
async fn write_much(site: &Site) {
    let sql =
        "create table filler as select repeat('x', 1000) from generate_series(1, 5000); drop table filler";
    site.hr.batch_execute(sql).await.unwrap();
}

for_each_major! {
    async fn after_a_point_in_time_restore_the_platform_is_compared_first(major: u32) {
        let mut kept = Kept::new(major, false).await;
        kept.site.hr.batch_execute("select pg_create_restore_point('here')").await.unwrap();
        kept.lose().await;
        kept.site.hr.batch_execute("select pg_switch_wal()").await.unwrap();
        let directory = kept.cluster.directory().display().to_string();
        kept.put_back(&format!(
            "printf '%s\\n' \"restore_command = 'cp {directory}/lost/pg_wal/%f %p'\" \
             \"recovery_target_name = 'here'\" \"recovery_target_action = 'promote'\" >> data/postgresql.auto.conf; \
             touch data/recovery.signal; chown --reference=data data/recovery.signal"
        ))
        .await;
        kept.taken_back().await;
    }

    async fn files_put_back_as_they_were_are_noticed_by_who_has_run_all_the_while(major: u32) {
        let mut kept = Kept::new(major, false).await;
        kept.lose().await;
        kept.put_back("").await;
        kept.taken_back().await;
        assert!(kept.site.log().contains("set back to an earlier state"));
    }

    async fn files_put_back_while_nobody_ran_are_noticed_by_the_witness_file(major: u32) {
        let mut kept = Kept::new(major, true).await;
        kept.lose().await;
        end(kept.process.take().unwrap()).await;
        kept.put_back("").await;
        write_much(&kept.site).await;
        kept.process = Some(kept.site.spawn_armed(""));
        kept.taken_back().await;
        assert!(kept.site.log().contains("set back to an earlier state"));
    }

    async fn a_witness_that_is_left_over_says_nothing_against_a_new_set_up(major: u32) {
        let mut kept = Kept::new(major, true).await;
        let witness = kept.site.directory.path().join("witness");
        end(kept.process.take().unwrap()).await;
        let before = std::fs::read_to_string(&witness).unwrap();
        let target = Target::parse(&kept.site.database.url).unwrap();
        setup::remove(&target, &kept.site.config()).await.unwrap();
        setup::apply(&target, &kept.site.config()).await.unwrap();
        kept.site.hr.batch_execute(demo::DESCRIPTION).await.unwrap();
        let process = kept.site.spawn().await;
        calm(&kept.site).await;
        // The accounts are theirs, and the new ledger does not know why.
        kept.site.sync(&["1", "2", "3"]).await;
        assert_eq!(kept.site.status("1").await, ("failed".to_owned(), Some("conflict".to_owned())));
        kept.site.hr.batch_execute("select benefits.relink(employee_id) from benefits.employee_status where last_error_code = 'conflict'").await.unwrap();
        kept.site.settled().await;
        assert_eq!(kept.site.status("1").await.0, "successful");
        assert!(!kept.site.log().contains("set back to an earlier state"), "{}", kept.site.log());
        end(process).await;
        let after = std::fs::read_to_string(&witness).unwrap();
        let place = |text: &str| text.split_whitespace().take(2).map(ToOwned::to_owned).collect::<Vec<_>>();
        assert!(after != before && place(&after) == place(&before), "it goes on: {before} {after}");

        // One of some other ledger on this server, which was further: everyone is compared, and that is all.
        std::fs::write(&witness, format!("{} FFFF/0", place(&after).join(" "))).unwrap();
        let sent = kept.site.sandbox.journal().len();
        let process = kept.site.spawn().await;
        calm(&kept.site).await;
        let log = kept.site.log();
        assert!(log.contains("set back to an earlier state") && log.contains("ledger_was=FFFF/0"), "{log}");
        assert_eq!(kept.site.sandbox.journal().len(), sent, "nothing is sent for it");
        end(process).await;
        let said = log.matches("set back").count();
        let process = kept.site.spawn().await;
        calm(&kept.site).await;
        assert_eq!(kept.site.log().matches("set back").count(), said, "once is enough");
        prove(&kept.site).await;
        end(process).await;
    }

    async fn a_copy_of_the_files_without_their_slots_is_noticed(major: u32) {
        let mut kept = Kept::new(major, false).await;
        kept.lose().await;
        kept.put_back("rm -r data/pg_replslot/*").await;
        kept.taken_back().await;
        assert_eq!(doubts(&kept.site).await.0, 2, "the slot is a new one");
    }

    async fn a_server_that_crashed_was_not_set_back(major: u32) {
        let mut kept = Kept::new(major, true).await;
        for round in 0..3 {
            let url = kept.site.database.url.clone();
            let burst = tokio::spawn(async move {
                let client = connect(&url).await;
                let sql = format!("update hr.employee set known_as = 'Burst {round} ' || clock_timestamp() where id <= 3");
                while client.batch_execute(&sql).await.is_ok() {}
            });
            eventually("the burst has arrived", async || {
                kept.site.held("1", "knownAs").is_some_and(|name| name.starts_with(&format!("Burst {round}")))
            })
            .await;
            kept.cluster.kill9().await.unwrap();
            burst.await.unwrap();
            kept.cluster.restart().await.unwrap();
            kept.site.hr = connect(&kept.site.database.url).await;
            kept.site.hr.execute("update hr.employee set known_as = $1 where id <= 3", &[&format!("{round}")]).await.unwrap();
            kept.site.until_ready().await;
            prove(&kept.site).await;
        }
        assert!(!kept.site.log().contains("set back to an earlier state"), "{}", kept.site.log());
    }
}
