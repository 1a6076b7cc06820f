//! The ledger: what is known of HR at each commit, who is enrolled, who owns which row, and what each was last read as.

use super::*;

impl World {
    /// The record of an employee: every mapped column of every row of theirs.
    pub(super) fn record(&self, employee: &str) -> Vec<Row> {
        let theirs = |table: u32, row: &Row| employee_column(table).is_some_and(|at| row[at] == employee);
        let rows = self.committed.iter().filter(|((table, _), row)| theirs(*table, row));
        rows.map(|((table, _), row)| mapped(*table).iter().map(|at| row[*at].clone()).collect()).collect()
    }

    pub(super) fn departments(&self) -> BTreeMap<String, Row> {
        let rows = self.committed.iter().filter(|((table, _), _)| *table == DEPARTMENT);
        rows.map(|((_, key), row)| (key.clone(), row[..2].to_vec())).collect()
    }

    pub(super) fn deliver(&mut self, employee: &str) {
        let record = self.record(employee);
        self.read.insert(employee.to_owned(), record);
    }

    pub(super) fn ended(&mut self, transaction: &Transaction, commit: Commit) {
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
    pub(super) fn mark(&mut self, count: usize) {
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
