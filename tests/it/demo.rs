//! The demo's parts against real servers: its schema and its made-up people.

use benefits_sync::demo::people::{self, People};
use jiff::civil::Date;

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
        let starter = supply.starter();
        let transaction = client.transaction().await.unwrap();
        people::insert(&transaction, &starter).await.unwrap();
        transaction.commit().await.unwrap();
        let sql = "select count(*) from hr.employee e
            where exists (select from hr.address where employee_id = e.id)
              and exists (select from hr.job where employee_id = e.id and is_primary)";
        assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 2_001);
    }
}
