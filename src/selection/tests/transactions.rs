//! Transactions, streamed and rolled back, and what of the protocol is refused.

use super::*;

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
