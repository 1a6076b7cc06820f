//! What people get wrong: configuration, set-up, description, records. Each is told with what and where, and none of it
//! stops more than it must.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};

use benefits_sync::preview;
use benefits_sync::sandbox::SandboxOptions;

use crate::for_each_major;
use crate::support::database;
use crate::support::logins::Logins;
use crate::support::site::{Site, eventually};

const DESCRIBE: &str = include_str!("../../sql/demo/describe.sql");

fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
    command.args(arguments).env_clear().output().unwrap()
}

/// The exit code and what is said on standard error.
fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Runs with this configuration in a file of its own; the answer, with the file's name.
fn run_with(config: &str) -> (Option<i32>, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    let (code, text) = told(&program(&["run", "--config", path]));
    (code, text, path.to_owned())
}

const WELL: &str = "[database]\nurl = \"postgresql://hr@127.0.0.1:1/hr\"\n[ledger]\nfingerprint_key_file = \"/nonexistent/key\"\n\
[benefits]\nplatform_id = \"demo\"\nbase_url = \"http://127.0.0.1:1\"\ntoken_file = \"/t\"\nemail_source = \"work\"\n\
[delivery]\nconcurrency = 4\n";

#[test]
fn a_bad_command_line_is_usage() {
    for arguments in [&[][..], &["fly"], &["run", "--fast"], &["sandbox"], &["sandbox", "--listen", "here"]] {
        let (code, text) = told(&program(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains("--help") || text.contains("Usage"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let (code, text) = told(&program(&["run", "--config", "/nonexistent/mine.toml"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("/nonexistent/mine.toml"), "{text}");
}

#[test]
fn every_bad_setting_is_named_with_its_file_and_key() {
    for (from, to, named) in [
        ("platform_id = \"demo\"", "", "platform_id"),
        ("[benefits]", "[benefit]", "benefit"),
        ("email_source = \"work\"", "email_source = \"private\"", "private"),
        ("concurrency = 4", "concurrency = 0", "delivery.concurrency"),
        ("concurrency = 4", "concurrency = \"many\"", "delivery.concurrency"),
        ("concurrency = 4", "concurency = 4", "concurency"),
        ("concurrency = 4", "timeout = \"soon\"", "timeout"),
        ("concurrency = 4", "backoff_min = \"2m\"\nbackoff_max = \"1s\"", "delivery.backoff_max"),
        ("postgresql://hr@127.0.0.1:1/hr", "mysql://hr@db/hr", "database.url"),
        ("[ledger]", "slot = \"Benefits-Sync\"\n[ledger]", "database.slot"),
        ("http://127.0.0.1:1\"", "ftp://x\"", "benefits.base_url"),
        ("token_file = \"/t\"\n", "", "benefits.token_file"),
        ("[delivery]", "[reconcile]\ntime_zone = \"Europe/Londn\"\n[delivery]", "reconcile.time_zone"),
        ("[delivery]", "[reconcile]\ndaily_at = \"25:00\"\n[delivery]", "daily_at"),
        ("[delivery]", "[guard]\nfraction = 2.0\n[delivery]", "guard.fraction"),
        ("[delivery]", "[log]\nlevel = \"loud\"\n[delivery]", "log.level"),
        ("[delivery]", "[http]\nlisten = \"nowhere\"\n[delivery]", "listen"),
        ("platform_id = \"demo\"", "platform_id = \"demo", "line"),
    ] {
        let config = WELL.replacen(from, to, 1);
        assert_ne!(config, WELL, "{from}");
        let (code, text, path) = run_with(&config);
        assert_eq!(code, Some(2), "{to}: {text}");
        assert!(text.contains(named), "{to}: {text}");
        assert!(text.contains(&path), "{to}: {text} names no file");
    }
}

#[test]
fn a_fingerprint_key_that_is_missing_or_none_is_named() {
    let (code, text, _) = run_with(WELL);
    assert_eq!(code, Some(2));
    assert!(text.contains("ledger.fingerprint_key_file /nonexistent/key"), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "not a key, but a secret all the same").unwrap();
    let (code, text, _) = run_with(&WELL.replace("/nonexistent/key", file.path().to_str().unwrap()));
    assert_eq!(code, Some(2));
    assert!(text.contains("fingerprint_key_file") && !text.contains("secret"), "{text}");
}

#[test]
fn a_file_that_is_named_and_cannot_be_used_is_found_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("junk"), "no certificate").unwrap();
    benefits_sync::setup::make_key(directory.path().join("key").as_path()).unwrap();
    let well = WELL.replace("/nonexistent/key", &path("key"));
    let database = |line: String| well.replace("[ledger]", &format!("{line}\n[ledger]"));
    let verified = |file: String| database(format!("tls = \"verify-full\"\nca_file = \"{file}\""));
    for (config, named) in [
        (verified(path("none")), ["database.ca_file", "none"]),
        (verified(path("junk")), ["database.ca_file", "junk"]),
        // Not verified by this mode, and yet whoever names a file expects it to be there.
        (database(format!("ca_file = \"{}\"", path("none"))), ["database.ca_file", "none"]),
        (database(format!("password_file = \"{}\"", path("none"))), ["database.password_file", "none"]),
        (
            database(format!("replication_password_file = \"{}\"", path("none"))),
            ["database.replication_password_file", "none"],
        ),
        (
            well.replace("[delivery]", &format!("ca_file = \"{}\"\n[delivery]", path("none"))),
            ["benefits.ca_file", "none"],
        ),
        (
            well.replace("[delivery]", &format!("ca_file = \"{}\"\n[delivery]", path("junk"))),
            ["benefits.ca_file", "junk"],
        ),
        (
            well.replace("[benefits]", &format!("witness_file = \"{}\"\n[benefits]", path("no/witness"))),
            ["ledger.witness_file", "no/witness"],
        ),
    ] {
        let (code, text, path) = run_with(&config);
        assert_eq!(code, Some(2), "{text}");
        assert!(named.iter().all(|name| text.contains(name)), "{named:?}: {text}");
        assert!(text.contains(&path), "{text} names no file");
    }
}

#[test]
fn an_address_that_is_taken_is_found_before_postgresql_is_waited_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[http]\nlisten = \"{}\"\n[delivery]", taken.local_addr().unwrap());
    let (code, text, path) = run_with(&WELL.replace("[delivery]", &listen));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("http.listen") && text.contains(&path), "{text}");
}

#[test]
fn a_variable_that_is_not_text_is_refused_where_it_is_ours_and_else_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    std::fs::write(&path, WELL).unwrap();
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
        command.args(["run", "--config"]).arg(&path).env_clear().env(name, OsStr::from_bytes(b"\xff"));
        told(&command.output().unwrap())
    };
    let (code, text) = run("SOMEBODY_ELSES");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("ledger.fingerprint_key_file"), "{text}");
    let (code, text) = run("BENEFITS_SYNC_DATABASE__SLOT");
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("environment variable BENEFITS_SYNC_DATABASE__SLOT: is not UTF-8"), "{text}");
}

fn run_site(site: &Site) -> (Option<i32>, String) {
    let path = site.config_file();
    told(&program(&["run", "--config", path.to_str().unwrap()]))
}

for_each_major! {
    async fn a_start_that_cannot_go_well_says_why_and_ends(major: u32) {
        let mut site = Site::new(major).await;
        site.start().await;
        // The address is taken: by the instance that runs.
        let (code, text) = run_site(&site);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("http.listen"), "{text}");
        site.stop().await;
        let key = site.directory.path().join("key");
        let kept = std::fs::read(&key).unwrap();
        std::fs::write(&key, "a".repeat(64)).unwrap();
        let (code, text) = run_site(&site);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("fingerprint_key_file") && text.contains("another key"), "{text}");
        std::fs::write(&key, kept).unwrap();
        let path = site.config_file();
        let config = std::fs::read_to_string(&path).unwrap();
        let run = |config: String| {
            std::fs::write(&path, config).unwrap();
            told(&program(&["run", "--config", path.to_str().unwrap()]))
        };
        let (code, text) = run(config.replace("platform_id = \"demo\"", "platform_id = \"other\""));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("benefits.platform_id") && text.contains("demo"), "{text}");
        let (code, text) = run(config.replace("postgres@", "nobody_such@"));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("database.url") && text.contains("nobody_such"), "{text}");
        let empty = database(major).await;
        let (code, text) = run(config.replace(&site.database.name, &empty.name));
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("setup"), "{text}");
    }

    async fn a_site_that_was_never_set_up_is_not_ready_whatever_else_is_missing(major: u32) {
        let site = Site::on(database(major).await, SandboxOptions::default()).await;
        let config = site.config_file();
        let key = site.directory.path().join("key");
        let command = |name: &str| told(&program(&[name, "--config", config.to_str().unwrap()]));
        std::fs::remove_file(&key).unwrap();
        for name in ["run", "preview", "reconcile", "status"] {
            let (code, text) = command(name);
            assert_eq!(code, Some(3), "{name}: {text}");
            assert!(text.contains("run benefits-sync setup first"), "{name}: {text}");
        }
        let admin = benefits_sync::postgres::Target::parse(&site.database.url).unwrap();
        benefits_sync::setup::apply(&admin, &benefits_sync::config::Config::load(&config).unwrap()).await.unwrap();
        for name in ["preview", "reconcile"] {
            let (code, text) = command(name);
            assert_eq!(code, Some(3), "{name}: {text}");
            assert!(text.contains("not described yet"), "{name}: {text}");
        }
        std::fs::remove_file(&key).unwrap();
        for name in ["run", "preview", "reconcile"] {
            let (code, text) = command(name);
            assert_eq!(code, Some(2), "{name}: {text}");
            let named = format!("{}: ledger.fingerprint_key_file {}", config.display(), key.display());
            assert!(text.contains(&named), "{name}: {text}");
        }
    }

    async fn a_login_that_is_refused_is_named_by_the_key_that_has_to_be_changed(major: u32) {
        let logins = Logins::new(major).await;
        let (path, secret) = (logins.config_file(), logins.directory.path().join("password"));
        let command = |name: &str, more: &str| {
            std::fs::write(&path, logins.text().replace("[ledger]", &format!("{more}\n[ledger]"))).unwrap();
            told(&program(&[name, "--config", path.to_str().unwrap()]))
        };
        let refused = |(code, text): (Option<i32>, String), key: &str| {
            assert_eq!(code, Some(2), "{text}");
            assert!(text.contains(&format!("{}: {key}: ", path.display())), "{key}: {text}");
        };
        let service_file = format!("password_file = \"{}\"", secret.display());
        let reader_file = format!("replication_{service_file}");
        for name in ["run", "status", "preview", "reconcile"] {
            refused(command(name, &service_file), "database.password_file");
        }
        refused(command("run", &reader_file), "database.replication_password_file");
        std::fs::write(&secret, "no such password").unwrap();
        for name in ["run", "status", "preview", "reconcile"] {
            refused(command(name, &service_file), "database.password_file");
        }
        refused(command("run", &reader_file), "database.replication_password_file");
        logins.admin.batch_execute("alter role benefits_reader password 'another'").await.unwrap();
        refused(command("run", ""), "database.replication_url");
        logins.admin.batch_execute("alter role benefits_service nologin").await.unwrap();
        for name in ["run", "status", "preview", "reconcile"] {
            refused(command(name, ""), "database.url");
        }
    }

    async fn a_description_that_cannot_work_is_refused_with_what_and_where(major: u32) {
        let site = Site::new(major).await;
        site.hr
            .batch_execute(
                "create table hr.keyless (employee_id bigint, line text);
                 create view hr.everybody as select id from hr.employee;
                 create function hr.shout(text) returns text language sql stable as 'select upper($1)'",
            )
            .await
            .unwrap();
        let record = |query: &str| format!("select benefits.describe_record($record$ {query} $record$)");
        let source = |arguments: &str| format!("select benefits.describe_source({arguments})");
        for (sql, named) in [
            (record("select id as employee_id, name from hr.nowhere"), "hr.nowhere"),
            (record("select id as employee_id, name from hr.employee"), "name"),
            (record("select id from hr.employee"), "employee_id"),
            (record("select id as employee_id, surname, title as hat from hr.employee"), "hat"),
            (record("select last_login as employee_id, surname from hr.employee"), "employee_id"),
            (record("select e.id as employee_id, e::text as surname from hr.employee as e"), "whole row"),
            (record("select id as employee_id, hr.shout(surname) as surname from hr.employee"), "hr.shout"),
            (record("delete from hr.employee"), "syntax"),
            (record("select id as employee_id, surname from hr.employee; drop table hr.email"), ";"),
            (source("'hr.nowhere', employee_key => 'id'"), "hr.nowhere"),
            (source("'hr.employee', employee_key => 'ident'"), "ident"),
            (source("'hr.employee', employee_key => 'id', starter_flag => 'starts'"), "starts"),
            (source("'hr.employee'"), "employee_key"),
            (source("'hr.keyless', employee_key => 'employee_id', columns => array['line']"), "replica identity"),
            (source("'hr.everybody', employee_key => 'id', columns => array['id']"), "everybody"),
            (source("'hr.audit_log', employee_key => 'employee_id'"), "does not read"),
            (source("'hr.department', affected => 'select nothing from hr.job where $1 is null'"), "nothing"),
        ] {
            let error = site.hr.batch_execute(&sql).await.expect_err(&sql);
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
            assert!(error.message().contains(named), "{sql}: {}", error.message());
        }
        let same: i64 = site.hr.query_one("select version from benefits.description", &[]).await.unwrap().get(0);
        site.hr.batch_execute(DESCRIBE).await.unwrap();
        let more: i64 = site.hr.query_one("select version from benefits.description", &[]).await.unwrap().get(0);
        assert!(more > same);
        // Nothing was left behind by the ones that were refused.
        let mut site = site;
        site.start().await;
        site.sync(&["1"]).await;
        assert_eq!(site.status("1").await.0, "successful");
        site.stop().await;
    }

    async fn an_unreadable_an_ambiguous_and_a_missing_record_fail_alone(major: u32) {
        let mut site = Site::new(major).await;
        let anew = DESCRIBE.replace("        j.weekly_hours,", "        nullif(e.notes, '')::numeric as weekly_hours,");
        assert_ne!(anew, DESCRIBE);
        site.hr.batch_execute("update hr.employee set notes = '37.5'").await.unwrap();
        site.hr.batch_execute("alter table hr.phone drop constraint phone_employee_kind_uq").await.unwrap();
        site.hr.batch_execute(&anew).await.unwrap();
        site.start().await;
        let ids: Vec<String> = (1..=30).map(|id: i32| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        site.sync(&ids).await;
        site.hr
            .batch_execute(
                "begin; update hr.employee set notes = 'rather often' where id = 7; \
                 delete from hr.phone where employee_id = 8; \
                 insert into hr.phone (employee_id, kind, number) values (8, 'mobile', '07700900001'), (8, 'mobile', '07700900002'); \
                 update hr.employee set surname = 'Well'; \
                 delete from hr.job_pay where employee_id = 9; delete from hr.job where employee_id = 9; \
                 delete from hr.address where employee_id = 9; delete from hr.email where employee_id = 9; \
                 delete from hr.phone where employee_id = 9; delete from hr.employee where id = 9; commit",
            )
            .await
            .unwrap();
        site.settled().await;
        for (id, code) in [("7", "unreadable"), ("8", "ambiguous-record"), ("9", "record-gone")] {
            assert_eq!(site.status(id).await, ("failed".to_owned(), Some(code.to_owned())), "{id}");
            assert_ne!(site.held(id, "surname").as_deref(), Some("Well"), "{id}");
        }
        for id in ids.iter().filter(|id| !["7", "8", "9"].contains(id)) {
            assert_eq!(site.held(id, "surname").as_deref(), Some("Well"), "{id}");
        }
        site.hr.batch_execute("update hr.employee set notes = '40' where id = 7; delete from hr.phone where number = '07700900002'").await.unwrap();
        site.settled().await;
        for id in ["7", "8"] {
            assert_eq!(site.status(id).await.0, "successful", "{id}");
        }
        site.stop().await;
    }

    async fn a_record_that_takes_too_long_to_read_fails_alone(major: u32) {
        let mut site = Site::new(major).await;
        // As a statement that runs into its time limit, without the waiting.
        site.hr
            .batch_execute(
                "create function hr.hours(notes text) returns numeric language plpgsql immutable security definer as $$ begin \
                 if notes = 'for ever' then perform pg_cancel_backend(pg_backend_pid()); perform pg_sleep(60); end if; \
                 return 37.5; end $$; grant usage on schema hr to benefits_owner",
            )
            .await
            .unwrap();
        let anew = DESCRIBE.replace("        j.weekly_hours,", "        hr.hours(e.notes) as weekly_hours,");
        assert_ne!(anew, DESCRIBE);
        site.hr.batch_execute(&anew).await.unwrap();
        site.start().await;
        let ids: Vec<String> = (1..=30).map(|id: i32| id.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        site.sync(&ids).await;
        let change = "begin; update hr.employee set notes = 'for ever' where id = 7; \
                      update hr.employee set surname = 'Well'; commit";
        site.hr.batch_execute(change).await.unwrap();
        site.settled().await;
        for id in ids.iter().filter(|id| **id != "7") {
            assert_eq!(site.held(id, "surname").as_deref(), Some("Well"), "{id}");
        }
        assert_eq!(site.status("7").await, ("failed".to_owned(), Some("unreadable".to_owned())));
        assert!(site.why("7").await.contains("takes so long"), "{}", site.why("7").await);
        let mut previewed = Vec::new();
        let mut report = preview::Report::json(&mut previewed, preview::Progress::hidden());
        let both = preview::Scope::Named(vec!["7".to_owned(), "8".to_owned()]);
        preview::run(&site.config(), both, &mut report).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&previewed).unwrap();
        let unreadable = |one: &serde_json::Value| one["reasons"][0]["code"] == "unreadable";
        let alone: Vec<bool> = document["employees"].as_array().unwrap().iter().map(unreadable).collect();
        assert_eq!(alone, [true, false], "{document}");
        // Nor do comparisons stop at it, before which nothing leaves in the gravest doubt.
        let doubt = "update benefits.site set doubt = 'platform', doubt_count = doubt_count + 1";
        site.hr.batch_execute(doubt).await.unwrap();
        site.hr.batch_execute("update hr.employee set surname = 'Compared' where id = 1").await.unwrap();
        eventually("1 is delivered", async || site.held("1", "surname").as_deref() == Some("Compared")).await;
        site.hr.batch_execute("update hr.employee set notes = null where id = 7").await.unwrap();
        site.settled().await;
        assert_eq!(site.held("7", "surname").as_deref(), Some("Well"));
        site.stop().await;
    }

    async fn a_token_that_is_missing_or_empty_is_named_in_the_log_and_nobody_is_blamed(major: u32) {
        let site = Site::new(major).await;
        let token = site.directory.path().join("token");
        let good = std::fs::read(&token).unwrap();
        std::fs::write(&token, "\n").unwrap();
        let process = site.spawn_armed("");
        eventually("delivery is halted", async || site.get("/readyz").await.1.contains("credentials")).await;
        site.hr.execute("select benefits.sync(array['1'])", &[]).await.unwrap();
        let log = site.log();
        assert!(log.contains(&format!("benefits.token_file {} is empty", token.display())), "{log}");
        assert!(log.contains("renew benefits.token_file"), "{log}");
        assert_eq!(site.status("1").await.0, "in_progress");
        std::fs::remove_file(&token).unwrap();
        site.passed().await;
        std::fs::write(&token, good).unwrap();
        site.until_state("1", "successful").await;
        process.kill9();
    }

    async fn an_unknown_employee_is_refused_and_nobody_is_requested(major: u32) {
        let site = Site::new(major).await;
        for ids in ["array['1', '999']", "array['1', 'x']", "array['']", "array['01']"] {
            let error = site.hr.batch_execute(&format!("select benefits.sync({ids})")).await.unwrap_err();
            assert!(error.as_db_error().unwrap().message().contains("unknown employee"), "{ids}");
        }
        let waiting: i64 = site.hr.query_one("select count(*) from benefits.request", &[]).await.unwrap().get(0);
        assert_eq!(waiting, 0);
    }

    async fn padded_and_composite_keys_are_followed(major: u32) {
        let mut site = Site::new(major).await;
        // An HR system that keys people by char(10), and their addresses by a kind in char(12) and a boolean.
        site.hr
            .batch_execute(
                "create schema old;
                 create table old.person (code char(10) primary key, surname text, tick char(5));
                 create table old.place (kind char(12), main boolean, code char(10), line text, primary key (kind, main));
                 insert into old.person values ('P1', 'One', 'N'), ('P2', 'Two', 'N');
                 insert into old.place values ('home', true, 'P1', 'Road'), ('home', false, 'P2', 'Lane');
                 drop publication benefits_sync; truncate benefits.source, benefits.employee;
                 select benefits.describe_record($$ select p.code as employee_id, p.surname, 'F'::text as gender, 'Mx'::text as title,
                    'A'::text as forenames, '1990-01-01'::date as date_of_birth, lower(p.code) || '@x.example' as work_email,
                    1::numeric as annual_pay, 'Per annum'::text as pay_basis, 'Calendar monthly'::text as pay_frequency,
                    'Starter'::text as pay_change_reason, a.line as address_line_1
                    from old.person as p left join old.place as a on a.code = p.code $$);
                 select benefits.describe_source('old.person', employee_key => 'code', starter_flag => 'tick');
                 select benefits.describe_source('old.place', employee_key => 'code')",
            )
            .await
            .unwrap();
        site.start().await;
        site.sync(&["P1"]).await;
        assert_eq!(site.status("P1").await, ("successful".to_owned(), None));
        assert_eq!(site.held("P1", "addressLine1").as_deref(), Some("Road"));
        site.hr.batch_execute("delete from old.place where main").await.unwrap();
        site.settled().await;
        assert_eq!(site.held("P1", "addressLine1"), None, "the row's key tells whose it was");
        site.hr.batch_execute("update old.person set tick = 'Y' where code = 'P2'").await.unwrap();
        eventually("P2 is a starter", async || site.sandbox.account_of("P2").is_some()).await;
        site.settled().await;
        assert_eq!(site.held("P2", "surname").as_deref(), Some("Two"));
        site.stop().await;
    }
}
