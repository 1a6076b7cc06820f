//! A write is an employee, a version and a body, and versions only rise (invariants 4 and 5).

use benefits_sync::sandbox::SeedAccount;

use super::{fault, surname, versions_rise, writes};
use crate::for_each_major;
use crate::support::site::{Site, eventually};

for_each_major! {
    async fn the_same_write_has_the_same_key_and_version_after_a_kill_between_send_and_answer(major: u32) {
        let mut site = Site::new(major).await;
        site.more.push_str("[delivery]\ntimeout = \"2m\"\n");
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        let known = writes(&site, "1").len();
        site.sandbox.arm(fault("slow-answer,delay=1h,next=1,on=writes"));
        surname(&site, 1, "Once").await;
        site.sandbox.until(|s| s.journal_of("1").len() > known).await;
        // Once the slot has moved on the ledger knows of the write: what is read again is sent in full.
        site.passed().await;
        process.kill9();
        site.start().await;
        site.settled().await;
        let after = writes(&site, "1").split_off(known);
        assert_eq!(after.len(), 2, "{after:#?}");
        assert_eq!((&after[0].key, after[0].source_version), (&after[1].key, after[1].source_version));
        assert_eq!(after[0].body, after[1].body);
        assert!(after[1].replayed);
        assert_eq!(site.status("1").await.0, "successful");
        site.stop().await;
    }

    async fn after_a_kill_in_the_instant_before_the_ledger_knows_of_a_write_everything_is_sent_above_it(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        let known = writes(&site, "1").len();
        // The answer has come, and dies with the process before anything of it is recorded.
        let process = site.spawn_armed("answer-received=abort@9");
        site.until_ready().await;
        let mut n = 0;
        while site.get("/livez").await.0 == 200 {
            n += 1;
            surname(&site, 1, &format!("Try {n}")).await;
        }
        assert_eq!(process.ended().await.code(), None);
        site.start().await;
        site.settled().await;
        let held = format!("Try {n}");
        assert_eq!(site.held("1", "surname"), Some(held));
        let after = writes(&site, "1").split_off(known);
        versions_rise(&after);
        let last: serde_json::Value = serde_json::from_slice(after.last().unwrap().body.as_ref().unwrap()).unwrap();
        assert!(last.as_object().unwrap().len() > 10, "all that the platform may hold otherwise: {last}");
        site.stop().await;
    }

    async fn a_create_whose_answer_was_lost_by_a_kill_is_not_repeated_as_another(major: u32) {
        let mut site = Site::new(major).await;
        site.more.push_str("[delivery]\ntimeout = \"2m\"\n");
        let process = site.spawn().await;
        site.sandbox.arm(fault("slow-answer,delay=1h,next=1,on=createEmployee"));
        site.hr.execute("select benefits.sync(array['3'])", &[]).await.unwrap();
        site.sandbox.until(|s| !s.journal_of("3").is_empty()).await;
        process.kill9();
        site.start().await;
        site.settled().await;
        let sent = writes(&site, "3");
        assert!(sent.iter().all(|entry| entry.key == sent[0].key), "{sent:#?}");
        assert_eq!(site.sandbox.accounts().len(), 1);
        assert_eq!(site.status("3").await.0, "successful");
        site.stop().await;
    }

    async fn a_value_that_goes_there_and_back_ends_where_it_began_though_an_answer_was_lost(major: u32) {
        let mut site = Site::new(major).await;
        site.more.push_str("[delivery]\nbackoff_min = \"1500ms\"\nbackoff_max = \"2s\"\n");
        site.start().await;
        surname(&site, 1, "A").await;
        site.sync(&["1"]).await;
        site.sandbox.arm(fault("lost-after,next=1,on=writes"));
        surname(&site, 1, "B").await;
        site.sandbox.until(|s| s.account_of("1").unwrap().get("surname") == Some("B")).await;
        surname(&site, 1, "A").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("A"));
        versions_rise(&writes(&site, "1"));
        site.stop().await;
    }

    async fn a_second_stale_answer_halts_until_a_person_resumes_even_over_a_restart(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2"]).await;
        // Nothing goes above the highest version there is.
        let account = site.sandbox.account_of("1").unwrap();
        let email = account.get("email").unwrap().to_owned();
        site.sandbox.remove_account(&account.id, false);
        let seed = SeedAccount::new(&email).linked_to("1", Some(9_007_199_254_740_991));
        let rival = site.sandbox.seed(seed).unwrap();
        let sql = "update benefits.enrolment set benefits_id = $1 where employee_id = '1'";
        site.hr.execute(sql, &[&rival]).await.unwrap();
        surname(&site, 1, "Ours").await;
        let halted = async |site: &Site| {
            let (status, text) = site.get("/readyz").await;
            status == 503 && text.contains("another-writer")
        };
        eventually("delivery is halted", async || halted(&site).await).await;
        let code: Option<String> =
            site.hr.query_one("select halted_code from benefits.site", &[]).await.unwrap().get(0);
        assert_eq!(code.as_deref(), Some("another-writer"));
        surname(&site, 2, "Waits").await;
        site.passed().await;
        site.restart().await;
        eventually("delivery is halted again", async || halted(&site).await).await;
        assert_ne!(site.held("2", "surname").as_deref(), Some("Waits"));
        // The rival has gone, and a person says so.
        site.sandbox.remove_account(&rival, false);
        let ours = site.sandbox.seed(SeedAccount::new(&email).linked_to("1", None)).unwrap();
        site.hr.execute(sql, &[&ours]).await.unwrap();
        site.hr.execute("select benefits.resume()", &[]).await.unwrap();
        eventually("2 is delivered", async || site.held("2", "surname").as_deref() == Some("Waits")).await;
        site.stop().await;
    }

    async fn an_account_that_is_ahead_raises_the_floor_once(major: u32) {
        let mut site = Site::new(major).await;
        let email: String = site
            .hr
            .query_one("select address from hr.email where employee_id = 1 and kind = 'work'", &[])
            .await
            .unwrap()
            .get(0);
        // The year 2200 in microseconds.
        let ahead = 7_258_118_400_000_000_i64;
        let account = site.sandbox.seed(SeedAccount::new(&email)).unwrap();
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.sandbox.account(&account).unwrap().external_id.as_deref(), Some("1"));
        // Somebody has written to it with a version from the future, and has gone.
        site.sandbox.remove_account(&account, false);
        let mut seed = SeedAccount::new(&email).linked_to("1", Some(ahead));
        seed = seed.with("surname", "Elsewhere");
        let account = site.sandbox.seed(seed).unwrap();
        let sql = "update benefits.enrolment set benefits_id = $1 where employee_id = '1'";
        site.hr.execute(sql, &[&account]).await.unwrap();
        surname(&site, 1, "Ours").await;
        site.settled().await;
        let view = site.sandbox.account(&account).unwrap();
        assert_eq!(view.get("surname"), Some("Ours"));
        assert_eq!(view.source_version, Some(ahead + 1));
        surname(&site, 1, "Again").await;
        site.settled().await;
        assert_eq!(site.sandbox.account(&account).unwrap().source_version, Some(ahead + 2), "the floor stays");
        let stale = writes(&site, "1").iter().filter(|e| e.problem == Some("stale-source-version")).count();
        assert_eq!(stale, 1);
        site.stop().await;
    }
}
