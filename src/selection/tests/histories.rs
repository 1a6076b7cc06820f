//! Random histories of rows, transactions and DDL, with a model of HR, of the ledger and of what each employee was last
//! read as. After every history each synced employee's last reading must be the record as it is: no missed change.
//!
//! Replay one with `BENEFITS_SYNC_SEED=17 cargo test histories`.

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

    /// The record of an employee: every mapped column of every row of theirs.
    fn record(&self, employee: &str) -> Vec<Row> {
        let theirs = |table: u32, row: &Row| employee_column(table).is_some_and(|at| row[at] == employee);
        let rows = self.committed.iter().filter(|((table, _), row)| theirs(*table, row));
        rows.map(|((table, _), row)| mapped(*table).iter().map(|at| row[*at].clone()).collect()).collect()
    }

    fn departments(&self) -> BTreeMap<String, Row> {
        let rows = self.committed.iter().filter(|((table, _), _)| *table == DEPARTMENT);
        rows.map(|((_, key), row)| (key.clone(), row[..2].to_vec())).collect()
    }

    fn deliver(&mut self, employee: &str) {
        let record = self.record(employee);
        self.read.insert(employee.to_owned(), record);
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

    fn transaction(&mut self, streamed: bool) -> Transaction {
        self.next_xid += 1;
        Transaction {
            xid: self.next_xid,
            streamed,
            rows: BTreeMap::new(),
            truncated: BTreeSet::new(),
            request: None,
            savepoints: Vec::new(),
        }
    }

    /// A chunk of a new or an open streamed transaction, with savepoints that may be rolled back.
    fn chunk(&mut self) {
        let mut transaction = match self.open.len() {
            0 => self.transaction(true),
            count if count < 3 && self.rng.gen_bool(0.3) => self.transaction(true),
            count => {
                let at = self.rng.gen_range(0..count);
                self.open.remove(at)
            }
        };
        self.feed.chunk(transaction.xid);
        // PostgreSQL repeats the shapes for every streamed transaction.
        for table in [EMPLOYEE, ADDRESS, PHONE, DEPARTMENT] {
            self.relation(table);
        }
        for _ in 0..self.rng.gen_range(1..6) {
            if self.rng.gen_bool(0.3) {
                self.next_xid += 1;
                transaction.savepoints.push((self.next_xid, transaction.rows.clone()));
            }
            self.feed.writer = Some(transaction.savepoints.last().map_or(transaction.xid, |(xid, _)| *xid));
            self.write(&mut transaction);
        }
        self.feed.chunk_ends();
        while !transaction.savepoints.is_empty() && self.rng.gen_bool(0.5) {
            let (xid, rows) = transaction.savepoints.pop().unwrap();
            if self.rng.gen_bool(0.5) {
                // Released savepoints inside of it roll back with it: here each is rolled back by itself.
                self.feed.stream_abort(transaction.xid, xid);
                transaction.rows = rows;
            } else if let Some((_, before)) = transaction.savepoints.last() {
                // Released: it belongs to the savepoint around it, whose rollback PostgreSQL tells for both.
                let _ = before;
                transaction.savepoints.push((xid, rows));
                break;
            } else {
                break;
            }
        }
        self.open.push(transaction);
    }

    fn seen(&self, transaction: &Transaction, key: &(u32, String)) -> Option<Row> {
        match transaction.rows.get(key) {
            Some(row) => row.clone(),
            None => self.committed.get(key).cloned(),
        }
    }

    fn free(&self, transaction: &Transaction, key: &(u32, String)) -> bool {
        self.locked.get(key).is_none_or(|xid| *xid == transaction.xid)
    }

    fn write(&mut self, transaction: &mut Transaction) {
        if !transaction.streamed && self.rng.gen_bool(0.04) {
            return self.truncate(transaction);
        }
        if transaction.savepoints.is_empty() && transaction.request.is_none() && self.rng.gen_bool(0.04) {
            let employee = self.rng.gen_range(3..=4).to_string();
            let request = self.next_request.to_string();
            self.next_request += 1;
            self.feed.insert(REQUEST, &[&request, &employee, "sync"]);
            self.requests.insert(request.parse().unwrap(), employee.clone());
            transaction.request = Some(employee);
            return;
        }
        let table = *[EMPLOYEE, ADDRESS, ADDRESS, PHONE, DEPARTMENT].choose(&mut self.rng).unwrap();
        let mut new = self.random_row(table);
        let key = (table, key_of(table, &new));
        if !self.free(transaction, &key) {
            return;
        }
        let old = self.seen(transaction, &key);
        match &old {
            None => self.feed.insert(table, &cells(&new)),
            // The root's rows stay but now and then.
            Some(row) if self.rng.gen_bool(if table == EMPLOYEE { 0.03 } else { 0.2 }) => {
                if self.full.contains(&table) {
                    self.feed.delete_full(table, &cells(row));
                } else {
                    self.feed.delete(table, &cells(&key_cells(table, row)));
                }
                return self.wrote(transaction, key, None);
            }
            Some(row) if table == ADDRESS && self.rng.gen_bool(0.1) => {
                return self.move_key(transaction, key, &row.clone());
            }
            Some(row) => self.update(table, row, &mut new),
        }
        self.wrote(transaction, key, Some(new));
    }

    fn update(&mut self, table: u32, old: &Row, new: &mut Row) {
        // Only some of the columns change.
        for at in 1..new.len() {
            if self.rng.gen_bool(0.5) {
                new[at].clone_from(&old[at]);
            }
        }
        let mut sent = new.clone();
        if table == ADDRESS && new[2] == old[2] && self.rng.gen_bool(0.4) {
            SAME.clone_into(&mut sent[2]);
        }
        if self.full.contains(&table) {
            self.feed.update_full(table, &cells(old), &cells(&sent));
        } else {
            self.feed.update(table, &cells(&sent));
        }
    }

    /// An address gets another id.
    fn move_key(&mut self, transaction: &mut Transaction, key: (u32, String), old: &Row) {
        let mut new = old.clone();
        new[0] = self.rng.gen_range(30..40).to_string();
        let to = (ADDRESS, new[0].clone());
        if !self.free(transaction, &to) || self.seen(transaction, &to).is_some() {
            return;
        }
        if self.full.contains(&ADDRESS) {
            self.feed.update_full(ADDRESS, &cells(old), &cells(&new));
        } else {
            self.feed.update_key(ADDRESS, &cells(&key_cells(ADDRESS, old)), &cells(&new));
        }
        self.wrote(transaction, key, None);
        self.wrote(transaction, to, Some(new));
    }

    fn wrote(&mut self, transaction: &mut Transaction, key: (u32, String), row: Option<Row>) {
        if transaction.streamed {
            self.locked.insert(key.clone(), transaction.xid);
        }
        transaction.rows.insert(key, row);
    }

    fn random_row(&mut self, table: u32) -> Row {
        let mut pick = |from: &[&str]| (*from.choose(&mut self.rng).unwrap()).to_owned();
        let people = ["1", "2", "3", "4", "5", "6"];
        match table {
            EMPLOYEE => vec![pick(&people), pick(&["Ada", "Bea"]), pick(&["", "x"]), pick(&["f", "f", "t"])],
            ADDRESS => vec![
                pick(&["11", "12", "13", "14", "15", "16", "17", "31"]),
                pick(&["1", "2", "3", "4", "5", "6", NULL]),
                pick(&["Road", "Lane"]),
                pick(&["", "x"]),
            ],
            PHONE => vec![pick(&people), pick(&["home", "mobile"]), pick(&["1", "2"])],
            _ => vec![pick(&["1", "2", "3"]), pick(&["Tax", "Law"]), pick(&["", "x"])],
        }
    }

    /// Takes an exclusive lock, so nobody else may have written to the table.
    fn truncate(&mut self, transaction: &mut Transaction) {
        let table = *[ADDRESS, PHONE, DEPARTMENT].choose(&mut self.rng).unwrap();
        if self.locked.keys().any(|(locked, _)| *locked == table) {
            return;
        }
        self.feed.truncate(table);
        transaction.truncated.insert(table);
        let keys: Vec<_> = self.committed.keys().chain(transaction.rows.keys()).cloned().collect();
        for key in keys.into_iter().filter(|(of, _)| *of == table) {
            transaction.rows.insert(key, None);
        }
    }

    fn relation(&mut self, table: u32) {
        let (schema, name, _, columns) = shape(table);
        let identity = if self.full.contains(&table) { b'f' } else { b'd' };
        self.feed.relation(table, (schema, name, identity, columns));
    }

    /// Another replica identity, or a mapped column dropped and added again, which changes rows without a word in the
    /// WAL: whoever reads the records knows of that by other ways.
    fn ddl(&mut self) {
        let table = *[EMPLOYEE, ADDRESS, PHONE, DEPARTMENT].choose(&mut self.rng).unwrap();
        if self.locked.keys().any(|(locked, _)| *locked == table) {
            return;
        }
        if self.rng.gen_bool(0.6) {
            if !self.full.remove(&table) {
                self.full.insert(table);
            }
        } else {
            let last = if table == PHONE || table == ADDRESS { 2 } else { 1 };
            for (_, row) in self.committed.iter_mut().filter(|((of, _), _)| *of == table) {
                NULL.clone_into(&mut row[last]);
            }
            for employee in self.enrolled.clone() {
                self.deliver(&employee);
            }
            self.lookup = self.departments();
        }
        self.relation(table);
    }

    fn ended(&mut self, transaction: &Transaction, commit: Commit) {
        for (key, row) in &transaction.rows {
            match row {
                Some(row) => self.committed.insert(key.clone(), row.clone()),
                None => self.committed.remove(key),
            };
        }
        for ((table, id), row) in &transaction.rows {
            if *table != EMPLOYEE || self.expected_enrolled.contains(id) {
                continue;
            }
            let up = row.as_ref().is_some_and(|row| row[3] == "t");
            if !up {
                self.baseline.remove(id);
            } else if !self.baseline.contains(id) {
                self.expected_enrolled.insert(id.clone());
            }
        }
        self.expected_enrolled.extend(transaction.request.clone());
        self.queue.push(commit);
    }

    /// The marker takes so many commits: in order, and later than they were made. What it reads of HR is HR as it is now.
    fn mark(&mut self, count: usize) {
        for commit in self.queue.drain(..count).collect::<Vec<_>>() {
            let Some(touches) = &commit.touches else { continue };
            let mut due = BTreeSet::new();
            for (source, row) in &touches.orphaned {
                due.extend(self.owner.remove(&(*source, row.to_string())));
            }
            let mut new = BTreeSet::new();
            new.extend(touches.requests.iter().map(|request| self.requests[request].clone()));
            new.extend(touches.employees().filter(|(_, m)| *m == Mark::Starter).map(|(id, _)| id.to_owned()));
            self.enrolled.extend(new.clone());
            let mut rows = Vec::new();
            for ((_, key), row) in self.committed.iter().filter(|((table, _), _)| *table == ADDRESS) {
                if new.contains(&row[1]) || touches.newcomers.contains(row[1].as_str()) {
                    due.extend(self.owner.insert((2, key.clone()), row[1].clone()));
                    rows.push(self.feed.selector.hasher().row(2, key.as_bytes()));
                }
            }
            if touches.enrols() {
                self.seeded.push((commit.enrolments, rows));
            }
            due.extend(new);
            due.extend(touches.employees().map(|(id, _)| id.to_owned()));
            for (source, row, employee) in touches.owned().filter(|(_, _, id)| self.enrolled.contains(*id)) {
                due.extend(self.owner.insert((source, row.to_owned()), employee.to_owned()));
            }
            if touches.everyone {
                due.extend(self.enrolled.clone());
                self.lookup = self.departments();
            }
            for (_, key) in &touches.lookups {
                match self.departments().get(key.as_ref()) {
                    Some(row) => self.lookup.insert(key.to_string(), row.clone()),
                    None => self.lookup.remove(key.as_ref()),
                };
            }
            for employee in due.into_iter().filter(|id| self.enrolled.contains(id)).collect::<Vec<_>>() {
                self.deliver(&employee);
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
