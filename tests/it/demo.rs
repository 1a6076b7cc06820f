//! The demo's parts against real servers: its schema and its made-up people.

use std::collections::HashMap;
use std::time::Duration;

use benefits_sync::demo::edits::{self, Edits, Kind};
use benefits_sync::demo::people::{self, People};
use benefits_sync::demo::{self, Args, Stage};
use jiff::civil::Date;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::for_each_major;
use crate::support;

const TODAY: Date = Date::constant(2026, 11, 20);

for_each_major! {
    async fn the_demo_schema_takes_two_thousand_people(major: u32) {
        let database = support::database(major).await;
        database.psql_file("sql/demo/schema.sql").await;
        let mut client = database.client().await;
        let mut supply = People::new(1, TODAY);
        let started = std::time::Instant::now();
        let loaded = people::load(&mut client, &mut supply, 2_000).await.unwrap();
        eprintln!("2,000 employees in {:?}", started.elapsed());
        assert_eq!(loaded.employees, 2_000);
        let newcomer = supply.starter();
        let transaction = client.transaction().await.unwrap();
        people::insert(&transaction, &newcomer).await.unwrap();
        transaction.commit().await.unwrap();
        let sql = "select count(*) from hr.employee e
            where exists (select from hr.address where employee_id = e.id)
              and exists (select from hr.job where employee_id = e.id and is_primary)";
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 2_001);
    }

    async fn edits_of_every_kind_find_somebody_to_change(major: u32) {
        let database = support::database(major).await;
        database.psql_file("sql/demo/schema.sql").await;
        let mut client = database.client().await;
        let mut supply = People::new(2, TODAY);
        let loaded = people::load(&mut client, &mut supply, 1_000).await.unwrap();
        let mut edits = Edits::new(client, supply, &loaded, 3, TODAY);
        let mut changed: HashMap<Kind, usize> = HashMap::new();
        let started = std::time::Instant::now();
        for _ in 0..3_000 {
            let edit = edits.next().await.unwrap();
            *changed.entry(edit.kind).or_default() += edit.employees.len();
        }
        eprintln!("3,000 edits in {:?}: {changed:?}", started.elapsed());
        let kinds = changed.values().filter(|&&people| people > 0).count();
        assert_eq!(kinds, 22, "{changed:?}");
        let sql = "select count(*) from (
            select employee_id from hr.job group by employee_id having count(*) filter (where is_primary) <> 1
        ) as broken";
        let broken: i64 = database.client().await.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(broken, 0, "every employee has one primary job");
    }
}

#[tokio::test]
async fn the_stage_is_set_with_the_newest_server() {
    let args = Args {
        employees: 100,
        edits_per_second: 20,
        length: Duration::from_secs(1),
        seed: None,
        postgres: None,
        stay: false,
        port: None,
        config: None,
    };
    let stage = Stage::set(&args, 4, TODAY).await.unwrap();
    let client = demo::connect(&stage.url).await.unwrap();
    let (made, mut seen) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let edits = Edits::new(client, stage.people, &stage.loaded, 5, TODAY);
    let editing = tokio::spawn(edits::run(edits, 200, stop.clone(), made));
    for _ in 0..50 {
        assert!(seen.recv().await.is_some());
    }
    stop.cancel();
    while seen.recv().await.is_some() {}
    editing.await.unwrap().unwrap();
}
