//! Whom a changed row marks: members, the Failed, starters, commands.

use super::*;

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
fn a_padded_employee_id_is_the_same_employee() {
    let mut feed = Feed::new(&["E1", "E 2"], &[], &[]);
    assert_eq!(feed.whole(|f| f.insert(PHONE, &["E1     ", "home", "1"])).ids(), ["E1"]);
    assert_eq!(feed.whole(|f| f.insert(PHONE, &["E 2    ", "home", "1"])).ids(), ["E 2"]);
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
