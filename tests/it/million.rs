//! Everyone compared, where everyone is many: bounded memory, short statements, only what differs is sent.
//!
//! `make test` takes a few thousand; `make soak EMPLOYEES=1000000` a million, and prints figures.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benefits_sync::pipeline::fingerprint_key;
use benefits_sync::record::{COLUMNS, Fingerprints, RawRecord, prepare};
use benefits_sync::sandbox::SeedAccount;

use crate::support::proof::rules;
use crate::support::site::{Process, Site, eventually};
use crate::support::{options, wanted};

/// Of how many one differs.
const ONE_IN: i64 = 1_000;
/// The first id that is many's.
const FIRST: i64 = 101;
/// How many records the test reads at once.
const PAGE: i64 = 2_000;
/// The most memory of the command, whatever the number of employees.
const COMMAND_MAX_KB: u64 = 96 * 1024;
/// The most memory of the pipeline: it knows every synced employee and child row by a hash.
const RUN_MAX_KB: u64 = 64 * 1024;
const RUN_MAX_BYTES_EACH: u64 = 200;
/// The longest statement may take so long on a busy machine.
const STATEMENT_MAX_MS: f64 = 5_000.0;

/// So many people with what a record has to have, and an account.
const MANY: &str = "
    insert into hr.employee
        (id, employee_number, title, forenames, surname, date_of_birth, gender, start_date, continuous_service_date)
    select n, 'M' || n, 'Mx', 'Many', 'Person ' || n, '1980-01-01'::date + n % 9000, 'F', '2020-01-01', '2020-01-01'
    from generate_series(101, 100 + {count}) as n;
    insert into hr.email (employee_id, kind, address)
    select n, 'work', 'person' || n || '@example.com' from generate_series(101, 100 + {count}) as n;
    insert into hr.job (id, employee_id, is_primary, title, started_on)
    select 100000000 + n, n, true, 'Clerk', '2020-01-01' from generate_series(101, 100 + {count}) as n;
    insert into hr.job_pay (employee_id, job_id, effective_from, annual_pay, basis, frequency, change_reason)
    select n, 100000000 + n, '2020-01-01', 30000 + n % 999, 'Per annum', 'Calendar monthly', 'Starter'
    from generate_series(101, 100 + {count}) as n;
    insert into benefits.enrolment (employee_id, platform_id, benefits_id, linked, requested_by, version, outcome, last_synced_at)
    select n::text, 'demo', 'many-' || n, true, 'test', 1, 'successful', now() from generate_series(101, 100 + {count}) as n;
    analyze";

/// What a comparison cost.
struct Cost {
    seconds: f64,
    peak_kb: u64,
    /// The longest statement of the service's login.
    statement_ms: f64,
}

impl Cost {
    fn print(&self, what: &str) {
        let Self { seconds, peak_kb, statement_ms } = self;
        eprintln!("{what}: {seconds:.1} s, at most {peak_kb} kB, longest statement {statement_ms:.0} ms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_is_compared_in_bounded_memory_and_short_statements_however_many_they_are() {
    if !wanted(18) {
        return;
    }
    let count = std::env::var("EMPLOYEES").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000_i64);
    let options = options(18)
        .setting("shared_preload_libraries", "pg_stat_statements")
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "8GB");
    let (_cluster, mut site) = Site::apart(options, 18).await;
    site.logins = true;
    site.hr.batch_execute("create extension pg_stat_statements").await.unwrap();
    let began = Instant::now();
    site.hr.batch_execute(&MANY.replace("{count}", &count.to_string())).await.unwrap();
    acknowledge(&site, count).await;
    eprintln!("{count} employees are there and in step after {:.0} s", began.elapsed().as_secs_f64());

    let cost = by_command(&site, count).await;
    cost.print("by command, everyone met for the first time");
    assert!(cost.peak_kb < COMMAND_MAX_KB, "{} kB", cost.peak_kb);
    assert!(cost.statement_ms < STATEMENT_MAX_MS, "a statement took {} ms", cost.statement_ms);

    let differing = differ(&site, count).await;
    let process = site.spawn_armed("");
    let cost = by_itself(&site, &process).await;
    cost.print("by itself at the start, beside the stream");
    let bound = RUN_MAX_KB + u64::try_from(count).unwrap() * RUN_MAX_BYTES_EACH / 1024;
    assert!(cost.peak_kb < bound, "{} kB", cost.peak_kb);
    assert!(cost.statement_ms < STATEMENT_MAX_MS, "a statement took {} ms", cost.statement_ms);
    eventually("what differs is sent", async || {
        let sql = "select count(*) from benefits.pending";
        site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let counts = site.sandbox.counts();
    assert_eq!((counts.updated, counts.created), (differing, 0), "only what differs is sent");
    process.kill9();
}

/// Writes down as acknowledged what HR has.
async fn acknowledge(site: &Site, count: i64) {
    let rules = rules(site).await;
    site.config_file();
    let key = fingerprint_key(&site.directory.path().join("key")).unwrap();
    let read = site.hr.prepare("select * from benefits.read_records($1)").await.unwrap();
    let sql = "update benefits.enrolment as e set acknowledged = k.acknowledged \
               from unnest($1::text[], $2::bytea[]) as k (employee_id, acknowledged) where e.employee_id = k.employee_id";
    let write = site.hr.prepare(sql).await.unwrap();
    for from in (FIRST..FIRST + count).step_by(usize::try_from(PAGE).unwrap()) {
        let ids: Vec<String> = (from..(from + PAGE).min(FIRST + count)).map(|id| id.to_string()).collect();
        let rows = site.hr.query(&read, &[&ids]).await.unwrap();
        let known = rows.iter().map(|row| {
            let first = row.len() - COLUMNS.len();
            let values = (first..row.len()).map(|at| row.get(at)).collect();
            let raw = RawRecord { employee_id: row.get(first - 1), values };
            let record = prepare(&raw, &rules).unwrap();
            (raw.employee_id, Fingerprints::of(&key, &record).to_bytes())
        });
        let (ids, known): (Vec<String>, Vec<Vec<u8>>) = known.unzip();
        assert_eq!(
            site.hr.execute(&write, &[&ids, &known]).await.unwrap(),
            u64::try_from(ids.len()).unwrap()
        );
    }
    site.hr.batch_execute("vacuum analyze benefits.enrolment").await.unwrap();
}

/// Changes one in a thousand, whose accounts the platform has; how many.
async fn differ(site: &Site, count: i64) -> u64 {
    let ids: Vec<i64> = (FIRST..FIRST + count).filter(|id| id % ONE_IN == 0).collect();
    site.hr.execute("update hr.employee set known_as = 'Differs' where id = any($1)", &[&ids]).await.unwrap();
    let sql = "update benefits.enrolment set benefits_id = $2 where employee_id = $1";
    for id in &ids {
        let account =
            SeedAccount::new(&format!("person{id}@example.com")).linked_to(&id.to_string(), Some(1));
        let account = site.sandbox.seed(account).unwrap();
        site.hr.execute(sql, &[&id.to_string(), &account]).await.unwrap();
    }
    u64::try_from(ids.len()).unwrap()
}

async fn by_command(site: &Site, count: i64) -> Cost {
    forget_statements(site).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_benefits-sync"));
    command.args(["reconcile", "--json", "--config"]).arg(site.config_file()).stdout(Stdio::piped());
    let mut process = Process { child: command.spawn().unwrap() };
    let mut peak = 0;
    while process.child.try_wait().unwrap().is_none() {
        peak = peak_kb(&process).unwrap_or(peak);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report: serde_json::Value = serde_json::from_reader(process.child.stdout.take().unwrap()).unwrap();
    assert_eq!((&report["compared"], &report["differing"]), (&count.into(), &0.into()), "{report}");
    let seconds = report["seconds"].as_f64().unwrap();
    Cost { seconds, peak_kb: peak, statement_ms: longest_statement(site).await }
}

async fn by_itself(site: &Site, process: &Process) -> Cost {
    forget_statements(site).await;
    let began = Instant::now();
    let sql = "select s.doubt is null and c.reconciled_at is not null \
               from benefits.site as s left join benefits.checkpoint as c on true";
    while !site.hr.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(began.elapsed() < Duration::from_hours(1), "everyone is compared");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    Cost { seconds, peak_kb: peak_kb(process).unwrap(), statement_ms: longest_statement(site).await }
}

async fn forget_statements(site: &Site) {
    site.hr.batch_execute("select pg_stat_statements_reset()").await.unwrap();
}

async fn longest_statement(site: &Site) -> f64 {
    // Not the observer's count of everyone by state, which is for the metrics and waits for nobody.
    let sql = "select max_exec_time, query from pg_stat_statements where userid = 'benefits_service'::regrole \
               and query not like '%benefits.employee_status%' order by 1 desc limit 3";
    let rows = site.hr.query(sql, &[]).await.unwrap();
    for row in &rows {
        let text: String = row.get::<_, String>(1).chars().take(100).collect();
        eprintln!("  {:.0} ms: {}", row.get::<_, f64>(0), text.replace('\n', " "));
    }
    rows[0].get(0)
}

/// The most memory that the process has had; none once it has ended.
fn peak_kb(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
