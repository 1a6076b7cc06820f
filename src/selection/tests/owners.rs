//! Whom a row has left, by its own key or by the old row; and the bounded memory of rows.

use super::*;

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

#[test]
fn a_row_whose_key_is_not_in_the_wal_is_somebodys_and_nobodys_key_is_empty() {
    let mut feed = Feed::new(&["1"], &[], &[(2, "10")]);
    // Another index is the replica identity: the old row has not the key that is described.
    let deleted = feed.whole(|f| f.delete(ADDRESS, &[NULL, NULL, NULL, NULL]));
    assert_eq!((deleted.unkeyed, deleted.orphaned), (true, vec![]));
    let moved = feed.whole(|f| f.update_key(DEPARTMENT, &[NULL, NULL, NULL], &["5", "new", ""]));
    assert_eq!((moved.unkeyed, moved.lookups), (true, vec![(3, "5".into())]));
    // Or a column of it has another name by now.
    let renamed =
        &[("key", 20, true), ("employee_id", 20, false), ("line", TEXT, false), ("junk", TEXT, false)];
    feed.relation(ADDRESS, ("hr", "address", b'd', renamed));
    let written = feed.whole(|f| f.update(ADDRESS, &["10", "1", "Road", ""]));
    assert_eq!((written.ids(), written.unkeyed, written.owned.len()), (vec!["1"], true, 0));
    let deleted = feed.whole(|f| f.delete(ADDRESS, &["10", NULL, NULL, NULL]));
    assert_eq!((deleted.unkeyed, deleted.orphaned), (true, vec![]));
}
