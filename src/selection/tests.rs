//! The selector fed with encoded messages, as a server would send them. `histories` holds it against a model.

mod histories;

use super::*;
use crate::lsn::Lsn;
use crate::pgoutput;

pub(super) const EMPLOYEE: u32 = 1;
pub(super) const ADDRESS: u32 = 2;
pub(super) const DEPARTMENT: u32 = 3;
pub(super) const PHONE: u32 = 4;
pub(super) const CARD: u32 = 5;
pub(super) const OTHER: u32 = 6;
pub(super) const REQUEST: u32 = 7;

/// A cell that is null.
pub(super) const NULL: &str = "\0null";
/// A cell whose out-of-line value the WAL does not have.
pub(super) const SAME: &str = "\0same";

/// A table as the server describes it: schema, name, identity, columns with type and key flag.
pub(super) type Shape = (&'static str, &'static str, u8, &'static [(&'static str, u32, bool)]);

const TEXT: u32 = 25;
const BPCHAR: u32 = 1042;

pub(super) fn shape(table: u32) -> Shape {
    match table {
        EMPLOYEE => (
            "hr",
            "employee",
            b'd',
            &[("id", 20, true), ("name", TEXT, false), ("note", TEXT, false), ("starter", 16, false)],
        ),
        ADDRESS => (
            "hr",
            "address",
            b'd',
            &[("id", 20, true), ("employee_id", 20, false), ("line", TEXT, false), ("junk", TEXT, false)],
        ),
        DEPARTMENT => {
            ("hr", "department", b'd', &[("id", 23, true), ("name", TEXT, false), ("cost", TEXT, false)])
        }
        PHONE => (
            "hr",
            "phone",
            b'd',
            &[("employee_id", BPCHAR, true), ("kind", TEXT, true), ("number", TEXT, false)],
        ),
        CARD => ("hr", "card", b'd', &[("id", 20, true), ("employee_id", 20, false), ("face", TEXT, false)]),
        REQUEST => (
            "benefits",
            "request",
            b'd',
            &[("request_id", 20, true), ("employee_id", TEXT, false), ("kind", TEXT, false)],
        ),
        _ => ("hr", "audit", b'd', &[("id", 20, true), ("entry", TEXT, false)]),
    }
}

fn source(id: SourceId, table: u32, employee: Option<&str>, mapped: &[&str]) -> Source {
    let (schema, name, _, columns) = shape(table);
    let key: Vec<String> =
        columns.iter().filter(|(_, _, key)| *key).map(|(name, _, _)| (*name).to_owned()).collect();
    Source {
        id,
        schema: schema.to_owned(),
        table: name.to_owned(),
        employee_key: employee.map(ToOwned::to_owned),
        starter_flag: (table == EMPLOYEE).then(|| "starter".to_owned()),
        mapped: mapped.iter().map(|name| (*name).to_owned()).collect(),
        root: employee.is_some_and(|column| key == [column]),
        key,
        tracked: table != CARD,
    }
}

pub(super) fn description() -> Description {
    Description {
        sources: vec![
            source(1, EMPLOYEE, Some("id"), &["id", "name"]),
            source(2, ADDRESS, Some("employee_id"), &["id", "employee_id", "line"]),
            source(3, DEPARTMENT, None, &["name"]),
            source(4, PHONE, Some("employee_id"), &["employee_id", "kind", "number"]),
            source(5, CARD, Some("employee_id"), &["employee_id", "face"]),
        ],
    }
}

/// A selector, and a server that encodes for it.
pub(super) struct Feed {
    pub(super) selector: Selector,
    /// In a streamed chunk: the (sub)transaction that writes.
    pub(super) writer: Option<u32>,
    lsn: u64,
}

impl Feed {
    pub(super) fn new(synced: &[&str], baseline: &[&str], owned: &[(SourceId, &str)]) -> Self {
        let hasher = KeyHasher::with_key([7; 16]);
        let mut members = Members::with_capacity(synced.len());
        for id in synced {
            members.enrol(hasher.employee(id.as_bytes()));
        }
        for id in baseline {
            members.set_baseline(hasher.employee(id.as_bytes()));
        }
        let mut filter = RowFilter::with_capacity(100);
        for (source, row) in owned {
            filter.insert(hasher.row(*source, row.as_bytes()));
        }
        let selector = Selector::new(description(), hasher, members, filter, 1_000);
        let mut feed = Self { selector, writer: None, lsn: 100 };
        for table in [EMPLOYEE, ADDRESS, DEPARTMENT, PHONE, CARD, OTHER, REQUEST] {
            feed.relation(table, shape(table));
        }
        feed
    }

    pub(super) fn try_send(&mut self, payload: &[u8]) -> Result<Option<Commit>, SelectionError> {
        let decoded = pgoutput::decode(payload, self.selector.in_chunk()).unwrap();
        self.selector.accept(&decoded)
    }

    fn send(&mut self, payload: &[u8]) -> Option<Commit> {
        self.try_send(payload).unwrap()
    }

    fn change(&mut self, tag: u8, table: u32, parts: &[(u8, &[&str])]) {
        let mut out = vec![tag];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(table.to_be_bytes());
        for (kind, cells) in parts {
            out.push(*kind);
            out.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
            for cell in *cells {
                match *cell {
                    NULL => out.push(b'n'),
                    SAME => out.push(b'u'),
                    text => {
                        out.push(b't');
                        out.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                        out.extend(text.as_bytes());
                    }
                }
            }
        }
        assert!(self.send(&out).is_none());
    }

    pub(super) fn relation(&mut self, oid: u32, (schema, name, identity, columns): Shape) {
        let mut out = vec![b'R'];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(oid.to_be_bytes());
        for name in [schema, name] {
            out.extend(name.as_bytes());
            out.push(0);
        }
        out.push(identity);
        out.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
        for (name, kind, key) in columns {
            out.push(u8::from(*key));
            out.extend(name.as_bytes());
            out.push(0);
            out.extend(kind.to_be_bytes());
            out.extend((-1_i32).to_be_bytes());
        }
        assert!(self.send(&out).is_none());
    }

    pub(super) fn begin(&mut self, xid: u32) {
        let mut out = vec![b'B'];
        out.extend([0; 16]);
        out.extend(xid.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    fn end(&mut self, mut out: Vec<u8>) -> Commit {
        self.lsn += 8;
        out.push(0);
        out.extend((self.lsn - 1).to_be_bytes());
        out.extend(self.lsn.to_be_bytes());
        out.extend([0; 8]);
        self.send(&out).expect("a commit")
    }

    pub(super) fn commit(&mut self) -> Commit {
        self.end(vec![b'C'])
    }

    /// A chunk of the streamed transaction `xid` begins.
    pub(super) fn chunk(&mut self, xid: u32) {
        let mut out = vec![b'S'];
        out.extend(xid.to_be_bytes());
        out.push(0);
        assert!(self.send(&out).is_none());
        self.writer = Some(xid);
    }

    pub(super) fn chunk_ends(&mut self) {
        assert!(self.send(b"E").is_none());
        self.writer = None;
    }

    pub(super) fn stream_commit(&mut self, xid: u32) -> Commit {
        let mut out = vec![b'c'];
        out.extend(xid.to_be_bytes());
        self.end(out)
    }

    pub(super) fn stream_abort(&mut self, xid: u32, subxid: u32) {
        let mut out = vec![b'A'];
        out.extend(xid.to_be_bytes());
        out.extend(subxid.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    pub(super) fn insert(&mut self, table: u32, new: &[&str]) {
        self.change(b'I', table, &[(b'N', new)]);
    }

    pub(super) fn update(&mut self, table: u32, new: &[&str]) {
        self.change(b'U', table, &[(b'N', new)]);
    }

    pub(super) fn update_key(&mut self, table: u32, old: &[&str], new: &[&str]) {
        self.change(b'U', table, &[(b'K', old), (b'N', new)]);
    }

    pub(super) fn update_full(&mut self, table: u32, old: &[&str], new: &[&str]) {
        self.change(b'U', table, &[(b'O', old), (b'N', new)]);
    }

    pub(super) fn delete(&mut self, table: u32, key: &[&str]) {
        self.change(b'D', table, &[(b'K', key)]);
    }

    pub(super) fn delete_full(&mut self, table: u32, old: &[&str]) {
        self.change(b'D', table, &[(b'O', old)]);
    }

    pub(super) fn truncate(&mut self, table: u32) {
        let mut out = vec![b'T'];
        if let Some(xid) = self.writer {
            out.extend(xid.to_be_bytes());
        }
        out.extend(1_u32.to_be_bytes());
        out.push(0);
        out.extend(table.to_be_bytes());
        assert!(self.send(&out).is_none());
    }

    /// A transaction of its own.
    fn whole(&mut self, write: impl FnOnce(&mut Self)) -> Touched {
        self.begin(1);
        write(self);
        Touched::of(&self.commit())
    }
}

/// A commit's touches, owned and sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) marked: Vec<(String, Mark)>,
    pub(super) owned: Vec<(SourceId, String, String)>,
    pub(super) orphaned: Vec<(SourceId, String)>,
    pub(super) lookups: Vec<(SourceId, String)>,
    pub(super) everyone: bool,
}

impl Touched {
    pub(super) fn of(commit: &Commit) -> Self {
        let Some(touches) = &commit.touches else { return Self::default() };
        let keys = |set: &std::collections::BTreeSet<(SourceId, Box<str>)>| {
            set.iter().map(|(source, key)| (*source, key.to_string())).collect()
        };
        let mut this = Self {
            marked: touches.employees().map(|(id, mark)| (id.to_owned(), mark)).collect(),
            owned: touches.owned().map(|(s, row, id)| (s, row.to_owned(), id.to_owned())).collect(),
            orphaned: keys(&touches.orphaned),
            lookups: keys(&touches.lookups),
            everyone: touches.everyone,
        };
        this.marked.sort();
        this.owned.sort();
        this
    }

    fn ids(&self) -> Vec<&str> {
        self.marked.iter().map(|(id, _)| id.as_str()).collect()
    }
}

fn changes(ids: &[&str]) -> Vec<(String, Mark)> {
    ids.iter().map(|id| ((*id).to_owned(), Mark::Change)).collect()
}

#[test]
fn a_change_of_a_synced_employee_marks_and_one_of_anybody_else_does_not() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let touched = feed.whole(|f| {
        f.update(EMPLOYEE, &["1", "Ada", "", "f"]);
        f.update(EMPLOYEE, &["2", "Bob", "", "f"]);
        f.update(ADDRESS, &["9", "2", "Road", ""]);
        f.insert(OTHER, &["1", "Ada"]);
    });
    assert_eq!(touched.marked, changes(&["1"]));
    let decisions = feed.selector.take_decisions();
    assert_eq!((decisions.marked, decisions.not_synced, decisions.other_table), (1, 2, 1));
    assert_eq!(feed.selector.take_decisions(), Decisions::default());
}

#[test]
fn an_unknown_row_counts_as_changed_and_a_known_one_by_its_mapped_columns() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "a", "f"])).ids(), ["1"]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "b", "f"])), Touched::default());
    assert_eq!(feed.selector.take_decisions().unchanged, 1);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Eve", "b", "f"])).ids(), ["1"]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", NULL, "b", "f"])).ids(), ["1"]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "", "b", "f"])).ids(), ["1"], "null is not empty");
}

#[test]
fn a_value_that_goes_there_and_back_is_a_change_both_times() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    for name in ["A", "B", "A"] {
        assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", name, "", "f"])).ids(), ["1"], "{name}");
    }
}

#[test]
fn an_unchanged_out_of_line_value_is_not_taken_for_a_change_twice() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.update(EMPLOYEE, &["1", "long", "a", "f"]));
    feed.whole(|f| f.update(EMPLOYEE, &["1", SAME, "b", "f"]));
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", SAME, "c", "f"])), Touched::default());
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "longer", "c", "f"])).ids(), ["1"]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "long", "c", "f"])).ids(), ["1"]);
}

#[test]
fn every_save_of_a_failed_employee_is_let_through() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"]));
    let failed = feed.selector.hasher().employee(b"1");
    feed.selector.members_mut().fail(failed);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"])).ids(), ["1"]);
    feed.selector.members_mut().mend(failed);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"])), Touched::default());
}

fn starters(touched: &Touched) -> Vec<&str> {
    touched.marked.iter().filter(|(_, mark)| *mark == Mark::Starter).map(|(id, _)| id.as_str()).collect()
}

#[test]
fn a_raised_starter_flag_enrols_in_every_spelling_of_yes() {
    for yes in ["t", "true", "TRUE", "1", "y", "Y", "yes", "Yes  "] {
        let mut feed = Feed::new(&[], &[], &[]);
        assert_eq!(starters(&feed.whole(|f| f.insert(EMPLOYEE, &["5", "Eve", "", yes]))), ["5"], "{yes}");
        assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["5", "Ev", "", yes])).ids(), ["5"], "a member now");
    }
    for no in ["f", "false", "0", "n", "no", "", NULL, "yesterday"] {
        let mut feed = Feed::new(&[], &[], &[]);
        let touched = feed.whole(|f| f.insert(EMPLOYEE, &["5", "Eve", "", no]));
        assert_eq!(starters(&touched), Vec::<&str>::new(), "{no}");
    }
}

#[test]
fn a_flag_of_the_baseline_is_no_starter_until_it_was_down() {
    let mut feed = Feed::new(&[], &["5"], &[]);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["5", "Eve", "", "t"])), Touched::default());
    feed.begin(1);
    feed.update(EMPLOYEE, &["5", "Eve", "", "f"]);
    let commit = feed.commit();
    let lowered = &commit.touches.as_ref().unwrap().flag_lowered;
    assert!(lowered.iter().map(AsRef::as_ref).eq(["5"]));
    assert_eq!(starters(&feed.whole(|f| f.update(EMPLOYEE, &["5", "Eve", "", "t"]))), ["5"]);
}

#[test]
fn what_counts_of_a_flag_is_how_the_transaction_leaves_it() {
    let mut feed = Feed::new(&[], &["5"], &[]);
    let up_and_down = feed.whole(|f| {
        f.update(EMPLOYEE, &["6", "Eve", "", "t"]);
        f.update(EMPLOYEE, &["6", "Eve", "", "f"]);
        f.insert(EMPLOYEE, &["7", "Eve", "", "t"]);
        f.delete(EMPLOYEE, &["7", NULL, NULL, NULL]);
    });
    assert_eq!(starters(&up_and_down), Vec::<&str>::new());
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["6", "x", "", "f"])), Touched::default(), "no member");
    let down_and_up = feed.whole(|f| {
        f.update(EMPLOYEE, &["5", "Eve", "", "f"]);
        f.update(EMPLOYEE, &["5", "Eve", "", "t"]);
    });
    assert_eq!(down_and_up, Touched::default());
    assert_eq!(
        feed.whole(|f| f.update(EMPLOYEE, &["5", "x", "", "t"])),
        Touched::default(),
        "still baseline"
    );
}

#[test]
fn a_deleted_or_passed_on_child_row_is_followed_by_its_own_key() {
    let mut feed = Feed::new(&["1"], &[], &[(2, "10"), (2, "11"), (2, "12")]);
    let touched = feed.whole(|f| {
        f.delete(ADDRESS, &["10", NULL, NULL, NULL]);
        f.update(ADDRESS, &["11", "2", "Road", ""]);
        f.update(ADDRESS, &["12", NULL, "Road", ""]);
        f.delete(ADDRESS, &["99", NULL, NULL, NULL]);
    });
    assert_eq!(touched.orphaned, [(2, "10".into()), (2, "11".into()), (2, "12".into())]);
}

#[test]
fn a_row_between_two_members_is_owned_by_the_second() {
    let mut feed = Feed::new(&["1", "2"], &[], &[(2, "10")]);
    let touched = feed.whole(|f| f.update(ADDRESS, &["10", "2", "Road", ""]));
    assert_eq!((touched.ids(), touched.owned.len()), (vec!["2"], 1), "the ledger tells whom it left");
    assert_eq!(touched.owned, [(2, "10".into(), "2".into())]);
}

#[test]
fn a_row_that_comes_back_within_a_transaction_keeps_its_owner() {
    let mut feed = Feed::new(&["1"], &[], &[(2, "10")]);
    for leave in [0, 1] {
        let touched = feed.whole(|f| {
            match leave {
                0 => f.update(ADDRESS, &["10", "2", "Road", ""]),
                _ => f.delete(ADDRESS, &["10", NULL, NULL, NULL]),
            }
            f.update(ADDRESS, &["10", "1", "Road", ""]);
        });
        assert_eq!(touched.owned, [(2, "10".into(), "1".into())]);
        assert_eq!(touched.orphaned, [], "or the ledger would forget whose it is");
    }
}

#[test]
fn while_child_rows_are_being_read_every_row_of_unknown_owner_is_asked_for() {
    let mut feed = Feed::new(&[], &[], &[]);
    feed.whole(|f| f.insert(REQUEST, &["77", "3", "sync"]));
    let delete = |f: &mut Feed| f.delete(ADDRESS, &["99", NULL, NULL, NULL]);
    assert_eq!(feed.whole(delete).orphaned, [(2, "99".to_owned())]);
    feed.selector.seeded(1, []);
    assert_eq!(feed.whole(delete).orphaned, []);
}

#[test]
fn with_full_replica_identity_the_old_row_decides() {
    let mut feed = Feed::new(&["1", "2"], &[], &[]);
    feed.relation(ADDRESS, ("hr", "address", b'f', shape(ADDRESS).3));
    let full = feed.whole(|f| f.update_full(ADDRESS, &["10", "1", "Road", "a"], &["10", "1", "Road", "b"]));
    assert_eq!(full, Touched::default());
    let toast = feed.whole(|f| f.update_full(ADDRESS, &["10", "1", "long", "a"], &["10", "1", SAME, "b"]));
    assert_eq!(toast, Touched::default());
    let moved = feed.whole(|f| f.update_full(ADDRESS, &["10", "1", "Road", ""], &["10", "2", "Road", ""]));
    assert_eq!(moved.ids(), ["1", "2"]);
    assert_eq!(
        feed.whole(|f| f.update_full(ADDRESS, &["10", "2", "", ""], &["10", "3", "", ""])).ids(),
        ["2"]
    );
    assert_eq!(feed.whole(|f| f.delete_full(ADDRESS, &["11", "1", "", ""])).ids(), ["1"]);
}

#[test]
fn what_was_seen_before_the_replica_identity_changed_is_not_relied_on() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let set = |line: &'static str| move |f: &mut Feed| f.update(ADDRESS, &["10", "1", line, ""]);
    feed.whole(set("A"));
    feed.relation(ADDRESS, ("hr", "address", b'f', shape(ADDRESS).3));
    feed.whole(|f| f.update_full(ADDRESS, &["10", "1", "A", ""], &["10", "1", "B", ""]));
    feed.relation(ADDRESS, shape(ADDRESS));
    assert_eq!(feed.whole(set("A")).ids(), ["1"]);
}

#[test]
fn a_row_key_that_holds_the_employee_says_whom_the_row_left() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let touched = feed.whole(|f| {
        f.update_key(PHONE, &["1   ", "home", NULL], &["2   ", "home", "123"]);
    });
    assert_eq!((touched.ids(), touched.orphaned.len()), (vec!["1"], 0));
    assert_eq!(feed.whole(|f| f.delete(PHONE, &["1   ", "home", NULL])).ids(), ["1"]);
    assert_eq!(feed.whole(|f| f.delete(PHONE, &["2   ", "home", NULL])), Touched::default());
}

#[test]
fn a_padded_employee_id_is_the_same_employee() {
    let mut feed = Feed::new(&["E1", "E 2"], &[], &[]);
    assert_eq!(feed.whole(|f| f.insert(PHONE, &["E1     ", "home", "1"])).ids(), ["E1"]);
    assert_eq!(feed.whole(|f| f.insert(PHONE, &["E 2    ", "home", "1"])).ids(), ["E 2"]);
}

#[test]
fn an_untracked_row_that_comes_back_counts_as_changed() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.update(CARD, &["10", "1", "smile"]));
    assert_eq!(feed.whole(|f| f.update(CARD, &["10", "2", "smile"])), Touched::default());
    assert_eq!(feed.whole(|f| f.update(CARD, &["10", "1", "smile"])).ids(), ["1"]);
}

#[test]
fn a_changed_row_key_orphans_the_old_row() {
    let mut feed = Feed::new(&["1"], &[], &[(2, "10")]);
    let touched = feed.whole(|f| {
        f.update_key(ADDRESS, &["10", NULL, NULL, NULL], &["20", "1", "Road", ""]);
    });
    assert_eq!(touched.orphaned, [(2, "10".into())]);
    assert_eq!(touched.owned, [(2, "20".into(), "1".into())]);
}

#[test]
fn a_new_employee_id_is_a_hire_and_a_departure() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.begin(1);
    feed.update_key(EMPLOYEE, &["1", NULL, NULL, NULL], &["8", "Ada", "", "f"]);
    feed.insert(EMPLOYEE, &["9", "Bob", "", "f"]);
    feed.delete(EMPLOYEE, &["9", NULL, NULL, NULL]);
    let touches = feed.commit().touches.unwrap();
    assert!(touches.gone.iter().map(AsRef::as_ref).eq(["1", "9"]), "{:?}", touches.gone);
    assert!(touches.hired.iter().map(AsRef::as_ref).eq(["8"]), "{:?}", touches.hired);
}

#[test]
fn a_lookup_names_its_changed_rows_and_not_the_unchanged() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let row =
        |name: &'static str, cost: &'static str| move |f: &mut Feed| f.update(DEPARTMENT, &["3", name, cost]);
    assert_eq!(feed.whole(row("Tax", "1")).lookups, [(3, "3".into())]);
    assert_eq!(feed.whole(row("Tax", "2")), Touched::default());
    assert_eq!(feed.whole(row("Law", "2")).lookups, [(3, "3".into())]);
    assert_eq!(feed.whole(|f| f.delete(DEPARTMENT, &["3", NULL, NULL])).lookups, [(3, "3".into())]);
    assert_eq!(feed.whole(|f| f.insert(DEPARTMENT, &["3", "Law", "2"])).lookups, [(3, "3".into())]);
    let moved = feed.whole(|f| f.update_key(DEPARTMENT, &["3", NULL, NULL], &["4", "Law", "2"]));
    assert_eq!(moved.lookups, [(3, "3".into()), (3, "4".into())]);
}

#[test]
fn a_truncate_touches_everyone_and_forgets_what_was_seen() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.insert(DEPARTMENT, &["3", "Tax", ""]));
    assert!(feed.whole(|f| f.truncate(DEPARTMENT)).everyone);
    assert_eq!(feed.whole(|f| f.insert(DEPARTMENT, &["3", "Tax", ""])).lookups, [(3, "3".into())]);
    assert!(feed.whole(|f| f.truncate(ADDRESS)).everyone);
    assert_eq!(feed.whole(|f| f.truncate(OTHER)), Touched::default());
    feed.begin(1);
    feed.truncate(EMPLOYEE);
    let touches = feed.commit().touches.unwrap();
    assert!(touches.everyone && touches.roster);
}

#[test]
fn an_aborted_streamed_transaction_is_forgotten_and_remembers_nothing() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.update(EMPLOYEE, &["1", "A", "", "f"]));
    feed.chunk(50);
    feed.update(EMPLOYEE, &["1", "B", "", "f"]);
    feed.insert(REQUEST, &["77", "5", "sync"]);
    feed.update(EMPLOYEE, &["6", "Eve", "", "t"]);
    feed.chunk_ends();
    feed.stream_abort(50, 50);
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "B", "", "f"])).ids(), ["1"], "not seen before");
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["6", "Eve", "", "f"])), Touched::default(), "no member");
    let raised = feed.whole(|f| f.update(EMPLOYEE, &["5", "Dan", "", "t"]));
    assert_eq!(starters(&raised), ["5"], "the aborted command has not made a member");
}

#[test]
fn streamed_marks_come_with_the_commit_whatever_is_interleaved() {
    let mut feed = Feed::new(&["1", "2", "3"], &[], &[]);
    feed.chunk(50);
    feed.update(EMPLOYEE, &["1", "A", "", "f"]);
    feed.chunk_ends();
    feed.chunk(60);
    feed.update(EMPLOYEE, &["2", "A", "", "f"]);
    feed.chunk_ends();
    assert!(feed.selector.is_between_transactions());
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["3", "A", "", "f"])).ids(), ["3"]);
    feed.chunk(50);
    feed.update(ADDRESS, &["10", "1", "Road", ""]);
    feed.chunk_ends();
    let commit = feed.stream_commit(60);
    assert_eq!((commit.xid, Touched::of(&commit).ids()), (60, vec!["2"]));
    assert_eq!(Touched::of(&feed.stream_commit(50)).ids(), ["1"]);
}

#[test]
fn who_is_enrolled_while_a_streamed_transaction_is_open_is_marked_by_it() {
    let mut feed = Feed::new(&[], &[], &[]);
    feed.chunk(50);
    feed.update(ADDRESS, &["10", "5", "Road", ""]);
    feed.chunk_ends();
    feed.whole(|f| f.insert(REQUEST, &["77", "5", "sync"]));
    feed.selector.seeded(1, []);
    let commit = feed.stream_commit(50);
    let touches = commit.touches.as_ref().unwrap();
    assert!(touches.newcomers.iter().map(AsRef::as_ref).eq(["5"]));
    assert_eq!(Touched::of(&commit).ids(), ["5"]);
    assert_eq!((touches.enrols(), commit.enrolments), (true, 2), "their rows have to be read again");
}

#[test]
fn deeds_of_a_rolled_back_subtransaction_are_undone() {
    let mut feed = Feed::new(&["1", "2"], &["7"], &[(2, "10"), (2, "11")]);
    feed.chunk(50);
    feed.writer = Some(51);
    feed.update(EMPLOYEE, &["6", "Eve", "", "t"]);
    feed.update(EMPLOYEE, &["7", "Fay", "", "f"]);
    feed.insert(EMPLOYEE, &["8", "Gus", "", "f"]);
    feed.delete(EMPLOYEE, &["2", NULL, NULL, NULL]);
    feed.insert(REQUEST, &["77", "5", "sync"]);
    feed.delete(ADDRESS, &["10", NULL, NULL, NULL]);
    feed.update(ADDRESS, &["11", "2", "Road", ""]);
    feed.writer = Some(52);
    feed.delete(ADDRESS, &["11", NULL, NULL, NULL]);
    feed.chunk_ends();
    feed.stream_abort(50, 51);
    let commit = feed.stream_commit(50);
    let touches = commit.touches.as_ref().unwrap();
    assert!(touches.hired.is_empty() && touches.gone.is_empty() && touches.flag_lowered.is_empty());
    assert!(touches.requests.is_empty());
    let seen = Touched::of(&commit);
    assert_eq!(starters(&seen), Vec::<&str>::new(), "nobody is enrolled by what never was");
    assert_eq!((seen.owned, seen.orphaned), (vec![], vec![(2, "11".to_owned())]));
    assert_eq!(
        feed.whole(|f| f.update(EMPLOYEE, &["7", "Fay", "", "t"])),
        Touched::default(),
        "baseline still"
    );
    assert_eq!(starters(&feed.whole(|f| f.update(EMPLOYEE, &["6", "Eve", "", "t"]))), ["6"]);
}

#[test]
fn moved_columns_are_found_again_by_their_names() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let columns = &[("note", TEXT, false), ("name", TEXT, false), ("id", 20, true), ("starter", 16, false)];
    feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "x", "f"]));
    feed.relation(EMPLOYEE, ("hr", "employee", b'd', columns));
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["x", "Ada", "1", "f"])).ids(), ["1"], "after DDL unknown");
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["y", "Ada", "1", "f"])), Touched::default());
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["y", "Bea", "1", "f"])).ids(), ["1"]);
}

#[test]
fn what_was_seen_before_ddl_is_not_relied_on_though_the_shape_is_the_same() {
    // drop column name, add column name: the rows lost their values without a word in the WAL.
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"]));
    feed.relation(EMPLOYEE, shape(EMPLOYEE));
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"])).ids(), ["1"]);
}

#[test]
fn without_a_mapped_column_every_row_counts_as_changed() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    let columns = &[("id", 20, true), ("note", TEXT, false)];
    feed.relation(EMPLOYEE, ("hr", "employee", b'd', columns));
    for _ in 0..2 {
        assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "x"])).ids(), ["1"]);
    }
}

#[test]
fn without_the_employees_column_a_child_row_is_still_its_owners() {
    let mut feed = Feed::new(&["1"], &[], &[(2, "10")]);
    let columns = &[("id", 20, true), ("person_id", 20, false), ("line", TEXT, false)];
    feed.relation(ADDRESS, ("hr", "address", b'd', columns));
    assert_eq!(feed.whole(|f| f.update(ADDRESS, &["10", "1", "Road"])).orphaned, [(2, "10".into())]);
}

#[test]
fn a_table_that_takes_the_name_of_another_takes_its_place() {
    let mut feed = Feed::new(&["1"], &[], &[]);
    feed.relation(99, shape(EMPLOYEE));
    assert_eq!(feed.whole(|f| f.insert(99, &["1", "Ada", "", "f"])).ids(), ["1"]);
    feed.relation(EMPLOYEE, ("hr", "employee_old", b'd', shape(EMPLOYEE).3));
    assert_eq!(feed.whole(|f| f.insert(EMPLOYEE, &["1", "Ada", "", "f"])), Touched::default());
}

#[test]
fn commands_are_handed_on_in_the_order_of_the_log() {
    let mut feed = Feed::new(&[], &[], &[]);
    feed.begin(1);
    for (request, employee) in [("12", "1"), ("10", "2"), ("11", "1")] {
        feed.insert(REQUEST, &[request, employee, "sync"]);
    }
    let touches = feed.commit().touches.unwrap();
    assert_eq!(touches.requests, [12, 10, 11]);
    assert!(touches.enrols());
    assert_eq!(feed.whole(|f| f.update(EMPLOYEE, &["1", "Ada", "", "f"])).ids(), ["1"], "a member now");
}

#[test]
fn the_separator_stands_between_all_columns_of_a_key() {
    // As concat_ws does it for row_owner: an empty first column is a column.
    let mut feed = Feed::new(&["1"], &[], &[(2, "\u{1f}b")]);
    let mut description = description();
    description.sources[1].key = vec!["id".to_owned(), "junk".to_owned()];
    feed.selector = Selector::new(
        description,
        feed.selector.hasher().clone(),
        Members::default(),
        {
            let mut filter = RowFilter::with_capacity(1);
            filter.insert(feed.selector.hasher().row(2, b"\x1fb"));
            filter
        },
        10,
    );
    feed.relation(ADDRESS, shape(ADDRESS));
    let touched = feed.whole(|f| f.delete(ADDRESS, &["", NULL, NULL, "b"]));
    assert_eq!(touched.orphaned, [(2, "\u{1f}b".into())]);
}

#[test]
fn a_stream_that_breaks_the_protocol_is_refused() {
    let mut feed = Feed::new(&[], &[], &[]);
    assert_eq!(feed.try_send(b"E"), Err(SelectionError::OutOfPlace("stream stop")));
    let row = [b"I".as_slice(), &1_u32.to_be_bytes(), b"N\0\0"].concat();
    assert_eq!(feed.try_send(&row), Err(SelectionError::OutOfPlace("row")));
    let unknown = [b"I".as_slice(), &1234_u32.to_be_bytes(), b"N\0\0"].concat();
    assert_eq!(feed.try_send(&unknown), Err(SelectionError::UnknownRelation(1234)));
    feed.begin(1);
    let begin = [b"B".as_slice(), &[0; 20]].concat();
    assert_eq!(feed.try_send(&begin), Err(SelectionError::OutOfPlace("begin")));
    let start = [b"S".as_slice(), &[0; 5]].concat();
    assert_eq!(feed.try_send(&start), Err(SelectionError::OutOfPlace("stream start")));
}

#[test]
fn the_commits_end_is_what_may_be_confirmed() {
    let mut feed = Feed::new(&[], &[], &[]);
    feed.begin(4_294_967_295);
    let commit = feed.commit();
    assert_eq!((commit.xid, commit.end_lsn, commit.touches), (u32::MAX, Lsn(108), None));
}

#[test]
fn the_cache_is_bounded_and_forgets_the_oldest() {
    let hasher = KeyHasher::with_key([1; 16]);
    let mut cache = rows::RowCache::with_capacity(100);
    let row = |n: u32| hasher.row(1, &n.to_be_bytes());
    for n in 0..1_000 {
        assert!(cache.replace(row(n), 1));
        assert!(cache.len() <= 100);
    }
    assert!(!cache.replace(row(999), 1), "known");
    assert!(cache.replace(row(0), 1), "forgotten");
}

#[test]
fn the_filter_never_denies_a_row_that_it_holds() {
    let hasher = KeyHasher::with_key([1; 16]);
    let mut filter = RowFilter::with_capacity(20_000);
    let row = |n: u32| hasher.row(1, &n.to_be_bytes());
    (0..20_000).for_each(|n| filter.insert(row(n)));
    assert!((0..20_000).all(|n| filter.may_contain(row(n))));
    let wrong = (20_000..120_000).filter(|n| filter.may_contain(row(*n))).count();
    assert!(wrong < 3_000, "{wrong} of 100,000 falsely perhaps");
}
