//! A site that was set up and described by an earlier version is upgraded by `setup`, with whatever stands on its views.

use benefits_sync::sandbox::SandboxOptions;
use benefits_sync::{demo, setup};

use crate::for_each_major;
use crate::support::database::{connect, database};
use crate::support::site::Site;

/// The version before names, instants and states by index.
const EARLIER: [(i32, &str); 8] = [
    (1, include_str!("../../sql/migrations/001_ledger.sql")),
    (2, include_str!("../../sql/migrations/002_names.sql")),
    (3, include_str!("../../sql/migrations/003_description.sql")),
    (4, include_str!("../../sql/migrations/004_commands.sql")),
    (5, include_str!("../../sql/migrations/005_privileges.sql")),
    (6, include_str!("../../sql/migrations/006_domain.sql")),
    (7, include_str!("../../sql/migrations/007_reconcile.sql")),
    (8, include_str!("../../sql/migrations/008_status.sql")),
];

for_each_major! {
    async fn an_earlier_sites_states_dates_and_views_are_as_they_were_after_setup_has_upgraded_it(major: u32) {
        let database = database(major).await;
        let hr = connect(&database.url).await;
        let run = async |sql: &str| hr.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        run(include_str!("../../sql/setup/roles.sql")).await;
        run(include_str!("../../sql/setup/schema.sql")).await;
        for (version, sql) in EARLIER {
            run(&format!("begin; {sql} insert into benefits.migration (version, name) values ({version}, 'earlier'); commit")).await;
        }
        run(demo::SCHEMA).await;
        run("alter table hr.phone drop constraint phone_pk, add constraint phone_pk primary key (id) include (employee_id)").await;
        run("insert into hr.employee (id, employee_number) values (1, 'a'), (2, 'b'), (3, 'c')").await;
        let (before, rest) = demo::DESCRIPTION.split_once("-- How people are found by name").unwrap();
        let (_, after) = rest.split_once("-- How this schema stores").unwrap();
        run(&format!("{before} -- {after}")).await;
        run("insert into benefits.enrolment (employee_id, platform_id, requested_by, outcome) values ('1', 'demo', 'test', 'successful');
             create schema theirs; create view theirs.states as select * from benefits.employee_status;
             create view theirs.coming as select * from benefits.upcoming_change").await;
        let states = "select string_agg(employee_id || ' ' || state, ', ' order by employee_id) from theirs.states";
        let told: String = hr.query_one(states, &[]).await.unwrap().get(0);
        let site = Site::on(database, SandboxOptions::default()).await;
        let target = benefits_sync::postgres::Target::parse(&site.database.url).unwrap();
        setup::apply(&target, &site.config()).await.unwrap();
        assert_eq!(hr.query_one(states, &[]).await.unwrap().get::<_, String>(0), told);
        assert_eq!(told, "1 successful, 2 not_syncing, 3 not_syncing");
        let sql = "select count(*) from benefits.employee_status where state = 'not_syncing'";
        assert_eq!(hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 2);
        assert!(hr.query("select * from theirs.coming", &[]).await.unwrap().is_empty());
        // What was taken for a part of the key is none, and whose rows they are can be read.
        let sql = "select key_columns::text[] from benefits.source where table_name = 'phone'";
        assert_eq!(hr.query_one(sql, &[]).await.unwrap().get::<_, Vec<String>>(0), ["id"]);
        run("insert into hr.phone (employee_id, kind, number) values (1, 'home', '1')").await;
        let sql = "select count(*) from benefits.read_owned_rows(array['1']) inner join benefits.source as s using (source_id) where s.table_name = 'phone'";
        assert_eq!(hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1);
        // Described as it is: the clock finds what it needs, and a search says what is missing.
        run("select from benefits.read_becoming('2026-01-01', '2026-12-31'), benefits.read_instants(now(), now())").await;
        assert!(site.refused("select * from benefits.search_employees('a')").await.0.contains("has not described"));
    }
}
