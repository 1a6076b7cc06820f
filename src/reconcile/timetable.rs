//! When the nightly comparison is due. Pure.
//!
//! Level-triggered: it is due when the last one began before the latest time that it should have. A night that was slept
//! through is made up for, and any number of instances agree on it.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// `reconcile.daily_at` in `reconcile.time_zone`.
#[derive(Debug, Clone)]
pub struct Timetable {
    at: Time,
    zone: TimeZone,
}

impl Timetable {
    /// `None` where the texts are no time of day (`HH:MM`) or no IANA time zone.
    pub fn new(at: &str, zone: &str) -> Option<Self> {
        Some(Self { at: Time::strptime("%H:%M", at).ok()?, zone: TimeZone::get(zone).ok()? })
    }

    /// Whether a comparison is due `now`, the last one having begun at `last`; both in seconds since 1970. None is due before
    /// there is anything to compare for.
    pub fn is_due(&self, now: f64, last: Option<f64>) -> bool {
        let Some(latest) = instant(now).and_then(|now| self.latest(now)) else { return false };
        last.and_then(instant).is_some_and(|last| last < latest)
    }

    /// The latest time of the timetable that is not after `now`. A time that the clocks skip comes when they have skipped it.
    fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        let at = |date: jiff::civil::Date| {
            Some(date.to_datetime(self.at).to_zoned(self.zone.clone()).ok()?.timestamp())
        };
        at(today).filter(|at| *at <= now).or_else(|| at(today.checked_sub(1.day()).ok()?))
    }
}

fn instant(seconds: f64) -> Option<Timestamp> {
    let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> f64 {
        let second = text.parse::<Timestamp>().unwrap().as_second();
        f64::from(i32::try_from(second).unwrap())
    }

    fn due(now: &str, last: Option<&str>) -> bool {
        let timetable = Timetable::new("00:05", "Europe/London").unwrap();
        timetable.is_due(seconds(now), last.map(seconds))
    }

    #[test]
    fn it_is_due_once_after_local_midnight() {
        // British Summer Time: 00:05 is 23:05 UTC of the day before.
        assert!(!due("2026-07-01T23:04:59Z", Some("2026-06-30T23:05:01Z")));
        assert!(due("2026-07-01T23:05:00Z", Some("2026-06-30T23:05:01Z")));
        assert!(!due("2026-07-01T23:06:00Z", Some("2026-07-01T23:05:01Z")));
    }

    #[test]
    fn a_night_that_was_slept_through_is_made_up_for() {
        assert!(due("2026-07-03T12:00:00Z", Some("2026-06-30T23:05:01Z")));
        assert!(due("2026-07-03T12:00:00Z", Some("1970-01-01T00:00:00Z")), "never compared");
        assert!(!due("2026-07-03T12:00:00Z", None), "nothing to compare for");
    }

    #[test]
    fn a_time_that_the_clocks_skip_comes_after_the_skip() {
        // 01:30 does not exist in London on 29 March 2026: clocks go from 01:00 to 02:00 (01:00 UTC).
        let timetable = Timetable::new("01:30", "Europe/London").unwrap();
        let last = Some(seconds("2026-03-28T01:30:00Z"));
        assert!(!timetable.is_due(seconds("2026-03-29T00:59:00Z"), last));
        assert!(timetable.is_due(seconds("2026-03-29T01:31:00Z"), last));
    }

    #[test]
    fn nonsense_has_no_timetable() {
        assert!(Timetable::new("24:99", "Europe/London").is_none());
        assert!(Timetable::new("00:05", "Europe/Nowhere").is_none());
    }
}
