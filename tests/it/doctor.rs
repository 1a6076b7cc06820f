//! `doctor` names each planted fault, and nothing else.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use benefits_sync::config::Config;
use benefits_sync::doctor::{self, Level};
use benefits_sync::sandbox::SandboxOptions;

use crate::for_each_major;
use crate::support::database;
use crate::support::logins::Logins;
use crate::support::site::Site;

/// A fault that SQL plants: what it is, how it is planted, what doctor names, how it is taken away.
type Planted = (&'static str, &'static str, &'static [&'static str], &'static str);

const PLANTED: &[Planted] = &[
    (
        "the service is a superuser",
        "alter role benefits_service superuser",
        &["privileges.service_least"],
        "alter role benefits_service nosuperuser",
    ),
    (
        "the service reads an HR table itself",
        "grant select on hr.employee to benefits_service",
        &["privileges.service_least"],
        "revoke select on hr.employee from benefits_service",
    ),
    (
        "the service may not write a table of the ledger",
        "revoke update on benefits.pending from benefits_service",
        &["privileges.service"],
        "grant update on benefits.pending to benefits_service",
    ),
    (
        "the reader has a power that it does not need",
        "alter role benefits_reader createdb",
        &["privileges.reader_least"],
        "alter role benefits_reader nocreatedb",
    ),
    (
        "the reader lacks REPLICATION",
        "alter role benefits_reader noreplication",
        &["privileges.reader"],
        "alter role benefits_reader replication",
    ),
    (
        "the reader's password is another",
        "alter role benefits_reader password 'other'",
        &["reader.connects"],
        "alter role benefits_reader password 'reads the slot'",
    ),
    (
        "somebody can log in as the owner of the definer functions",
        "alter role benefits_owner login",
        &["privileges.owner_least"],
        "alter role benefits_owner nologin",
    ),
    (
        "sessions of others are not shown",
        "revoke pg_read_all_stats from benefits_owner",
        &["privileges.owner_least"],
        "grant pg_read_all_stats to benefits_owner",
    ),
    (
        "a described table may not be read",
        "revoke select on hr.address from benefits_owner",
        &["privileges.owner"],
        "grant select on hr.address to benefits_owner",
    ),
    (
        "row security would hide employees",
        "alter table hr.phone enable row level security",
        &["privileges.owner"],
        "alter table hr.phone disable row level security",
    ),
    (
        "everybody may call a command",
        "grant execute on function benefits.sync(text[]) to public",
        &["privileges.public"],
        "revoke execute on function benefits.sync(text[]) from public",
    ),
    (
        "anybody may make functions where ours look for them",
        "grant create on schema public to public",
        &["privileges.path"],
        "revoke create on schema public from public",
    ),
    (
        "a described table is not published",
        "alter publication benefits_sync drop table hr.email",
        &["publication.tables"],
        "alter publication benefits_sync add table hr.email",
    ),
    (
        "the commands are not published",
        "alter publication benefits_sync drop table benefits.request",
        &["publication.tables"],
        "alter publication benefits_sync add table benefits.request",
    ),
    (
        "there is no publication",
        "drop publication benefits_sync",
        &["publication.tables"],
        "select benefits.publish_sources()",
    ),
    (
        "deletes are not published",
        "alter publication benefits_sync set (publish = 'insert, update')",
        &["publication.tables"],
        "alter publication benefits_sync set (publish = 'insert, update, delete, truncate')",
    ),
    (
        "a mapped column is not published",
        "alter publication benefits_sync drop table hr.email; alter publication benefits_sync add table hr.email (id, employee_id, kind)",
        &["publication.tables"],
        "alter publication benefits_sync drop table hr.email; alter publication benefits_sync add table hr.email",
    ),
    (
        "the publication filters rows",
        "alter publication benefits_sync drop table hr.email; alter publication benefits_sync add table hr.email where (id > 5)",
        &["publication.tables"],
        "alter publication benefits_sync drop table hr.email; alter publication benefits_sync add table hr.email",
    ),
    (
        "a table that is nobody's business is published",
        "alter publication benefits_sync add table hr.audit_log",
        &["publication.tables"],
        "alter publication benefits_sync drop table hr.audit_log",
    ),
    (
        "a described table was swapped by a rename",
        "alter table hr.phone rename to phone_before; create table hr.phone (like hr.phone_before including all)",
        &["description.drift"],
        "drop table hr.phone; alter table hr.phone_before rename to phone",
    ),
    (
        "a described table is gone",
        "alter table hr.phone rename to phone_before",
        &["description.drift"],
        "alter table hr.phone_before rename to phone",
    ),
    (
        "a mapped column is gone",
        "alter table hr.address rename column postcode to post_code",
        &["description.drift"],
        "alter table hr.address rename column post_code to postcode",
    ),
    (
        "a described table has lost its primary key",
        "alter table hr.job_pay drop constraint job_pay_pk",
        &["description.keys"],
        "alter table hr.job_pay add constraint job_pay_pk primary key (id)",
    ),
    (
        "a partition has been attached without its table's replica identity",
        "create table hr.shift (id bigint not null, employee_id bigint not null, note text) partition by range (id);
         create unique index shift_uq on hr.shift (id);
         alter table hr.shift replica identity using index shift_uq;
         select benefits.describe_source('hr.shift', employee_key => 'employee_id', columns => array['note']);
         create table hr.shift_1 partition of hr.shift for values from (1) to (2)",
        &["description.keys"],
        "drop table hr.shift; delete from benefits.source where table_name = 'shift'; select benefits.generate_owned_rows()",
    ),
    (
        "a table inherits from a described one",
        "create table hr.phone_abroad () inherits (hr.phone)",
        &["description.keys"],
        "drop table hr.phone_abroad",
    ),
    (
        "a child table has no index on the employee's id",
        "drop index hr.address_employee_ix; analyze hr.address",
        &["description.indexes", "description.plan"],
        "create index address_employee_ix on hr.address (employee_id, kind, from_date); analyze hr.address",
    ),
    (
        "the record query scans a large table",
        "drop index hr.job_pay_job_ix; analyze hr.job_pay",
        &["description.plan"],
        "create index job_pay_job_ix on hr.job_pay (job_id, effective_from)",
    ),
    (
        "a table under the query is not described",
        "alter publication benefits_sync drop table hr.grade; create table kept as select * from benefits.source where table_name = 'grade'; delete from benefits.source where table_name = 'grade'",
        &["description.sources"],
        "insert into benefits.source overriding system value select * from kept; drop table kept; alter publication benefits_sync add table hr.grade",
    ),
    (
        "a mandatory field is not described",
        "update benefits.site set described = array_replace(described, 'surname', 'other')",
        &["description.mandatory"],
        "update benefits.site set described = array_replace(described, 'other', 'surname')",
    ),
    (
        "a level cannot be stored",
        "alter function benefits.set_level(text, text) rename to set_no_level",
        &["description.set_level"],
        "alter function benefits.set_no_level(text, text) rename to set_level",
    ),
    (
        "the schema is an older one",
        "create table kept as select * from benefits.migration where version = (select max(version) from benefits.migration); delete from benefits.migration where version = (select version from kept)",
        &["ledger.schema"],
        "insert into benefits.migration select * from kept; drop table kept",
    ),
    (
        "the ledger was written with another key",
        "update benefits.site set fingerprint_check = 'x'",
        &["configuration.key"],
        "update benefits.site set fingerprint_check = null",
    ),
    (
        "the ledger is about another platform",
        "update benefits.site set platform_id = 'other'",
        &["configuration.platform_id"],
        "update benefits.site set platform_id = null",
    ),
    (
        "a level leads to no package",
        "insert into benefits.level_package values ('Gold', 'gold-2019')",
        &["platform.packages"],
        "delete from benefits.level_package where level = 'Gold'",
    ),
    (
        "a translation leads to no listed value",
        "insert into benefits.picklist_value values ('gender', 'Q', 'Queer')",
        &["platform.picklists"],
        "delete from benefits.picklist_value where hr_value = 'Q'",
    ),
    (
        "the slot is one of another plugin",
        "select pg_create_logical_replication_slot('benefits_sync', 'test_decoding')",
        &["slot.state"],
        "select pg_drop_replication_slot('benefits_sync')",
    ),
    (
        "nobody reads the slot",
        "select pg_create_logical_replication_slot('benefits_sync', 'pgoutput')",
        &["slot.state"],
        "select pg_drop_replication_slot('benefits_sync')",
    ),
    (
        "the slot that the ledger followed is gone",
        "insert into benefits.checkpoint (system_id, timeline, platform_id, slot_name, lsn) values ('1', 1, 'demo', 'benefits_sync', '0/1')",
        &["slot.state"],
        "delete from benefits.checkpoint",
    ),
    (
        "rows that become current at an instant are found by scanning",
        "alter table hr.job_pay add column starts_at timestamptz;
         select benefits.describe_source('hr.job_pay', employee_key => 'employee_id', effective_from => 'starts_at')",
        &["description.instants"],
        "select benefits.describe_source('hr.job_pay', employee_key => 'employee_id', effective_from => 'effective_from');
         alter table hr.job_pay drop column starts_at",
    ),
    (
        "a column that people are searched by has gone",
        "select benefits.describe_search('select id as employee_id, surname as name, ethnicity from hr.employee');
         alter table hr.employee rename column ethnicity to ethnicity_1",
        &["description.search"],
        "alter table hr.employee rename column ethnicity_1 to ethnicity; select benefits.describe_search(null)",
    ),
    (
        "the service has too few connections",
        "alter role benefits_service connection limit 3",
        &["server.connections"],
        "alter role benefits_service connection limit -1",
    ),
];

async fn findings(config: &Config) -> Vec<&'static str> {
    doctor::run(config).await.unwrap().findings()
}

/// Tables that are large enough for their scan to matter.
const GROWN: &str = "
    insert into hr.address (employee_id, kind, line_1, from_date)
    select n % 30 + 1, 'correspondence', 'x', '2001-01-01' from generate_series(1, 20000) as n;
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay)
    select j.employee_id, j.id, date '1990-01-01' + n, 1 from hr.job as j, generate_series(1, 800) as n;
    analyze hr.address; analyze hr.job_pay; analyze hr.job; analyze hr.employee";

for_each_major! {
    async fn each_fault_that_sql_plants_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        logins.admin.batch_execute(GROWN).await.unwrap();
        let config = logins.config();
        let report = doctor::run(&config).await.unwrap();
        assert_eq!(report.findings(), Vec::<&str>::new(), "{report:#?}");
        for (fault, plant, named, undo) in PLANTED {
            logins.admin.batch_execute(plant).await.unwrap_or_else(|error| panic!("{fault}: {error:?}"));
            let report = doctor::run(&config).await.unwrap();
            assert_eq!(report.findings(), *named, "{fault}: {report:#?}");
            let told = report.checks.iter().filter(|check| check.level != Level::Ok);
            assert!(told.clone().all(|check| check.remedy.as_ref().is_some_and(|text| !text.is_empty())), "{fault}: {report:#?}");
            logins.admin.batch_execute(undo).await.unwrap_or_else(|error| panic!("{fault}: {error:?}"));
        }
        assert_eq!(findings(&config).await, Vec::<&str>::new(), "all faults are gone again");
    }

    async fn each_fault_of_the_platform_and_of_this_machine_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        let config = logins.config();
        let other = |from: &str, to: &str| Config::parse(&logins.text().replace(from, to), "test", []).unwrap();
        logins.sandbox.set_token("renewed");
        assert_eq!(findings(&config).await, ["platform.credentials"]);
        logins.sandbox.set_token(&SandboxOptions::default().token);
        logins.sandbox.set_suspended(true);
        assert_eq!(findings(&config).await, ["platform.status"]);
        logins.sandbox.set_suspended(false);
        assert_eq!(findings(&other(&logins.sandbox.base_url(), "http://127.0.0.1:1")).await, ["platform.address"]);
        assert_eq!(findings(&other("\"demo\"", "\"elsewhere\"")).await, ["platform.address"]);
        // An address that is nobody's: what matters is where it would go.
        assert_eq!(findings(&other(&logins.sandbox.base_url(), "http://192.0.2.1:1")).await, ["platform.encryption", "platform.address"]);
        assert_eq!(findings(&other(&logins.sandbox.base_url(), "https://192.0.2.1:1")).await, ["platform.address"]);
        let witness = |file: &str| other("[benefits]", &format!("witness_file = \"{}/{file}\"\n[benefits]", logins.directory.path().display()));
        assert_eq!(findings(&witness("nowhere/witness")).await, ["configuration.witness"]);
        assert_eq!(findings(&witness("")).await, ["configuration.witness"]);
        assert_eq!(findings(&witness("witness")).await, Vec::<&str>::new());
        let key = logins.directory.path().join("key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(findings(&config).await, ["configuration.key"]);
        std::fs::remove_file(&key).unwrap();
        assert_eq!(findings(&config).await, ["configuration.key"]);
    }

    async fn each_fault_of_the_servers_settings_is_named_and_nothing_else(major: u32) {
        let logins = Logins::new(major).await;
        let config = logins.config();
        let set = async |setting: &str| logins.cluster.psql("postgres", &format!("alter system set {setting}")).await.unwrap();
        set("max_slot_wal_keep_size = -1").await;
        logins.cluster.psql("postgres", "select pg_reload_conf()").await.unwrap();
        let mut named = Vec::new();
        // The reload is on its way to the sessions.
        for _ in 0..100 {
            named = findings(&config).await;
            if !named.is_empty() { break }
        }
        assert_eq!(named, ["server.wal_limit"]);
        set("max_slot_wal_keep_size = '4GB'").await;
        set("wal_level = 'replica'").await;
        logins.cluster.restart().await.unwrap();
        assert_eq!(findings(&config).await, ["server.wal_level"]);
        set("wal_level = 'logical'").await;
        set("max_replication_slots = 1").await;
        logins.cluster.restart().await.unwrap();
        logins.cluster.psql("postgres", "select pg_create_physical_replication_slot('theirs')").await.unwrap();
        assert_eq!(findings(&config).await, ["server.slots"]);
        logins.cluster.stop(benefits_sync::demo::cluster::StopMode::Fast).await.unwrap();
        assert_eq!(findings(&config).await, ["server.reachable"]);
    }

    async fn a_database_that_is_not_set_up_is_said_to_be_so_with_exit_code_3_and_json_is_one_document(major: u32) {
        let site = Site::on(database(major).await, SandboxOptions::default()).await;
        let output = tokio::task::block_in_place(|| Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .args(["doctor", "--json", "--config"])
            .arg(site.config_file())
            .output()
            .unwrap());
        assert_eq!(output.status.code(), Some(3));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["id"] == "ledger.schema" && check["level"] == "failed"), "{report}");
    }
}
