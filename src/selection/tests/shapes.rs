//! Tables that change their shape, their replica identity or their name, or are emptied.

use super::*;

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
