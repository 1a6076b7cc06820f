//! Two that work at one ledger, and a decision that is overtaken while it is made.

use std::sync::Arc;
use std::time::Instant;

use benefits_sync::ledger::Session;
use benefits_sync::ledger::outcomes::{self, Outcome, StateName};
use benefits_sync::ledger::work::{self, Claim, Intent, IntentKind, Work};
use benefits_sync::postgres::Target;
use benefits_sync::sandbox::{Sandbox, SandboxOptions};

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

const MARK: &str = "insert into benefits.pending (employee_id, cause, changed_at, last_changed_at) \
                    values ('1', 'change', now(), now())";

async fn load(session: &Arc<Session>) -> Work {
    work::load(session, &[work::Wanted { employee_id: "1".to_owned(), in_hand: false }])
        .await
        .unwrap()
        .pop()
        .unwrap()
}

fn decided(work: &Work, state: StateName) -> Outcome {
    Outcome {
        discarded: false,
        employee_id: work.employee_id.clone(),
        seq: work.seq,
        claim: None,
        loaded: work.loaded(),
        create_unresolved: false,
        version: work.version,
        acknowledged: None,
        unknown: work.unknown,
        error: (state == StateName::Failed).then(|| ("format".to_owned(), "late".to_owned())),
        state,
        benefits_id: work.benefits_id.clone(),
        linked: work.linked,
        answered: Instant::now(),
        synced: false,
        refused: None,
        lines: Vec::new(),
    }
}

fn intended(work: &Work) -> Intent {
    Intent {
        employee_id: work.employee_id.clone(),
        loaded: work.loaded(),
        claim: Claim {
            kind: IntentKind::Update,
            version: work.version + 1,
            fields: work.unknown,
            hash: vec![1; 16],
        },
        benefits_id: None,
    }
}

for_each_major! {
    async fn a_decision_about_marks_that_were_cleared_does_not_clear_later_ones(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        site.hr.execute(MARK, &[]).await.unwrap();
        let work = load(&session).await;
        // Another instance delivers in the meantime, and HR changes the employee again.
        site.hr.batch_execute("delete from benefits.pending").await.unwrap();
        site.hr.execute(MARK, &[]).await.unwrap();
        outcomes::record(&session, &[decided(&work, StateName::Successful)]).await.unwrap();
        let left = site.hr.query_one("select count(*) from benefits.pending", &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 1, "the later change is lost");
    }

    async fn a_refusal_that_was_read_before_another_instance_sent_does_not_forget_what_was_sent(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        site.hr.execute(MARK, &[]).await.unwrap();
        let work = load(&session).await;
        // Another instance sends, its answer is lost, and it gives the claim back.
        site.hr.batch_execute("update benefits.pending set intent_kind = 'create', intent_version = 77, attempts = 1").await.unwrap();
        let late = outcomes::record(&session, &[decided(&work, StateName::Failed)]).await.unwrap();
        assert_eq!((late.len(), site.status("1").await.1), (0, None));
        let intent = site.hr.query_one("select intent_version from benefits.pending", &[]).await.unwrap();
        assert_eq!(intent.get::<_, Option<i64>>(0), Some(77), "what may have arrived is still known");
    }

    async fn a_refusal_without_a_claim_counts_only_while_nobody_else_has_delivered(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        site.hr.execute(MARK, &[]).await.unwrap();
        let work = load(&session).await;
        site.hr.batch_execute("update benefits.enrolment set version = version + 1").await.unwrap();
        let late = outcomes::record(&session, &[decided(&work, StateName::Failed)]).await.unwrap();
        assert_eq!((late.len(), site.status("1").await.1), (0, None));
        let again = load(&session).await;
        let now = outcomes::record(&session, &[decided(&again, StateName::Failed)]).await.unwrap();
        assert_eq!((now.len(), site.status("1").await.1.as_deref()), (1, Some("format")));
    }

    async fn who_is_marked_for_new_rules_is_not_decided_by_the_old_ones(major: u32) {
        let site = Site::new(major).await;
        let process = site.spawn().await;
        site.hr.execute("update hr.employee set title = 'Herr Doktor' where id = 1", &[]).await.unwrap();
        site.sync(&["1"]).await;
        assert_eq!(site.status("1").await.1.as_deref(), Some("unknown-value"));
        process.kill9();
        // The marks are in the ledger, and delivery has not been told of the rules.
        let go = site.directory.path().join("go");
        let process = site.spawn_armed(&format!("rules-marked=pause:{}", go.display()));
        site.until_ready().await;
        let translation = "insert into benefits.picklist_value values ('title', 'Herr Doktor', 'Dr')";
        site.hr.execute(translation, &[]).await.unwrap();
        eventually("it is translated", async || site.status("1").await.0 == "successful").await;
        assert!(go.with_extension("reached").exists() && !go.exists());
        std::fs::write(go, "").unwrap();
        prove(&site).await;
        assert_eq!(site.held("1", "title").as_deref(), Some("Dr"));
        process.kill9();
    }

    async fn a_write_leaves_only_while_nobody_else_has_claimed_or_recorded_since_it_was_decided(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        site.hr.execute(MARK, &[]).await.unwrap();
        let work = load(&session).await;
        let again = "update benefits.pending set claim = null, intent_kind = null, intent_version = null";
        for (elsewhere, undone) in [
            ("update benefits.pending set claim = 2000", again),
            ("update benefits.enrolment set version = version + 1", "update benefits.enrolment set version = version - 1"),
            ("update benefits.pending set intent_kind = 'update', intent_version = 76", again),
            ("update benefits.site set doubt = 'platform'", "update benefits.site set doubt = null"),
        ] {
            site.hr.batch_execute(elsewhere).await.unwrap();
            let ours = work::write_intents(&session, 1_000, &[intended(&work)]).await.unwrap();
            assert_eq!(ours, Vec::<String>::new(), "{elsewhere}");
            site.hr.batch_execute(undone).await.unwrap();
        }
        let ours = work::write_intents(&session, 1_000, &[intended(&work)]).await.unwrap();
        assert_eq!(ours, ["1"]);
        let sql = "select claim, intent_version from benefits.pending";
        let row = site.hr.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (Some(1_000_i64), Some(work.version + 1)));
    }

    async fn a_claim_lives_as_long_as_the_session_that_made_it(major: u32) {
        let (site, session) = Site::at_rest(major).await;
        let target = Target::parse(&site.database.url).unwrap();
        let other = Session::connect(&target, "test").await.unwrap();
        let token = work::take_token(&other).await.unwrap();
        site.hr.execute(MARK, &[]).await.unwrap();
        site.hr.execute("update benefits.pending set claim = $1", &[&token]).await.unwrap();
        assert_eq!(work::rescue(&session).await.unwrap(), 0, "its owner lives");
        drop(other);
        eventually("it is free", async || work::rescue(&session).await.unwrap() == 1).await;
        let claim = site.hr.query_one("select claim from benefits.pending", &[]).await.unwrap();
        assert_eq!(claim.get::<_, Option<i64>>(0), None);
    }

    async fn an_account_that_is_another_employees_in_the_ledger_stops_nobody_else(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        // The platform has forgotten everything, and gives its ids out again.
        let address = site.sandbox.address();
        let nobody = Sandbox::start(SandboxOptions::default()).await.unwrap();
        std::mem::replace(&mut site.sandbox, nobody).stop().await.unwrap();
        let empty = Sandbox::new(SandboxOptions { keep_bodies: true, ..SandboxOptions::default() });
        site.sandbox = empty.start_at(address).await.unwrap();
        for id in ["2", "3"] {
            site.hr.execute("select benefits.sync(array[$1])", &[&id]).await.unwrap();
            eventually("it is decided", async || site.status(id).await.0 != "in_progress").await;
        }
        assert_eq!(site.status("2").await, ("failed".to_owned(), Some("conflict".to_owned())));
        assert_eq!(site.status("3").await, ("successful".to_owned(), None));
        site.stop().await;
    }

    async fn who_waited_for_a_lock_while_another_instance_delivered_does_not_send_what_was_read_before(major: u32) {
        let (site, _) = Site::at_rest(major).await;
        // As delivery's own: rows are locked in the order in which they are asked for.
        let target = Target::parse(&site.database.url).unwrap();
        let session = Session::connect_by_key(&target, "test").await.unwrap();
        site.hr.execute("insert into benefits.enrolment (employee_id, platform_id, requested_by) values ('0', 'demo', 'test')", &[]).await.unwrap();
        site.hr.execute(&MARK.replace("'1'", "'0'"), &[]).await.unwrap();
        site.hr.execute(MARK, &[]).await.unwrap();
        let work = load(&session).await;
        let mut first = intended(&work);
        "0".clone_into(&mut first.employee_id);
        first.loaded.version = 0;
        first.loaded.progressed_at = None;
        let mut holder = connect(&site.database.url).await;
        let held = holder.transaction().await.unwrap();
        held.execute("select from benefits.pending where employee_id = '0' for update", &[]).await.unwrap();
        let intents = [first, intended(&work)];
        let writing = work::write_intents(&session, 1_000, &intents);
        let delivering = async {
            until_blocked(&site, "test", 1).await;
            // An older record is sent and recorded beside the newer mark: the claim and the intent are as they were.
            let sql = "update benefits.enrolment set version = version + 1 where employee_id = '1'; \
                       update benefits.pending set progressed_at = clock_timestamp() where employee_id = '1'";
            site.hr.batch_execute(sql).await.unwrap();
            held.commit().await.unwrap();
        };
        let (ours, ()) = tokio::join!(writing, delivering);
        assert_eq!(ours.unwrap(), ["0"]);
    }

    async fn who_is_forgotten_while_a_delivery_is_recorded_leaves_no_line_of_history(major: u32) {
        let (site, _) = Site::at_rest(major).await;
        // As an update of somebody in hand is recorded: the enrolment first, its line in the same statement.
        let mut recorder = connect(&site.database.url).await;
        let recording = recorder.transaction().await.unwrap();
        recording.batch_execute(
            "update benefits.enrolment set version = version + 1 where employee_id = '1';
             insert into benefits.history (employee_id, event, outcome) values ('1', 'updated', 'successful')",
        ).await.unwrap();
        let forgotten = async { site.hr.batch_execute("select benefits.forget('1')").await.unwrap() };
        let committed = async {
            let watcher = connect(&site.database.url).await;
            let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                       and wait_event_type = 'Lock' and query like '%benefits.forget%'";
            eventually("it waits", async || watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1).await;
            recording.commit().await.unwrap();
        };
        tokio::join!(forgotten, committed);
        let left = "select count(*) from benefits.history where employee_id = '1'";
        assert_eq!(site.hr.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    }

    async fn marks_that_follow_each_other_while_an_outcome_is_recorded_leave_no_claim_behind(major: u32) {
        let mut site = Site::new(major).await;
        // Everything goes through the ledger.
        "[delivery]\nsettle = \"10ms\"\n".clone_into(&mut site.more);
        site.start().await;
        site.sync(&["1"]).await;
        site.sandbox.arm("slow-answer,delay=1s,next=1,on=writes".parse().unwrap());
        site.hr.execute("update hr.employee set surname = 'Claimed' where id = 1", &[]).await.unwrap();
        site.sandbox.until(|sandbox| sandbox.account_of("1").unwrap().get("surname") == Some("Claimed")).await;
        // Two marks that are committed one after the other, each while the outcome waits for it.
        let mark = "update benefits.pending set seq = seq + 1 where employee_id = '1'";
        let (mut first, mut second) = (connect(&site.database.url).await, connect(&site.database.url).await);
        let (first, second) = (first.transaction().await.unwrap(), second.transaction().await.unwrap());
        assert_eq!(first.execute(mark, &[]).await.unwrap(), 1);
        until_blocked(&site, "benefits-sync outcomes", 1).await;
        let marked = async { assert_eq!(second.execute(mark, &[]).await.unwrap(), 1) };
        let committed = async {
            until_blocked(&site, "", 2).await;
            first.commit().await.unwrap();
        };
        tokio::join!(marked, committed);
        until_blocked(&site, "benefits-sync outcomes", 1).await;
        second.commit().await.unwrap();
        site.settled().await;
        prove(&site).await;
        site.stop().await;
    }
}

/// Until so many sessions whose names begin like this wait for a lock.
async fn until_blocked(site: &Site, name: &str, count: i64) {
    eventually("sessions wait", async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock' and starts_with(application_name, $1)";
        site.hr.query_one(sql, &[&name]).await.unwrap().get::<_, i64>(0) >= count
    })
    .await;
}
