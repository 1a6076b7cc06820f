//! Upgrades: the schema comes first and only ever grows, so that the older program works until it is replaced.

use std::time::Duration;

use benefits_sync::doctor;
use benefits_sync::ledger::Session;
use benefits_sync::postgres::Target;
use benefits_sync::setup::{self, Step};

use crate::for_each_major;
use crate::support::site::{Site, eventually};

/// Migrations up to this one are the first release's.
const FIRST_RELEASE: u32 = 8;

/// What a later version's migrations may do to the ledger while this program runs: every table and view gets a column, every
/// function another body, and there are new tables, indexes and versions.
const LATER: &str = "
do $$
declare thing record;
begin
    for thing in select c.oid::regclass as name from pg_class as c
        where c.relnamespace = 'benefits'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    loop
        execute format('alter table %s add column added_later text, add column counted_later integer not null default 7', thing.name);
    end loop;
    for thing in select c.oid::regclass as name, pg_get_viewdef(c.oid) as body from pg_class as c
        where c.relnamespace = 'benefits'::regnamespace and c.relkind = 'v'
    loop
        execute format('create or replace view %s as select w.*, 7 as counted_later from (%s) as w', thing.name, rtrim(thing.body, ';'));
    end loop;
    for thing in select pg_get_functiondef(p.oid) as text from pg_proc as p where p.pronamespace = 'benefits'::regnamespace and p.prolang <>
        (select l.oid from pg_language as l where l.lanname = 'internal')
    loop
        execute thing.text;
    end loop;
end
$$;
create table benefits.added_later (id integer primary key);
create index pending_later on benefits.pending (counted_later);
insert into benefits.migration (version, name) values (999, 'later');
";

/// Runs a step as the set-up does.
async fn apply(url: &str, sql: &str) {
    let dba = Session::connect(&Target::parse(url).unwrap(), "benefits-sync setup").await.unwrap();
    let step = Step { title: "migrate schema benefits to 999 later".to_owned(), sql: sql.to_owned() };
    setup::apply_step(&dba, &step).await.unwrap();
}

/// The SQL that the program itself sends: its queries, and what stands in its sources.
fn sources() -> String {
    fn gather(directory: &std::path::Path, into: &mut String) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, into);
            } else {
                into.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    for directory in ["src", "sql/queries"] {
        gather(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut text);
    }
    text
}

#[test]
fn migrations_since_the_first_release_only_add() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/migrations");
    let used = sources();
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let number: u32 = name.split('_').next().unwrap().parse().unwrap();
        seen += 1;
        if number <= FIRST_RELEASE {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        let code: String =
            text.lines().map(|line| line.split("--").next().unwrap()).collect::<Vec<_>>().join(" ");
        let words: Vec<&str> = code.split_whitespace().collect();
        let code = words.join(" ");
        for taken in [
            "drop table",
            "drop column",
            "drop schema",
            "drop type",
            "rename to",
            "rename column",
            "set not null",
            "set data type",
            "truncate ",
        ] {
            assert!(!code.contains(taken), "{name}: {taken} takes away what the program before it may use");
        }
        // An index is nobody's to name; a function or view may be made anew, in the same transaction, or be one that only
        // the schema itself uses.
        for kind in ["function", "view"] {
            for dropped in code.split(&format!("drop {kind} ")).skip(1) {
                let object = dropped.trim_start_matches("if exists ").split(['(', ';', ' ']).next().unwrap();
                let made = ["create", "create or replace"]
                    .iter()
                    .any(|make| code.contains(&format!("{make} {kind} {object}")));
                assert!(
                    made || !used.contains(object),
                    "{name}: {kind} {object} is dropped, and the program uses it"
                );
            }
        }
    }
    assert!(seen > 0);
}

for_each_major! {
    async fn a_program_works_on_while_the_setup_of_a_later_one_adds_to_the_schema_and_starts_on_it(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        site.sync(&["1", "2", "3"]).await;
        let editor = site.database.client().await;
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let editing = tokio::spawn(async move {
            let mut number = 0;
            while !stopped.is_cancelled() {
                number += 1;
                let sql = format!("update hr.employee set surname = 'S{number}' where id = {}", number % 3 + 1);
                editor.batch_execute(&sql).await.unwrap();
            }
            number
        });
        eventually("changes flow", async || site.held("1", "surname").is_some_and(|name| name.starts_with('S'))).await;
        apply(&site.database.url, LATER).await;
        let before = site.held("1", "surname");
        eventually("changes flow on", async || site.held("1", "surname") != before).await;
        stop.cancel();
        let last = editing.await.unwrap();
        site.settled().await;
        assert_eq!(site.held(&(last % 3 + 1).to_string(), "surname"), Some(format!("S{last}")));
        // First syncs, requests, rejections and links go through the same tables.
        site.hr.execute("update hr.employee set surname = '' where id = 4", &[]).await.unwrap();
        site.sync(&["4", "5"]).await;
        assert_eq!((site.status("4").await.0, site.status("5").await.0), ("failed".to_owned(), "successful".to_owned()));

        site.restart().await;
        site.until_ready().await;
        site.hr.execute("update hr.employee set surname = 'After' where id = 1", &[]).await.unwrap();
        site.settled().await;
        assert_eq!(site.held("1", "surname").as_deref(), Some("After"));
        let report = doctor::run(&site.config()).await.unwrap();
        let told = report.checks.iter().find(|check| check.id == "ledger.schema").unwrap();
        assert_eq!((told.level, told.text.as_str()), (doctor::Level::Warning, "the schema's version 999 is newer than this program"));
    }

    async fn a_program_does_not_start_on_an_older_schema_and_says_what_to_run(major: u32) {
        let site = Site::new(major).await;
        let newest = "select max(version) from benefits.migration";
        let newest: i32 = site.hr.query_one(newest, &[]).await.unwrap().get(0);
        site.hr.execute("delete from benefits.migration where version = $1", &[&newest]).await.unwrap();
        let status = site.spawn_armed("").ended().await;
        assert_eq!(status.code(), Some(3), "{}", site.log());
        let told = format!("the schema benefits lacks migrations {newest}: run benefits-sync setup first");
        assert!(site.log().contains(&told), "{}", site.log());
    }

    async fn a_step_of_the_setup_that_meets_a_deadlock_gives_way_and_comes_again(major: u32) {
        let site = Site::new(major).await;
        // Whose work it is: it holds one table, soon wants the other, and never is the one that is ended.
        let worker = site.database.client().await;
        let work = "set deadlock_timeout = '60s'; begin; lock table benefits.pending in row exclusive mode";
        worker.batch_execute(work).await.unwrap();
        let url = site.database.url.clone();
        let step = "lock table benefits.enrolment in access exclusive mode;
            alter table benefits.pending add column added_later text;";
        let setup = tokio::spawn(async move { apply(&url, step).await });
        let waits = "select exists (select from pg_locks where not granted and relation = 'benefits.pending'::regclass)";
        eventually("the step waits", async || site.hr.query_one(waits, &[]).await.unwrap().get(0)).await;
        worker.batch_execute("lock table benefits.enrolment in row exclusive mode").await.unwrap();
        assert!(!setup.is_finished(), "it was not done while the worker had the table");
        worker.batch_execute("commit").await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), setup).await.unwrap().unwrap();
        site.hr.execute("select added_later from benefits.pending", &[]).await.unwrap();
    }
}
