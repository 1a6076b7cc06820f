//! Marks are counted and claims are fenced, also where instances are several (invariant 3).

use super::{fault, surname, versions_rise, writes};
use crate::for_each_major;
use crate::support::site::{Site, eventually};

for_each_major! {
    async fn a_change_that_comes_while_its_forerunner_is_in_flight_is_sent_as_well(major: u32) {
        let mut site = Site::new(major).await;
        site.more.push_str("[delivery]\ntimeout = \"2m\"\n");
        site.start().await;
        site.sync(&["1"]).await;
        site.sandbox.arm(fault("slow-answer,delay=1h,next=1,on=writes"));
        surname(&site, 1, "First").await;
        site.sandbox.until(|s| s.account_of("1").unwrap().get("surname") == Some("First")).await;
        surname(&site, 1, "Second").await;
        site.hr.execute("update hr.employee set known_as = 'Both' where id = 1", &[]).await.unwrap();
        site.passed().await;
        assert_eq!(site.status("1").await.0, "in_progress");
        // Now the first one's answer comes.
        site.sandbox.disarm_all();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Second"));
        assert_eq!(site.held("1", "knownAs").as_deref(), Some("Both"));
        versions_rise(&writes(&site, "1"));
        site.stop().await;
    }

    async fn claims_of_a_dead_instance_are_taken_over(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        site.sandbox.arm(fault("slow,delay=20s,next=2,on=writes"));
        surname(&site, 1, "One").await;
        surname(&site, 2, "Two").await;
        eventually("both are claimed", async || {
            let sql = "select count(*) from benefits.pending where claim is not null";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 2
        })
        .await;
        process.kill9();
        site.start().await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("One"));
        assert_eq!(site.held("2", "surname").as_deref(), Some("Two"));
        site.stop().await;
    }

    async fn two_instances_side_by_side_create_nobody_twice(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        let process = {
            let port = site.http;
            site.http = crate::support::port::own();
            let process = site.spawn().await;
            site.http = port;
            process
        };
        site.sandbox.arm(fault("slow,delay=30ms,jitter=60ms"));
        let ids: Vec<String> = (1..=30).map(|id: i32| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        site.sync(&ids).await;
        let sql = "update hr.employee set known_as = 'Both'";
        site.hr.execute(sql, &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.sandbox.accounts().len(), 30);
        for id in &ids {
            let sent = writes(&site, id);
            let creates = sent.iter().filter(|e| e.acted() && e.operation.as_str() == "createEmployee").count();
            let updates = sent.iter().filter(|e| e.acted() && e.operation.as_str() == "updateEmployee").count();
            assert_eq!((creates, updates), (1, 1), "{id}: {sent:#?}");
            assert_eq!(site.held(id, "knownAs").as_deref(), Some("Both"));
            versions_rise(&sent);
        }
        drop(process);
        site.stop().await;
    }

    async fn when_the_reader_dies_the_other_instance_takes_the_slot(major: u32) {
        let mut site = Site::new(major).await;
        let process = site.spawn().await;
        site.sync(&["1"]).await;
        site.http = crate::support::port::own();
        site.start().await;
        process.kill9();
        surname(&site, 1, "Heir").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Heir"));
        site.stop().await;
    }
}
