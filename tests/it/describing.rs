//! A description is tried before it is accepted: nothing of HR's breaks by it, what may not be read shows to who describes, and
//! nobody else's functions run with the owner's rights.

use benefits_sync::demo;
use benefits_sync::doctor;
use benefits_sync::postgres::Target;

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// Describes the demo's tables with something else in the text.
async fn describe(site: &Site, from: &str, to: &str) {
    assert!(demo::DESCRIPTION.contains(from), "{from}");
    let sql = demo::DESCRIPTION.replace(from, to);
    site.hr.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}"));
}

async fn run(site: &Site, sql: &str) {
    site.hr.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// What doctor says of something that is not as it should be.
async fn told(site: &Site, id: &str) -> Vec<String> {
    let report = doctor::run(&site.config()).await.unwrap();
    let found = report.checks.into_iter().filter(|check| check.id == id && check.level != doctor::Level::Ok);
    found.map(|check| check.text).collect()
}

for_each_major! {
    async fn who_is_hired_between_two_descriptions_is_a_starter(major: u32) {
        let mut site = Site::new(major).await;
        run(&site, "update hr.employee set create_benefits_record = true where id = 5; update benefits.employee set starter_baseline = true where employee_id = '5'").await;
        site.start().await;
        site.stop().await;
        run(&site, "insert into hr.employee (employee_number, create_benefits_record) values ('new', true)").await;
        let id: i64 = site.hr.query_one("select id from hr.employee where employee_number = 'new'", &[]).await.unwrap().get(0);
        run(&site, demo::DESCRIPTION).await;
        site.start().await;
        // Nothing is known of them but that they are there.
        site.until_state(&id.to_string(), "failed").await;
        assert_eq!(site.status("5").await.0, "not_syncing");
        site.stop().await;
    }

    async fn a_column_that_a_key_merely_includes_is_not_in_the_wal_and_its_deleted_rows_are_noticed(major: u32) {
        let mut site = Site::new(major).await;
        run(&site, "alter table hr.phone drop constraint phone_pk, add constraint phone_pk primary key (id) include (employee_id)").await;
        run(&site, demo::DESCRIPTION).await;
        assert_eq!(told(&site, "description.drift").await, [""; 0]);
        site.start().await;
        site.sync(&["1"]).await;
        assert!(site.held("1", "mobile").is_some());
        run(&site, "delete from hr.phone where employee_id = 1 and kind = 'mobile'").await;
        eventually("the row is missed", async || site.held("1", "mobile").is_none()).await;
        site.stop().await;
    }

    async fn a_table_whose_publication_would_break_hrs_updates_is_refused(major: u32) {
        let site = Site::new(major).await;
        run(&site, "create table hr.note (id integer primary key, employee_id bigint not null, body text);
            create table hr.note_of_old () inherits (hr.note);
            insert into hr.note_of_old values (1, 1, 'a')").await;
        let note = "select benefits.describe_source('hr.note', employee_key => 'employee_id', columns => array['body'])";
        let (message, hint) = site.refused(note).await;
        assert_eq!(message, "tables inherit from hr.note: hr.note_of_old");
        assert!(hint.contains("no inherit"), "{hint}");
        run(&site, "update hr.note set body = 'b'; delete from hr.note_of_old").await;
        run(&site, "alter table hr.note_of_old no inherit hr.note").await;
        run(&site, note).await;
        run(&site, "update hr.note_of_old set body = 'b'; alter table hr.note_of_old inherit hr.note").await;
        assert_eq!(told(&site, "description.keys").await, ["tables inherit from described ones, so that nobody sees their rows change: hr.note_of_old"]);
        run(&site, "alter table hr.note_of_old no inherit hr.note").await;

        run(&site, "create table hr.shift (id integer not null, employee_id bigint not null, body text) partition by range (id);
            create table hr.shift_1 partition of hr.shift for values from (1) to (2);
            insert into hr.shift values (1, 1, 'a');
            create unique index shift_uq on hr.shift (id);
            alter table hr.shift replica identity using index shift_uq").await;
        let shift = "select benefits.describe_source('hr.shift', employee_key => 'employee_id', columns => array['body'])";
        let (message, hint) = site.refused(shift).await;
        assert_eq!(message, "partition hr.shift_1 of table hr.shift has no replica identity");
        assert!(hint.starts_with("alter table hr.shift_1 replica identity using index ...;"), "{hint}");
        run(&site, "update hr.shift set body = 'b'").await;
        run(&site, "alter table hr.shift_1 add primary key (id, employee_id)").await;
        run(&site, "create unique index shift_1_other on hr.shift_1 (employee_id); alter table hr.shift_1 replica identity using index shift_1_other").await;
        assert_eq!(site.refused(shift).await.0, "partition hr.shift_1 of table hr.shift has another replica identity (employee_id) than the table (id)");
        run(&site, "alter table hr.shift_1 replica identity using index shift_1_id_idx").await;
        run(&site, shift).await;
        run(&site, "update hr.shift set body = 'c'; create table hr.shift_2 partition of hr.shift for values from (2) to (3)").await;
        let text = "partitions without their table's replica identity, so that their updates fail, or do not say which row: hr.shift_2";
        assert_eq!(told(&site, "description.keys").await, [text]);

        run(&site, "create table hr.late (id integer primary key deferrable, employee_id bigint, body text);
            create table hr.mute (id integer primary key, employee_id bigint, body text);
            alter table hr.mute replica identity nothing").await;
        for (table, says) in [("late", "has no replica identity: no primary key"), ("mute", "has replica identity nothing")] {
            let sql = format!("select benefits.describe_source('hr.{table}', employee_key => 'employee_id', columns => array['body'])");
            assert!(site.refused(&sql).await.0.contains(says), "{table}");
            run(&site, &format!("insert into hr.{table} values (1, 1, 'a'); update hr.{table} set body = 'b'; delete from hr.{table}")).await;
        }
    }

    async fn a_record_is_read_over_hrs_views_and_what_may_not_be_read_shows_to_who_describes(major: u32) {
        let mut site = Site::new(major).await;
        run(&site, "create schema reports; create view reports.people as select * from hr.employee where leave_date is null or true;
            create view reports.person as select * from reports.people").await;
        describe(&site, "from hr.employee as e\n    left join hr.email as home", "from reports.person as e\n    left join hr.email as home").await;
        assert_eq!(told(&site, "description.sources").await, [""; 0]);
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.status("1").await, ("successful".to_owned(), None));
        run(&site, "update hr.employee set surname = 'Through a view' where id = 1").await;
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("Through a view"));
        site.stop().await;

        run(&site, "create function reports.tidy(text) returns text language plpgsql immutable as 'begin return trim($1); end';
            revoke execute on function reports.tidy(text) from public").await;
        let refused = site.refused("select benefits.describe_record('select e.id as employee_id, reports.tidy(e.surname) as surname from hr.employee as e')").await;
        assert_eq!(refused.0, "permission denied for function tidy");
    }

    async fn what_is_generated_does_not_look_where_anybody_may_make_functions(major: u32) {
        let site = Site::new(major).await;
        run(&site, "create schema anybodys; grant usage, create on schema anybodys to public;
            create function anybodys.concat_ws(text, text, text) returns text language plpgsql immutable as $$ begin raise 'trapped'; end $$").await;
        let search = "select from benefits.read_search(array['%'], 5)";
        let output = tokio::task::block_in_place(|| site.database.binaries().client("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", "set search_path = anybodys, public", "-f"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/demo/describe.sql"))
            .args(["-d", &site.database.url]).output().unwrap());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("WARNING:  what is generated does not look for names in anybodys").count(), 1, "{said}");
        run(&site, search).await;
        assert_eq!(told(&site, "privileges.path").await, [""; 0]);

        // One that was described before that was so.
        run(&site, "alter function benefits.read_search(text[], integer) set search_path = pg_catalog, anybodys, pg_temp").await;
        assert_eq!(site.refused(search).await.0, "trapped");
        assert_eq!(told(&site, "privileges.path").await,
            ["functions of ours look for names where others than a schema's owner may create: public in anybodys"]);
        run(&site, &format!("set search_path = ''; {}; reset search_path", demo::DESCRIPTION)).await;
        run(&site, search).await;
        assert_eq!(told(&site, "privileges.path").await, [""; 0]);
    }

    async fn what_is_to_come_is_the_same_in_every_date_style(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1"]).await;
        site.stop().await;
        run(&site, "insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
            select 1, id, '2031-05-25', 99999, 'Per annum', 'Calendar monthly', 'Annual review' from hr.job where employee_id = 1 and is_primary").await;
        let upcoming = async |style: &str| -> Vec<String> {
            run(&site, &format!("set datestyle = '{style}'")).await;
            let sql = "select to_char(on_date, 'YYYY-MM-DD') || ' ' || array_to_string(fields, ', ') from benefits.upcoming_change where employee_id = '1' order by at";
            site.hr.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        };
        let iso = upcoming("ISO, YMD").await;
        assert!(iso.iter().any(|line| line.starts_with("2031-05-25 annualPay")), "{iso:?}");
        for style in ["SQL, DMY", "SQL, MDY", "German", "Postgres, MDY"] {
            assert_eq!(upcoming(style).await, iso, "{style}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_serializable_by_default_changes_nothing_for_our_sessions() {
    let site = Site::new(18).await;
    let sql =
        format!("alter database \"{}\" set default_transaction_isolation = serializable", site.database.name);
    run(&site, &sql).await;
    let target = Target::parse(&site.database.url).unwrap();
    let session = benefits_sync::ledger::Session::connect(&target, "test").await.unwrap();
    let rows = session.query("ask", "select current_setting('transaction_isolation')", &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, &str>(0), "read committed");
}
