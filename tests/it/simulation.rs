//! The proof: random edits, random faults, random deaths, from a seed; at the end the platform holds what HR describes.
//!
//! `make test` runs a few seeds, `make soak SEEDS=200` as many as are wanted, `SEED=17 make soak` one again. What each seed
//! does is fixed by it; how the processes interleave is not, so a failure may take several runs to show again.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use benefits_sync::demo::edits::Edits;
use benefits_sync::demo::people::{Loaded, People};
use benefits_sync::sandbox::{SandboxOptions, SeedAccount};
use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::support;
use crate::support::database::{connect, database_on};
use crate::support::proof::{differences, offences};
use crate::support::site::{self, PEOPLE, Process, Site};

const SEEDS_IN_MAKE_TEST: u64 = 4;
const STEPS: u32 = 120;
/// One seed in so many has a second instance, which delivers beside the first and reads when that one is dead.
const SECOND_ONE_IN: u64 = 3;
/// One seed in so many has a PostgreSQL of its own, which is restarted and killed too.
const OWN_POSTGRES_ONE_IN: u64 = 8;

const SETTINGS: &str =
    "[delivery]\nconcurrency = 6\ntimeout = \"300ms\"\nbackoff_min = \"10ms\"\nbackoff_max = \"200ms\"\n";

const FAULTS: [&str; 16] = [
    "lost-before,share=0.3,on=writes",
    "lost-after,share=0.3,on=writes",
    "lost-after,next=1,on=createEmployee",
    "half-answer,share=0.2",
    "internal-after,share=0.3,on=writes",
    "unavailable,share=0.5",
    "unavailable,next=30",
    "wrong-content-type,share=0.2",
    "invalid-json,next=5,on=writes",
    "redirect,next=3",
    "429,next=2,retry-after=1",
    "slow,delay=5ms,jitter=200ms,share=0.5",
    "slow-answer,delay=50ms,jitter=600ms,share=0.3,on=writes",
    "huge-body,next=1,on=writes",
    "401,next=2",
    "reject,next=1,on=writes",
];

const FAIL_POINTS: [&str; 12] = [
    "row-read",
    "commit-handed",
    "in-hand",
    "mass-in-hand",
    "pending-written",
    "lsn-confirmed",
    "record-read",
    "intent-written",
    "request-sent",
    "answer-received",
    "update-accepted",
    "outcome-recorded",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_platform_ends_as_hr_is_and_saw_each_version_once() {
    if !support::wanted(18) {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SEED").or(number("FIRST_SEED")).unwrap_or(1);
    let count = if number("SEED").is_some() { 1 } else { number("SEEDS").unwrap_or(SEEDS_IN_MAKE_TEST) };
    let seeds: Vec<u64> = (first..first + count).collect();
    let mut failed = Vec::new();
    for seed in &seeds {
        // A seed that panics fails alone.
        let wrong = AssertUnwindSafe(Box::pin(simulate(*seed))).catch_unwind().await;
        let wrong = wrong.unwrap_or_else(|_| vec!["it panicked: see above".to_owned()]);
        if wrong.is_empty() {
            eprintln!("seed {seed}: green");
        } else {
            eprintln!("seed {seed}: FAILED (again: SEED={seed} make soak)\n{wrong:#?}");
            failed.push(*seed);
        }
    }
    assert!(failed.is_empty(), "of {} seeds these failed: {failed:?}", seeds.len());
}

/// One site's random life; what is wrong at its end.
async fn simulate(seed: u64) -> Vec<String> {
    let mut deaths = 0;
    let mut random = StdRng::seed_from_u64(seed);
    let options =
        SandboxOptions { keep_bodies: true, seed, journal_max: 1_000_000, ..SandboxOptions::default() };
    let cluster = match seed % OWN_POSTGRES_ONE_IN {
        0 => Some(support::private_cluster(18).await),
        _ => None,
    };
    let mut site = match &cluster {
        None => Site::with(18, options).await,
        Some(cluster) => {
            let database = database_on(cluster, 18).await;
            site::prepare(&database.url).await;
            Site::on(database, options).await
        }
    };
    SETTINGS.clone_into(&mut site.more);
    let emails = "select address from hr.email where kind = 'work' and employee_id % 4 = 0";
    for row in site.hr.query(emails, &[]).await.unwrap() {
        site.sandbox.seed(SeedAccount::new(row.get(0))).unwrap();
    }
    let mut edits = edits(&site, seed).await;
    let mut second = seed.is_multiple_of(SECOND_ONE_IN).then(|| site.spawn_second());
    let mut process = site.spawn().await;
    // More than go unjudged, so that what changes them all is a mass change.
    let first: Vec<String> = (1..=24).map(|id: i64| id.to_string()).collect();
    site.sync(&first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let busy = tokio::spawn(second_clerk(site.database.url.clone(), random.r#gen()));
    for _ in 0..STEPS {
        step(&site, &mut edits, &mut process, &mut random).await;
        if let Some(cluster) = &cluster
            && random.gen_ratio(1, 20)
        {
            // Whoever is in the middle of something sees it fail, as an HR application would.
            if random.gen_bool(0.5) {
                cluster.kill9().await.unwrap();
            }
            cluster.restart().await.unwrap();
            site.hr = connect(&site.database.url).await;
            edits = self::edits(&site, random.r#gen()).await;
        }
        if let Some(second) = &mut second
            && random.gen_ratio(1, 25)
        {
            *second = site.spawn_second();
        }
        if process.child.try_wait().unwrap().is_some() {
            deaths += 1;
            process = site.spawn_armed(&fail_point(&mut random));
        }
    }
    drop(busy.await);
    site.sandbox.disarm_all();
    drop(process);
    let process = site.spawn().await;
    let failed =
        "select benefits.sync(array(select employee_id from benefits.enrolment where outcome = 'failed'))";
    // Who was refused by a fault is sent again, as a person would ask; once at rest, since a refusal may still be under way.
    for _ in 0..2 {
        site.settled().await;
        site.hr.batch_execute(failed).await.unwrap();
    }
    site.settled().await;
    let wrong: Vec<String> = differences(&site).await.into_iter().chain(offences(&site)).collect();
    if !wrong.is_empty() {
        let kept = std::env::temp_dir().join(format!("benefits-sync-seed-{seed}.log"));
        drop(std::fs::write(&kept, format!("{}\n{:#?}", site.log(), site.sandbox.journal())));
        eprintln!("seed {seed}: log and journal in {}", kept.display());
    }
    drop(process);
    let counts = site.sandbox.counts();
    let faults: u64 = counts.faults.values().sum();
    eprintln!(
        "seed {seed}: {} created, {} updated, {} repeated, {} refused; {faults} answers spoilt, {deaths} deaths",
        counts.created, counts.updated, counts.replayed, counts.refused
    );
    wrong
}

/// The HR application's edits, going on from the site's people.
async fn edits(site: &Site, seed: u64) -> Edits {
    let today = jiff::Zoned::now().date();
    let mut people = People::new(7, jiff::civil::date(2026, 11, 1));
    let count = site.hr.query_one("select max(id) from hr.employee", &[]).await.unwrap().get::<_, i64>(0);
    for _ in 0..PEOPLE {
        people.employee();
    }
    for _ in PEOPLE..count {
        people.starter();
    }
    let loaded = Loaded { employees: usize::try_from(count).unwrap(), flawed: Vec::new() };
    Edits::new(connect(&site.database.url).await, people, &loaded, seed, today)
}

/// Beside the edits: transactions that stay open for a while, so that commits come in another order than changes, some of
/// them rolled back.
async fn second_clerk(url: String, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = connect(&url).await;
    for n in 0..STEPS / 2 {
        let Ok(transaction) = client.transaction().await else {
            client = match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    client
                }
                Err(_) => return,
            };
            continue;
        };
        let id: i64 = random.gen_range(1..=PEOPLE);
        let sql = format!("update hr.employee set known_as = 'Clerk {n}' where id = {id}");
        let changed = transaction.batch_execute(&sql).await;
        tokio::time::sleep(Duration::from_millis(random.gen_range(0..60))).await;
        if changed.is_ok() && random.gen_bool(0.8) {
            drop(transaction.commit().await);
        } else {
            drop(transaction.rollback().await);
        }
    }
}

async fn step(site: &Site, edits: &mut Edits, process: &mut Process, random: &mut StdRng) {
    match random.gen_range(0..100) {
        // An edit that met a restart was not made.
        0..48 => drop(edits.next().await),
        // There and back again: what was sent without an answer must not be taken for what is held.
        48..66 => {
            // The empty one cannot be sent at all.
            let name = ["Ash", "Birch", "Cedar", ""].choose(random).unwrap();
            let sql = "update hr.employee set surname = $1 where id = $2";
            drop(site.hr.execute(sql, &[name, &random.gen_range(1..=4_i64)]).await);
        }
        66..70 => {
            let sql = format!("update hr.employee set known_as = 'Mass {}'", random.gen_range(0..3));
            drop(site.hr.batch_execute(&sql).await);
        }
        70..76 => {
            let ids: Vec<String> =
                (0..random.gen_range(1..4)).map(|_| random.gen_range(1..=PEOPLE).to_string()).collect();
            drop(site.hr.execute("select benefits.sync($1)", &[&ids]).await);
        }
        76..87 => site.sandbox.arm(FAULTS.choose(random).unwrap().parse().unwrap()),
        87..90 => site.sandbox.disarm_all(),
        90..94 => {
            drop(process.child.kill());
            drop(process.child.wait());
        }
        94..96 => process.signal("TERM"),
        _ => tokio::time::sleep(Duration::from_millis(random.gen_range(0..120))).await,
    }
    tokio::time::sleep(Duration::from_millis(random.gen_range(0..20))).await;
}

/// None, or one that will kill the process sooner or later.
fn fail_point(random: &mut StdRng) -> String {
    if random.gen_bool(0.4) {
        return String::new();
    }
    let action = if random.gen_bool(0.8) { "abort" } else { "error" };
    format!("{}={action}@{}", FAIL_POINTS.choose(random).unwrap(), random.gen_range(1..12))
}
