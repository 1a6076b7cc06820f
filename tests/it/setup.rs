//! `setup` and `teardown` as a careful DBA uses them.

use std::process::Command;

use benefits_sync::demo;
use benefits_sync::demo::cluster::{Cluster, Script, psql};
use benefits_sync::ledger::Session;
use benefits_sync::postgres::{Endpoint, Host, Target};
use benefits_sync::{doctor, pipeline, setup};
use tokio_util::sync::CancellationToken;

use crate::for_each_major;
use crate::support::database::connect;
use crate::support::logins::Logins;
use crate::support::site::{Site, eventually};

/// What `pg_dump` says of the schema; without the random key that guards its restore.
fn dump(cluster: &Cluster) -> String {
    let program = |name: &str, arguments: &[&str]| {
        let output = cluster.binaries().client(name).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = program("pg_dump", &["--schema-only", "-d", &cluster.url("hr")])
        + &program("pg_dumpall", &["--roles-only", "-d", &cluster.url("postgres")]);
    text.lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

async fn count(logins: &Logins, sql: &str) -> i64 {
    logins.admin.query_one(sql, &[]).await.unwrap().get(0)
}

/// Creates an account and sends a change, with everything as two logins without power; then doctor looks at it running.
async fn works(logins: &Logins) {
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(pipeline::run(logins.config(), shutdown.clone()));
    eventually("it streams", async || {
        count(logins, "select count(*) from pg_replication_slots where active").await == 1
    })
    .await;
    logins.admin.execute("select benefits.sync(array['1', '2'])", &[]).await.unwrap();
    eventually("both are created", async || {
        count(logins, "select count(*) from benefits.employee_status where state = 'successful'").await == 2
    })
    .await;
    logins
        .admin
        .batch_execute(
            "set role hr_application; update hr.employee set surname = 'Lovelace' where id = 1; reset role",
        )
        .await
        .unwrap();
    eventually("the change is held", async || {
        logins.sandbox.account_of("1").is_some_and(|account| account.get("surname") == Some("Lovelace"))
    })
    .await;
    // Lookups, child rows that leave, translations: each of them reads through a function of its own.
    logins
        .admin
        .batch_execute(
            "
        update hr.department set name = name || ' and more';
        update hr.grade set name = name || '+';
        update hr.location set name = name || ', again';
        delete from hr.phone where employee_id = 1;
        insert into benefits.picklist_value values ('gender', 'Z', 'Female')",
        )
        .await
        .unwrap();
    let end: String = logins.admin.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    eventually("everything is acknowledged", async || {
        let passed =
            format!("select count(*) from pg_replication_slots where confirmed_flush_lsn >= '{end}'");
        count(logins, &passed).await == 1 && count(logins, "select count(*) from benefits.pending").await == 0
    })
    .await;
    let who = "select count(*) from pg_stat_activity where application_name like 'benefits-sync%' and usename not in ('benefits_service', 'benefits_reader')";
    assert_eq!(count(logins, who).await, 0);
    let report = doctor::run(&logins.config()).await.unwrap();
    assert_eq!(report.findings(), Vec::<&str>::new(), "{report:#?}");
    let scrape = reqwest_text(logins.http, "/metrics").await;
    assert!(scrape.contains("benefits_sync_replication_connected 1"), "{scrape}");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

async fn reqwest_text(port: u16, path: &str) -> String {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap().text().await.unwrap()
}

/// The HR database with a DBA who owns it, is a member of the role that owns HR's tables, and is no superuser.
async fn with_a_dba(major: u32, options: &str) -> (Logins, Target) {
    let logins = Logins::bare(major).await;
    let sql = format!(
        "create role dba login {options}; alter database hr owner to dba; grant hr_application to dba"
    );
    logins.admin.batch_execute(&sql).await.unwrap();
    let target = Target::parse(&logins.cluster.url_as("dba", "hr")).unwrap();
    (logins, target)
}

for_each_major! {
    async fn a_dba_who_is_no_superuser_sets_up_describes_and_takes_everything_away(major: u32) {
        let (logins, dba) = with_a_dba(major, "createrole replication").await;
        let before = dump(&logins.cluster);
        if major < 16 {
            // The one thing that is a superuser's alone there, and setup says so before it changes anything.
            let lacking = setup::lacking(&dba, &logins.config()).await.unwrap();
            assert_eq!(lacking.len(), 1, "{lacking:?}");
            let error = setup::apply(&dba, &logins.config()).await.unwrap_err().to_string();
            assert!(error.contains(&lacking[0].remedy) && error.contains("nothing was changed"), "{error}");
            logins.admin.batch_execute(&lacking[0].remedy).await.unwrap();
        }
        setup::apply(&dba, &logins.config()).await.unwrap();
        setup::apply(&dba, &logins.config()).await.unwrap();
        logins.set_passwords().await;
        let session = connect(&logins.cluster.url_as("dba", "hr")).await;
        session.batch_execute(demo::DESCRIPTION).await.unwrap();
        session.batch_execute(demo::DESCRIPTION).await.unwrap();
        if major >= 16 {
            assert_eq!(doctor::run(&logins.config()).await.unwrap().findings(), ["privileges.owner_least"]);
            logins.admin.batch_execute("grant pg_read_all_stats to benefits_owner").await.unwrap();
        }
        works(&logins).await;
        eventually("the slot is free", async || count(&logins, "select count(*) from pg_replication_slots where active").await == 0).await;
        drop(session);
        let removed = setup::remove(&dba, &logins.config()).await.unwrap();
        assert!(!removed.iter().any(|line| line.starts_with('(')), "{removed:?}");
        assert_same(&before, &dump(&logins.cluster));
    }

    async fn each_power_that_a_dba_lacks_is_named_with_the_sql_that_gives_it(major: u32) {
        let logins = Logins::bare(major).await;
        logins.admin.batch_execute("create role dba login").await.unwrap();
        let dba = Target::parse(&logins.cluster.url_as("dba", "hr")).unwrap();
        let mut named = Vec::new();
        while let Some(lacking) = setup::lacking(&dba, &logins.config()).await.unwrap().into_iter().next() {
            let remedy = lacking.remedy.split("   or: ").next().unwrap();
            logins.admin.batch_execute(remedy).await.unwrap();
            assert!(!named.contains(&lacking.remedy), "{lacking:?} was mended");
            named.push(lacking.remedy);
        }
        assert_eq!(named[0], "alter role dba createrole;");
        assert!(named[1].starts_with("create role benefits_reader login replication;"));
        assert_eq!(&named[2..], ["grant create on database hr to dba;"]);
        setup::apply(&dba, &logins.config()).await.unwrap();
        // Another DBA has no part in what this one has made.
        logins.admin.batch_execute("create role other login").await.unwrap();
        let other = Target::parse(&logins.cluster.url_as("other", "hr")).unwrap();
        let lacking: Vec<String> =
            setup::lacking(&other, &logins.config()).await.unwrap().into_iter().map(|one| one.remedy).collect();
        assert_eq!(lacking, ["grant benefits_owner to other;", "alter publication benefits_sync owner to other;"]);

        let session = connect(&logins.cluster.url_as("dba", "hr")).await;
        logins.admin.batch_execute("grant usage on schema hr to dba with grant option").await.unwrap();
        let error = session.batch_execute(demo::DESCRIPTION).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().contains("which belongs to hr_application"), "{error:?}");
        session.batch_execute("rollback").await.unwrap();
        logins.admin.batch_execute("grant select on all tables in schema hr to dba with grant option").await.unwrap();
        let error = session.batch_execute(demo::DESCRIPTION).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(error.message().ends_with("only its owner can publish it"), "{error:?}");
        session.batch_execute("rollback").await.unwrap();
        let remedy = error.hint().unwrap().strip_prefix("A superuser can: ").unwrap();
        logins.admin.batch_execute(remedy).await.unwrap();
        session.batch_execute(demo::DESCRIPTION).await.unwrap();
    }

    async fn where_a_managed_service_gives_replication_by_a_role_setup_takes_that(major: u32) {
        let (logins, dba) = with_a_dba(major, "createrole").await;
        // As such services have it: a role whose members may replicate, which the DBA may grant.
        logins.admin.batch_execute("create role rds_replication; grant rds_replication to dba with admin option").await.unwrap();
        assert_eq!(setup::lacking(&dba, &logins.config()).await.unwrap(), []);
        setup::apply(&dba, &logins.config()).await.unwrap();
        let sql = "select count(*) from pg_roles where rolname = 'benefits_reader' and not rolreplication and pg_has_role(oid, 'rds_replication', 'member')";
        assert_eq!(count(&logins, sql).await, 1);
        let report = doctor::run(&logins.config()).await.unwrap();
        assert!(!report.findings().contains(&"privileges.reader"), "{report:#?}");
    }

    async fn a_teardown_beside_a_running_service_says_what_keeps_it(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        let refused = setup::remove(&Target::parse(&site.database.url).unwrap(), &site.config()).await;
        let text = refused.expect_err("the slot is read").to_string();
        assert!(text.contains("is in use by process") && text.contains("stop benefits-sync first"), "{text}");
        site.stop().await;
    }

    async fn two_logins_without_power_run_the_pipeline_on_tables_of_another_role_and_teardown_leaves_no_trace(major: u32) {
        let logins = Logins::bare(major).await;
        let before = dump(&logins.cluster);
        let target = logins.admin_target();
        assert!(!setup::changes(&target, &logins.config()).await.unwrap().is_empty());
        setup::apply(&target, &logins.config()).await.unwrap();
        assert_eq!(setup::changes(&target, &logins.config()).await.unwrap(), Vec::<String>::new());
        // Again, without harm.
        setup::apply(&target, &logins.config()).await.unwrap();
        logins.set_passwords().await;
        logins.admin.batch_execute(demo::DESCRIPTION).await.unwrap();
        works(&logins).await;
        eventually("the slot is free", async || count(&logins, "select count(*) from pg_replication_slots where active").await == 0).await;
        let removed = setup::remove(&target, &logins.config()).await.unwrap();
        for thing in ["replication slot benefits_sync", "publication benefits_sync", "schema benefits with all it holds", "role benefits_owner"] {
            assert!(removed.iter().any(|line| line == thing), "{thing}: {removed:?}");
        }
        assert_same(&before, &dump(&logins.cluster));
        // And again: nothing to remove is no error.
        assert_eq!(setup::remove(&target, &logins.config()).await.unwrap(), Vec::<String>::new());
    }

    async fn setup_and_teardown_act_on_the_database_of_the_configuration_and_on_no_other(major: u32) {
        let logins = Logins::bare(major).await;
        let config = logins.config_file();
        let server = match logins.admin_target().endpoints.remove(0) {
            Endpoint { host: Host::Tcp(host), port } => (host, port.to_string()),
            Endpoint { host: Host::Unix(directory), port } => (directory.display().to_string(), port.to_string()),
        };
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
            command.env_clear().envs([("PGHOST", server.0.as_str()), ("PGPORT", &server.1), ("PGUSER", "postgres")]);
            command.args(arguments).arg("--config").arg(&config);
            let output = tokio::task::block_in_place(|| command.output().unwrap());
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let (code, out, error) = run(&["setup"]);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.starts_with("database hr at "), "{out}");
        assert_eq!(count(&logins, "select count(*) from benefits.site").await, 1);
        let elsewhere = logins.cluster.url("postgres");
        for command in ["setup", "teardown"] {
            let (code, _, error) = run(&[command, "--admin-url", &elsewhere]);
            assert_eq!(code, Some(2), "{error}");
            assert!(error.contains("database postgres") && error.contains("is hr"), "{error}");
            let (code, _, error) = run(&[command, "--admin-url", "nonsense"]);
            assert_eq!(code, Some(2), "{error}");
            assert!(error.contains("--admin-url") && !error.contains("nonsense"), "{error}");
        }
        let (code, out, error) = run(&["teardown"]);
        assert_eq!(code, Some(0), "{error}");
        assert!(out.starts_with("database hr at ") && out.contains("removed schema benefits"), "{out}");
    }

    async fn a_set_up_that_was_cut_off_is_run_again(major: u32) {
        let logins = Logins::bare(major).await;
        let session = Session::connect(&logins.admin_target(), "test").await.unwrap();
        for step in setup::plan(&logins.config()).iter().take_while(|step| !step.title.starts_with("migration")) {
            setup::apply_step(&session, step).await.unwrap();
        }
        assert_eq!(count(&logins, "select count(*) from benefits.migration").await, 0);
        let changes = setup::changes(&logins.admin_target(), &logins.config()).await.unwrap();
        assert_eq!(changes[0], "migrate schema benefits to 001 ledger");
        setup::apply(&logins.admin_target(), &logins.config()).await.unwrap();
        logins.admin.batch_execute(demo::DESCRIPTION).await.unwrap();
    }

    async fn teardown_takes_nothing_of_hrs_with_it(major: u32) {
        let logins = Logins::new(major).await;
        logins.admin.batch_execute(
            "select pg_create_logical_replication_slot('benefits_sync', 'pgoutput');
             create schema reports;
             create view reports.states as select * from benefits.employee_status;
             create view reports.failed as select employee_id from reports.states where state = 'failed';
             create materialized view reports.counts as select state, count(*) from reports.states group by state;
             create view reports.people as select id from hr.employee;
             create table reports.asked (on_date date default benefits.today(), employee_id text references benefits.employee)",
        ).await.unwrap();
        let error = setup::remove(&logins.admin_target(), &logins.config()).await.unwrap_err().to_string();
        let mut lines = error.lines();
        assert_eq!(lines.next(), Some("nothing was removed:"));
        for lost in [
            "constraint asked_employee_id_fkey on table reports.asked",
            "default value for column on_date of table reports.asked",
            "materialized view reports.counts",
            "view reports.failed",
            "view reports.states",
        ] {
            assert_eq!(lines.next(), Some(format!("  {lost} would be lost with schema benefits: drop it first").as_str()), "{error}");
        }
        assert_eq!(lines.next(), None, "{error}");
        assert_eq!(count(&logins, "select count(*) from pg_replication_slots").await, 1, "nothing was done");
        logins.admin.batch_execute("drop table reports.asked; drop view reports.states cascade").await.unwrap();
        let mut reader = logins.cluster.binaries().client("pg_recvlogical")
            .args(["--start", "-S", "benefits_sync", "-o", "proto_version=1", "-o", "publication_names=benefits_sync", "-f", "/dev/null"])
            .args(["-d", &logins.cluster.url("hr")]).spawn().unwrap();
        let active = async || count(&logins, "select count(*) from pg_replication_slots where active").await;
        eventually("the slot is read", async || active().await == 1).await;
        let error = setup::remove(&logins.admin_target(), &logins.config()).await.unwrap_err().to_string();
        assert!(error.ends_with(": stop benefits-sync first"), "{error}");
        reader.kill().unwrap();
        reader.wait().unwrap();
        eventually("the slot is free", async || active().await == 0).await;
        setup::remove(&logins.admin_target(), &logins.config()).await.unwrap();
        assert_eq!(count(&logins, "select count(*) from reports.people").await, 30);
    }

    async fn what_setup_prints_runs_in_psql_as_it_is_on_an_empty_database(major: u32) {
        let logins = Logins::bare(major).await;
        let output = tokio::task::block_in_place(|| Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .args(["setup", "--print", "--config"]).arg(logins.config_file()).output().unwrap());
        assert!(output.status.success());
        let file = logins.directory.path().join("setup.sql");
        std::fs::write(&file, &output.stdout).unwrap();
        let (binaries, url) = (logins.cluster.binaries().clone(), logins.cluster.url("hr"));
        tokio::task::block_in_place(|| psql(&binaries, &url, &Script::File(file.clone()))).unwrap();
        setup::make_key(&logins.directory.path().join("key")).unwrap();
        assert_eq!(setup::changes(&logins.admin_target(), &logins.config()).await.unwrap(), Vec::<String>::new());
        logins.set_passwords().await;
        logins.admin.batch_execute(demo::DESCRIPTION).await.unwrap();
        works(&logins).await;
    }
}

/// Shows the first line that differs.
fn assert_same(before: &str, after: &str) {
    for (index, (left, right)) in before.lines().zip(after.lines()).enumerate() {
        assert_eq!(left, right, "line {index} of the dump");
    }
    assert_eq!(before.lines().count(), after.lines().count());
}
