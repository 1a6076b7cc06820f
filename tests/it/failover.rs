//! Failover: the primary dies, a standby is promoted, the pipeline follows it there by its list of hosts. The new timeline
//! puts the ledger in doubt; nothing leaves before it was compared with the platform, and then only what differs.

use benefits_sync::demo::cluster::Cluster;
use benefits_sync::sandbox::SandboxOptions;

use crate::for_each_major;
use crate::reconcile::{ASKS_SOON, asked_in_vain, calm, doubted, unlisted};
use crate::slot::doubts;
use crate::support::database::{connect, database_on};
use crate::support::proof::prove;
use crate::support::site::{Site, eventually, prepare};
use crate::support::{options, private_cluster, private_cluster_with, wanted};

/// A primary, a streaming standby of it, and a site whose URL names both.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    site: Site,
}

impl Pair {
    /// `synced`: the standby keeps a copy of the slot (PostgreSQL 17 and later).
    async fn new(major: u32, synced: bool) -> Self {
        let primary = private_cluster(major).await;
        let mut database = database_on(&primary, major).await;
        prepare(&database.url).await;
        primary.psql("hr", "select pg_create_physical_replication_slot('standby', true)").await.unwrap();
        let from = format!("host=127.0.0.1 port={} user=postgres dbname=hr", primary.port());
        let mut options = options(major)
            .setting("primary_conninfo", &from)
            .setting("primary_slot_name", "standby")
            .setting("hot_standby_feedback", "on");
        if synced {
            options = options.setting("sync_replication_slots", "on");
        }
        options.copy_of = Some(primary.url("postgres"));
        options.files = vec![("standby.signal".to_owned(), Vec::new())];
        let standby = private_cluster_with(options).await;
        database.url = format!(
            "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/hr?target_session_attrs=read-write",
            primary.port(),
            standby.port()
        );
        let options = SandboxOptions { keep_bodies: true, ..SandboxOptions::default() };
        let mut site = Site::on(database, options).await;
        ASKS_SOON.clone_into(&mut site.more);
        site.start().await;
        calm(&site).await;
        site.sync(&["1", "2", "3"]).await;
        Self { primary, standby, site }
    }

    /// Waits until the standby has replayed what is committed now.
    async fn in_step(&self) {
        let end: String =
            self.site.hr.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let standby = connect(&self.standby.url("hr")).await;
        eventually("the standby has replayed it", async || {
            let sql = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
            standby.query_one(sql, &[&end]).await.unwrap().get(0)
        })
        .await;
    }

    /// Waits until the standby's copy of the slot would survive a promotion. It is temporary until the slot's `restart_lsn`
    /// has passed where the standby was when it made the copy, so HR has to go on meanwhile, and the server's own snapshots,
    /// of which it otherwise writes one in fifteen seconds.
    async fn slot_is_synced(&self) {
        let standby = connect(&self.standby.url("hr")).await;
        eventually("the slot is synced", async || {
            let sql = "update hr.employee set updated_at = clock_timestamp() where id = 1";
            self.site.hr.batch_execute(sql).await.unwrap();
            self.site.hr.batch_execute("select pg_log_standby_snapshot()").await.unwrap();
            let sql = "select coalesce(bool_or(synced and not temporary and invalidation_reason is null), false) \
                       from pg_replication_slots where slot_name = $1::text::name";
            standby.query_one(sql, &[&self.site.database.slot]).await.unwrap().get(0)
        })
        .await;
    }

    /// From now on the standby receives nothing more.
    async fn cut(&self) {
        let standby = connect(&self.standby.url("hr")).await;
        standby.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
        standby.batch_execute("select pg_reload_conf()").await.unwrap();
        eventually("nobody streams to the standby", async || {
            let sql = "select not active from pg_replication_slots where slot_name = 'standby'";
            self.site.hr.query_one(sql, &[]).await.unwrap().get(0)
        })
        .await;
    }

    /// The primary dies, the standby takes its place. The platform does not list its accounts until `go_on`, so that
    /// whoever looks meanwhile sees the pipeline wait.
    async fn fail_over(&mut self) {
        unlisted(&self.site);
        self.primary.kill9().await.unwrap();
        self.standby.psql("hr", "select pg_promote()").await.unwrap();
        self.site.hr = connect(&self.standby.url("hr")).await;
        doubted(&self.site).await;
    }

    async fn go_on(&self) {
        self.site.sandbox.disarm_all();
        calm(&self.site).await;
        self.site.until_ready().await;
    }
}

async fn surname(site: &Site, id: i64, name: &str) {
    let sql = "update hr.employee set surname = $2 where id = $1";
    site.hr.execute(sql, &[&id, &name]).await.unwrap();
}

/// A standby that had everything: what HR changes while the platform is compared is all that is sent.
async fn only_differences_are_sent(mut pair: Pair) -> Pair {
    surname(&pair.site, 1, "Before").await;
    pair.site.settled().await;
    pair.in_step().await;
    let sent = pair.site.sandbox.journal().len();
    pair.fail_over().await;
    surname(&pair.site, 2, "Meanwhile").await;
    asked_in_vain(&pair.site).await;
    assert_eq!(pair.site.sandbox.journal().len(), sent, "nothing leaves before the platform was compared");
    pair.go_on().await;
    let later: Vec<_> = pair.site.sandbox.journal().into_iter().skip(sent).collect();
    assert_eq!(later.len(), 1, "{later:#?}");
    assert_eq!((later[0].external_id.as_deref(), &*later[0].fields), (Some("2"), &["surname"][..]));
    surname(&pair.site, 3, "After").await;
    prove(&pair.site).await;
    pair.site.stop().await;
    pair
}

/// An asynchronous standby that missed the last of it, which the platform has.
async fn what_was_lost_is_taken_back(mut pair: Pair) -> Pair {
    let lost = pair.site.held("1", "surname");
    pair.in_step().await;
    pair.cut().await;
    surname(&pair.site, 1, "Lost").await;
    pair.site.sync(&["6"]).await;
    surname(&pair.site, 2, "Again").await;
    pair.site.settled().await;
    let sent = pair.site.sandbox.journal().len();
    pair.fail_over().await;
    assert_eq!(pair.site.status("6").await.0, "not_syncing", "the standby had it all");
    // HR types in again what it misses; not everything.
    surname(&pair.site, 2, "Again").await;
    asked_in_vain(&pair.site).await;
    assert_eq!(pair.site.sandbox.journal().len(), sent, "nothing leaves before the platform was compared");
    pair.go_on().await;
    assert_eq!(pair.site.held("1", "surname"), lost, "the platform follows what HR has now");
    let later: Vec<_> = pair.site.sandbox.journal().into_iter().skip(sent).collect();
    assert_eq!(later.len(), 1, "2 is in step already: {later:#?}");
    prove(&pair.site).await;
    // The account that the lost tail created is nobody's: its number may be another person's by now, so a person decides.
    let account = pair.site.sandbox.account_of("6").unwrap().id;
    pair.site.sync(&["6"]).await;
    assert_eq!(pair.site.status("6").await, ("failed".to_owned(), Some("conflict".to_owned())));
    pair.site.hr.execute("select benefits.relink('6', $1)", &[&account]).await.unwrap();
    prove(&pair.site).await;
    assert_eq!(pair.site.status("6").await.0, "successful");
    pair.site.stop().await;
    pair
}

for_each_major! {
    async fn without_a_synced_slot_the_standby_gets_a_new_one_and_only_differences_are_sent(major: u32) {
        let pair = Pair::new(major, false).await;
        let generation = doubts(&pair.site).await.0;
        let pair = only_differences_are_sent(pair).await;
        assert_eq!(doubts(&pair.site).await.0, generation + 1);
    }

    async fn what_an_asynchronous_failover_lost_is_told_from_the_platforms_records(major: u32) {
        what_was_lost_is_taken_back(Pair::new(major, false).await).await;
    }
}

macro_rules! with_a_synced_slot {
    ($major:literal, $follows:ident, $lags:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $follows() {
            if !wanted($major) {
                return;
            }
            let pair = Pair::new($major, true).await;
            pair.slot_is_synced().await;
            let generation = doubts(&pair.site).await.0;
            let pair = only_differences_are_sent(pair).await;
            assert_eq!(doubts(&pair.site).await.0, generation, "the same slot goes on");
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $lags() {
            if !wanted($major) {
                return;
            }
            let pair = Pair::new($major, true).await;
            pair.slot_is_synced().await;
            let generation = doubts(&pair.site).await.0;
            let pair = what_was_lost_is_taken_back(pair).await;
            assert_eq!(doubts(&pair.site).await.0, generation, "the same slot goes on");
        }
    };
}

with_a_synced_slot!(17, a_synced_slot_goes_on_on_17, a_synced_slot_behind_a_lost_tail_goes_on_on_17);
with_a_synced_slot!(18, a_synced_slot_goes_on_on_18, a_synced_slot_behind_a_lost_tail_goes_on_on_18);
