//! Which transactions a new snapshot on the SQL server sees.
//!
//! A commit can be decoded before it is visible: PostgreSQL writes the commit record, and only later (with a synchronous
//! standby, after the standby has answered) lets new snapshots see it. A record read in between is old. So commits pass
//! the gate only once `pg_current_snapshot()` shows their xid as finished. The rules are those of
//! `pg_visible_in_snapshot`, applied here so that one round trip serves any number of commits.

/// The text form of `pg_current_snapshot()`, `xmin:xmax:xip,...`, could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("pg_current_snapshot() gave something that is not a snapshot")]
pub struct SnapshotError;

/// A snapshot in 64-bit transaction ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything below has ended.
    xmin: u64,
    /// Nothing from here on has ended.
    xmax: u64,
    /// In progress between the two, sorted.
    in_progress: Vec<u64>,
}

impl std::str::FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(SnapshotError);
        let (xmin, xmax) = (number()?, number()?);
        let mut in_progress = match parts.next() {
            None | Some("") => Vec::new(),
            Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>().or(Err(SnapshotError))?,
        };
        in_progress.sort_unstable();
        Ok(Self { xmin, xmax, in_progress })
    }
}

impl Snapshot {
    /// Whether the effects of this committed top-level transaction are seen.
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// A 32-bit xid with the epoch that puts it nearest to the snapshot. A decoded commit is never two thousand million
    /// transactions away from now: PostgreSQL itself would have stopped before.
    fn widen(&self, xid: u32) -> u64 {
        const EPOCH: u64 = 1 << 32;
        const HALF: u64 = 1 << 31;
        let near = (self.xmax & !(EPOCH - 1)) | u64::from(xid);
        if near > self.xmax.saturating_add(HALF) {
            near.saturating_sub(EPOCH)
        } else if near.saturating_add(HALF) < self.xmax {
            near.saturating_add(EPOCH)
        } else {
            near
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn what_ended_before_xmin_is_seen_and_what_started_after_is_not() {
        let snapshot = snapshot("100:100:");
        assert!(snapshot.sees(99));
        assert!(!snapshot.sees(100));
    }

    #[test]
    fn a_transaction_in_progress_is_not_seen_though_later_ones_are() {
        let snapshot = snapshot("100:110:104,100");
        assert!(!snapshot.sees(100) && !snapshot.sees(104));
        assert!(snapshot.sees(101) && snapshot.sees(109));
        assert!(!snapshot.sees(110));
    }

    #[test]
    fn a_commit_that_the_snapshot_does_not_know_yet_is_not_seen() {
        // Decoded from the WAL before the server's own bookkeeping has it: beyond xmax.
        assert!(!snapshot("100:100:").sees(105));
    }

    #[test]
    fn the_epoch_is_found_on_both_sides_of_a_wrap() {
        let after = snapshot("4294967300:4294967300:");
        assert!(after.sees(u32::MAX), "an xid from before the wrap is in the past");
        assert!(after.sees(3) && !after.sees(4));
        let before = snapshot("4294967290:4294967290:");
        assert!(!before.sees(3), "an xid from after the wrap is not seen yet");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1", "1:", "a:b:", "1:2:x"] {
            assert_eq!(text.parse::<Snapshot>(), Err(SnapshotError), "{text}");
        }
    }
}
