//! HR: what it writes, and what of it the WAL tells.

use super::*;

impl World {
    pub(super) fn transaction(&mut self, streamed: bool) -> Transaction {
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
    pub(super) fn chunk(&mut self) {
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

    pub(super) fn seen(&self, transaction: &Transaction, key: &(u32, String)) -> Option<Row> {
        match transaction.rows.get(key) {
            Some(row) => row.clone(),
            None => self.committed.get(key).cloned(),
        }
    }

    pub(super) fn free(&self, transaction: &Transaction, key: &(u32, String)) -> bool {
        self.locked.get(key).is_none_or(|xid| *xid == transaction.xid)
    }

    pub(super) fn write(&mut self, transaction: &mut Transaction) {
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

    pub(super) fn update(&mut self, table: u32, old: &Row, new: &mut Row) {
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
    pub(super) fn move_key(&mut self, transaction: &mut Transaction, key: (u32, String), old: &Row) {
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

    pub(super) fn wrote(&mut self, transaction: &mut Transaction, key: (u32, String), row: Option<Row>) {
        if transaction.streamed {
            self.locked.insert(key.clone(), transaction.xid);
        }
        transaction.rows.insert(key, row);
    }

    pub(super) fn random_row(&mut self, table: u32) -> Row {
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
    pub(super) fn truncate(&mut self, transaction: &mut Transaction) {
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

    pub(super) fn relation(&mut self, table: u32) {
        let (schema, name, _, columns) = shape(table);
        let identity = if self.full.contains(&table) { b'f' } else { b'd' };
        self.feed.relation(table, (schema, name, identity, columns));
    }

    /// Another replica identity, or a mapped column dropped and added again, which changes rows without a word in the
    /// WAL: whoever reads the records knows of that by other ways.
    pub(super) fn ddl(&mut self) {
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
}
