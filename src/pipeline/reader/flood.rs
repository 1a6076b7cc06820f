//! A stream that does not stop is better read late and much.

use std::time::{Duration, Instant};

/// What comes so soon after the read before it was there already, or on its way.
const AT_ONCE: Duration = Duration::from_micros(200);
/// Reads in a row, each with more at once, that make a flood.
const FLOOD_READS: u32 = 16;

/// Tells a stream that does not stop from one of single changes. The server wakes its reader for every message; while it has
/// more at once each time, both sides do better when the reader comes late and takes much.
#[derive(Debug, Default)]
pub(super) struct Flood {
    since: Option<Instant>,
    /// Reads in a row after which there was more at once.
    reads: u32,
}

impl Flood {
    /// Something was read; whether to leave the next of it alone for a moment.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        let at_once = self.since.is_some_and(|since| now.duration_since(since) < AT_ONCE);
        self.reads = if at_once { self.reads.saturating_add(1) } else { 0 };
        self.reads >= FLOOD_READS
    }

    /// The next read begins.
    pub(super) fn waits(&mut self, now: Instant) {
        self.since = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_does_not_stop_is_a_flood_and_single_changes_are_none() {
        let mut flood = Flood::default();
        let mut now = Instant::now();
        let mut read_after = |pause: Duration| {
            now += pause;
            let flooded = flood.read(now);
            flood.waits(now);
            flooded
        };
        assert!((0..100).all(|_| !read_after(Duration::from_millis(1))));
        let first = (0..100).position(|_| read_after(Duration::from_micros(20)));
        assert_eq!(first, Some(15));
        assert!(read_after(Duration::ZERO));
        assert!(!read_after(AT_ONCE), "the stream has paused");
    }
}
