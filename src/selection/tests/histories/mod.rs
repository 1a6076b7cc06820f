//! Random histories of rows, transactions and DDL, with a model of HR, of the ledger and of what each employee was last
//! read as. After every history each synced employee's last reading must be the record as it is: no missed change.
//!
//! Replay one with `BENEFITS_SYNC_SEED=17 cargo test histories`.

mod hr;
mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;

const PEOPLE: u32 = 6;
const HISTORIES: u64 = 400;
const STEPS: usize = 120;

type Row = Vec<String>;
type Rows = BTreeMap<(u32, String), Row>;

/// What a transaction has written, by table and key; `None`: deleted.
type Written = BTreeMap<(u32, String), Option<Row>>;

/// A transaction that is under way, or that is written as a whole.
struct Transaction {
    xid: u32,
    streamed: bool,
    /// What it has written; `None`: deleted.
    rows: Written,
    truncated: BTreeSet<u32>,
    request: Option<String>,
    /// Savepoints: the subtransaction, and the state to go back to.
    savepoints: Vec<(u32, Written)>,
}

struct World {
    rng: StdRng,
    feed: Feed,
    committed: Rows,
    open: Vec<Transaction>,
    /// Keys that an open transaction has locked, rolled-back savepoints included: whoever comes next sees them later.
    locked: BTreeMap<(u32, String), u32>,
    full: BTreeSet<u32>,
    next_xid: u32,
    next_request: u32,
    // The ledger.
    queue: Vec<Commit>,
    requests: BTreeMap<i64, String>,
    enrolled: BTreeSet<String>,
    baseline: BTreeSet<String>,
    expected_enrolled: BTreeSet<String>,
    owner: BTreeMap<(SourceId, String), String>,
    seeded: Vec<(u64, Vec<KeyHash>)>,
    read: BTreeMap<String, Vec<Row>>,
    lookup: BTreeMap<String, Row>,
}

fn key_of(table: u32, row: &[String]) -> String {
    match table {
        PHONE => format!("{}\u{1f}{}", row[0], row[1]),
        _ => row[0].clone(),
    }
}

fn key_cells(table: u32, row: &[String]) -> Row {
    let keys = if table == PHONE { 2 } else { 1 };
    row.iter().enumerate().map(|(at, cell)| if at < keys { cell.clone() } else { NULL.to_owned() }).collect()
}

fn employee_column(table: u32) -> Option<usize> {
    match table {
        EMPLOYEE | PHONE => Some(0),
        ADDRESS => Some(1),
        _ => None,
    }
}

/// The columns that the record reads.
fn mapped(table: u32) -> &'static [usize] {
    match table {
        ADDRESS | PHONE => &[0, 1, 2],
        _ => &[0, 1],
    }
}

fn cells(row: &[String]) -> Vec<&str> {
    row.iter().map(String::as_str).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut committed = Rows::new();
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Row>();
        for id in 1..=PEOPLE {
            let id = id.to_string();
            committed
                .insert((EMPLOYEE, id.clone()), row(&[&id, "Ada", "", if id == "5" { "t" } else { "f" }]));
            committed.insert((ADDRESS, format!("1{id}")), row(&[&format!("1{id}"), &id, "Road", ""]));
            committed.insert((PHONE, format!("{id}\u{1f}home")), row(&[&id, "home", "1"]));
        }
        for id in ["1", "2"] {
            committed.insert((DEPARTMENT, id.to_owned()), row(&[id, "Tax", ""]));
        }
        let enrolled: BTreeSet<String> = ["1", "2"].map(ToOwned::to_owned).into();
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            feed: Feed::new(&["1", "2"], &["5"], &[(2, "11"), (2, "12")]),
            committed,
            open: Vec::new(),
            locked: BTreeMap::new(),
            full: BTreeSet::new(),
            next_xid: 100,
            next_request: 1,
            queue: Vec::new(),
            requests: BTreeMap::new(),
            expected_enrolled: enrolled.clone(),
            enrolled,
            baseline: ["5".to_owned()].into(),
            owner: [((2, "11".to_owned()), "1".to_owned()), ((2, "12".to_owned()), "2".to_owned())].into(),
            seeded: Vec::new(),
            read: BTreeMap::new(),
            lookup: BTreeMap::new(),
        };
        for id in ["1", "2"] {
            world.deliver(id);
        }
        world.lookup = world.departments();
        world
    }

    fn step(&mut self) {
        match self.rng.gen_range(0..100) {
            0..50 => {
                let mut transaction = self.transaction(false);
                self.feed.begin(transaction.xid);
                for _ in 0..self.rng.gen_range(1..4) {
                    self.write(&mut transaction);
                }
                let commit = self.feed.commit();
                self.ended(&transaction, commit);
            }
            50..75 => self.chunk(),
            75..85 if !self.open.is_empty() => {
                let at = self.rng.gen_range(0..self.open.len());
                let transaction = self.open.remove(at);
                if self.rng.gen_bool(0.6) {
                    let commit = self.feed.stream_commit(transaction.xid);
                    self.ended(&transaction, commit);
                } else {
                    self.feed.stream_abort(transaction.xid, transaction.xid);
                }
                self.locked.retain(|_, xid| *xid != transaction.xid);
            }
            85..88 => self.ddl(),
            88..96 => {
                let count = self.rng.gen_range(0..=self.queue.len());
                self.mark(count);
            }
            _ => {
                if !self.seeded.is_empty() {
                    let (enrolments, rows) = self.seeded.remove(0);
                    self.feed.selector.seeded(enrolments, rows);
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step();
        if step % 20 == 19 {
            world.mark(world.queue.len());
            world.check(seed, step);
        }
    }
}

impl World {
    fn check(&self, seed: u64, step: usize) {
        let at = format!("step {step} of BENEFITS_SYNC_SEED={seed}");
        assert_eq!(self.enrolled, self.expected_enrolled, "{at}: who is enrolled");
        for employee in &self.enrolled {
            assert_eq!(self.read[employee], self.record(employee), "{at}: a change of {employee} was missed");
        }
        assert_eq!(self.lookup, self.departments(), "{at}: a change of a lookup was missed");
    }
}

#[test]
fn no_change_is_missed_and_nobody_is_enrolled_in_vain_in_any_history() {
    if let Ok(seed) = std::env::var("BENEFITS_SYNC_SEED") {
        return run(seed.parse().expect("BENEFITS_SYNC_SEED is a number"));
    }
    let first: u64 = rand::random::<u64>() >> 16;
    for seed in (0..HISTORIES / 2).chain(first..first + HISTORIES / 2) {
        run(seed);
    }
}
