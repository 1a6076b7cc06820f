//! Who is next: single changes before bulk, nobody twice, everything bounded. Pure; the time is a parameter.
//!
//! The single lane is short: what a burst puts beyond it goes to the bulk lane, so that a change made in the middle of a
//! burst or a first sync overtakes what is waiting already. What does not fit into memory stays in the ledger, and the next
//! scan finds it.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use foldhash::HashMap;

/// Employees that wait in memory, a lane. More wait in the ledger.
const LANE_MAX: usize = 20_000;

/// The queues of one instance.
#[derive(Debug)]
pub struct Lanes {
    single_max: usize,
    /// In either lane there may be some who wait no more, or in the other: who waits is in `queued`.
    single: VecDeque<String>,
    bulk: VecDeque<String>,
    /// Whoever waits; true where it is as a single change.
    queued: HashMap<String, bool>,
    under_way: HashMap<String, UnderWay>,
    /// Who waits for a time, and whether as a single change.
    later: BTreeSet<(Instant, String, bool)>,
    overflowed: bool,
}

/// An employee who is neither queued nor at rest.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    /// Taken as a single change.
    single: bool,
    /// Marked again meanwhile.
    again: bool,
}

impl Lanes {
    /// With room for so many single changes before they count as bulk.
    pub fn new(single_max: usize) -> Self {
        Self {
            single_max,
            single: VecDeque::new(),
            bulk: VecDeque::new(),
            queued: HashMap::default(),
            under_way: HashMap::default(),
            later: BTreeSet::new(),
            overflowed: false,
        }
    }

    /// The employee is due.
    pub fn push(&mut self, employee: String, bulk: bool) {
        if let Some(under_way) = self.under_way.get_mut(&employee) {
            under_way.again = true;
            return;
        }
        if self.queued.contains_key(&employee) {
            return;
        }
        let single = !bulk && self.single.len() < self.single_max;
        let lane = if single { &mut self.single } else { &mut self.bulk };
        if lane.len() >= LANE_MAX {
            self.overflowed = true;
            return;
        }
        self.queued.insert(employee.clone(), single);
        lane.push_back(employee);
    }

    /// The employee was marked just now. A single change goes before bulk, though the employee was waiting there.
    pub fn push_marked(&mut self, employee: String, bulk: bool) {
        if !bulk && self.queued.get(&employee) == Some(&false) && self.single.len() < self.single_max {
            self.single.push_back(employee.clone());
            self.queued.insert(employee, true);
        } else {
            self.push(employee, bulk);
        }
    }

    /// The employee is due and in hand: always taken. The caller bounds how many there are. A single change goes before bulk,
    /// though the employee was waiting there.
    pub fn push_in_hand(&mut self, employee: String, bulk: bool) {
        if let Some(under_way) = self.under_way.get_mut(&employee) {
            under_way.again = true;
            return;
        }
        match (self.queued.get(&employee), bulk) {
            (Some(true), _) | (Some(false), true) => return,
            (None, true) => self.bulk.push_back(employee.clone()),
            (None | Some(false), false) => self.single.push_back(employee.clone()),
        }
        self.queued.insert(employee, !bulk);
    }

    /// The employee does not wait any more.
    pub fn forget(&mut self, employee: &str) {
        self.queued.remove(employee);
        self.tidy();
    }

    /// Nobody waits: nor are there any left who did.
    fn tidy(&mut self) {
        if self.queued.is_empty() {
            self.single.clear();
            self.bulk.clear();
        }
    }

    /// Takes up to `count` employees; they are under way until [`Lanes::finish`].
    pub fn take(&mut self, count: usize) -> Vec<String> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(employee) = self.single.pop_front().or_else(|| self.bulk.pop_front()) else { break };
            // Forgotten, or taken from the other lane.
            if let Some(single) = self.queued.remove(&employee) {
                self.under_way.insert(employee.clone(), UnderWay { single, again: false });
                taken.push(employee);
            }
        }
        self.tidy();
        taken
    }

    /// The employee is no longer under way. Marked again meanwhile (as told here, or as `again` says), they are due.
    pub fn finish(&mut self, employee: &str, again: bool) {
        let marked = self.under_way.remove(employee).is_some_and(|under_way| under_way.again);
        if marked || again {
            self.push(employee.to_owned(), false);
        }
    }

    /// The employee is no longer under way and is due again at a given time.
    pub fn postpone(&mut self, employee: &str, until: Instant) {
        let single = self.under_way.remove(employee).is_some_and(|under_way| under_way.single);
        if self.later.len() < LANE_MAX {
            self.later.insert((until, employee.to_owned(), single));
        } else {
            self.overflowed = true;
        }
    }

    /// Moves those whose time has come into the lanes that they came from.
    pub fn wake(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(until, ..)| *until <= now) {
            if let Some((_, employee, single)) = self.later.pop_first() {
                self.push(employee, !single);
            }
        }
    }

    /// When the next one's time comes.
    pub fn next_wake(&self, now: Instant) -> Option<Duration> {
        self.later.first().map(|(until, ..)| until.saturating_duration_since(now))
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Whether somebody waits for a place.
    pub fn is_waiting(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether the ledger may know of more who are due, and the lanes have run low.
    pub fn wants_scan(&self) -> bool {
        self.overflowed && !self.is_plentiful()
    }

    /// The ledger is asked.
    pub fn scanned(&mut self) {
        self.overflowed = false;
    }

    /// Whether so many wait in memory that the ledger need not be asked for more.
    pub fn is_plentiful(&self) -> bool {
        self.bulk.len() >= LANE_MAX / 4
    }

    /// The ledger has more than it named.
    pub fn more_in_ledger(&mut self) {
        self.overflowed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(single_max: usize, single: &[&str], bulk: &[&str]) -> Lanes {
        let mut lanes = Lanes::new(single_max);
        for id in bulk {
            lanes.push((*id).to_owned(), true);
        }
        for id in single {
            lanes.push((*id).to_owned(), false);
        }
        lanes
    }

    #[test]
    fn a_single_change_overtakes_bulk() {
        assert_eq!(lanes(8, &["s"], &["a", "b"]).take(3), ["s", "a", "b"]);
    }

    #[test]
    fn a_later_change_overtakes_the_rest_of_a_burst() {
        let mut lanes = lanes(2, &["1", "2", "3", "4"], &[]);
        assert_eq!(lanes.take(2), ["1", "2"]);
        lanes.push("late".to_owned(), false);
        assert_eq!(lanes.take(3), ["late", "3", "4"]);
    }

    #[test]
    fn nobody_is_queued_twice_or_taken_while_under_way() {
        let mut lanes = lanes(8, &["a", "a"], &["a"]);
        assert_eq!(lanes.take(9), ["a"]);
        lanes.push("a".to_owned(), false);
        assert!(lanes.take(9).is_empty());
        lanes.finish("a", false);
        assert_eq!(lanes.take(9), ["a"], "marked while under way: due again");
        lanes.finish("a", false);
        assert!(lanes.take(9).is_empty());
    }

    #[test]
    fn a_single_change_of_somebody_who_waits_in_bulk_overtakes_the_others() {
        let mut lanes = lanes(8, &[], &["x"]);
        for id in ["a", "b", "c"] {
            lanes.push_in_hand(id.to_owned(), true);
        }
        for _ in 0..3 {
            lanes.push_in_hand("c".to_owned(), false);
        }
        assert_eq!(lanes.single.len(), 1, "a hot employee takes one place");
        assert_eq!(lanes.take(2), ["c", "x"]);
        assert_eq!(lanes.take(9), ["a", "b"], "nobody is taken twice");
        assert!(!lanes.is_waiting());
    }

    #[test]
    fn a_mark_lifts_who_waits_in_bulk_as_long_as_there_is_room() {
        let mut lanes = lanes(1, &[], &["a", "b", "c"]);
        lanes.push_marked("c".to_owned(), false);
        lanes.push_marked("b".to_owned(), false);
        assert_eq!(lanes.take(9), ["c", "a", "b"]);
        assert!(!lanes.is_waiting());
    }

    #[test]
    fn a_single_change_that_was_postponed_comes_back_as_one() {
        let now = Instant::now();
        let mut lanes = lanes(8, &["s"], &["a", "b"]);
        assert_eq!(lanes.take(2), ["s", "a"]);
        lanes.postpone("a", now);
        lanes.postpone("s", now);
        lanes.wake(now);
        assert_eq!(lanes.take(9), ["s", "b", "a"]);
    }

    #[test]
    fn who_is_forgotten_is_not_taken_and_may_come_again() {
        let mut lanes = lanes(8, &[], &["a", "b"]);
        lanes.forget("a");
        assert_eq!(lanes.take(9), ["b"]);
        lanes.push("a".to_owned(), true);
        assert_eq!(lanes.take(9), ["a"]);
    }

    #[test]
    fn nothing_is_left_of_many_who_were_forgotten() {
        let ids: Vec<String> = (0..LANE_MAX).map(|id| id.to_string()).collect();
        let mut lanes = lanes(8, &[], &ids.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(lanes.is_plentiful());
        for id in &ids {
            lanes.forget(id);
        }
        assert!(!lanes.is_plentiful() && !lanes.is_waiting());
    }

    #[test]
    fn what_was_postponed_comes_back_at_its_time() {
        let now = Instant::now();
        let mut lanes = lanes(8, &["a"], &[]);
        lanes.take(1);
        lanes.postpone("a", now + Duration::from_secs(1));
        lanes.wake(now);
        assert!(!lanes.is_waiting());
        assert_eq!(lanes.next_wake(now), Some(Duration::from_secs(1)));
        lanes.wake(now + Duration::from_secs(1));
        assert_eq!(lanes.take(1), ["a"]);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_next_scan() {
        let mut lanes = Lanes::new(1);
        for id in 0..LANE_MAX + 2 {
            lanes.push(id.to_string(), true);
        }
        assert!(!lanes.wants_scan(), "the lane is still full");
        lanes.take(LANE_MAX);
        assert!(lanes.wants_scan());
        lanes.scanned();
        assert!(!lanes.wants_scan());
    }
}
