//! The history as it grows: every line once, in the order of its id.
//!
//! Ids are given out before the line is committed, so a line can appear after one with a higher id. Lines are therefore
//! handed on up to the first gap; a gap that does not close was a transaction that was rolled back.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, Row};

use super::terminal::{Delivery, Outcome};

/// Lines read at once.
const PAGE: i64 = 1_000;
/// How long a gap in the ids may take to close.
const GAP_MAX: Duration = Duration::from_secs(1);

const LINES: &str = "
    select history_id, extract(epoch from at)::float8 as at, employee_id, event, benefits.field_names(fields) as fields,
           outcome, error_code, extract(epoch from latency)::float8 as latency
    from benefits.history where history_id > $1 order by history_id limit $2";

/// A reader of the history.
#[derive(Debug)]
pub(super) struct Follower {
    gate: Gate,
    /// Seconds since the epoch, by the database's clock, that times are counted from.
    epoch: f64,
}

impl Follower {
    /// Follows from now on. `hr` is the superuser's: the lines are looked for by id, which a real ledger has no index for.
    pub(super) async fn start(hr: &Client) -> Result<Self, Error> {
        hr.batch_execute("create index if not exists history_demo_ix on benefits.history (history_id)")
            .await?;
        let sql = "select coalesce(max(history_id), 0), extract(epoch from clock_timestamp())::float8 from benefits.history";
        let row = hr.query_one(sql, &[]).await?;
        Ok(Self { gate: Gate { last: row.get(0), gap_since: None }, epoch: row.get(1) })
    }

    /// What is new. With `all`, a gap is not waited for.
    pub(super) async fn read(&mut self, hr: &Client, all: bool) -> Result<Vec<Delivery>, Error> {
        let mut deliveries = Vec::new();
        loop {
            let rows = hr.query(LINES, &[&self.gate.last, &PAGE]).await?;
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            let passed = self.gate.pass(&ids, Instant::now(), all);
            deliveries.extend(rows.iter().take(passed).map(|row| delivery(row, self.epoch)));
            if passed < rows.len() || i64::try_from(rows.len()).is_ok_and(|count| count < PAGE) {
                return Ok(deliveries);
            }
        }
    }
}

fn delivery(row: &Row, epoch: f64) -> Delivery {
    let seconds = |value: f64| Duration::try_from_secs_f64(value.max(0.0)).unwrap_or_default();
    Delivery {
        at: seconds(row.get::<_, f64>("at") - epoch),
        employee_id: row.get("employee_id"),
        event: row.get("event"),
        fields: row.get("fields"),
        outcome: match row.get("outcome") {
            "successful" => Outcome::Accepted,
            "failed" => Outcome::Rejected,
            _ => Outcome::Held,
        },
        error_code: row.get("error_code"),
        latency: row.get::<_, Option<f64>>("latency").map(seconds),
    }
}

/// Which of the ids that are there may pass.
#[derive(Debug)]
struct Gate {
    /// The last id that passed.
    last: i64,
    gap_since: Option<Instant>,
}

impl Gate {
    /// How many of `ids` (rising, all above the last) may pass, and lets them.
    fn pass(&mut self, ids: &[i64], now: Instant, all: bool) -> usize {
        let mut passed = 0;
        for id in ids {
            let closed = *id == self.last.saturating_add(1);
            let waited = self.gap_since.is_some_and(|since| now.saturating_duration_since(since) >= GAP_MAX);
            if !closed && !waited && !all {
                self.gap_since.get_or_insert(now);
                break;
            }
            self.last = *id;
            self.gap_since = None;
            passed += 1;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_committed_late_keeps_its_place() {
        let (mut gate, now) = (Gate { last: 4, gap_since: None }, Instant::now());
        assert_eq!(gate.pass(&[5, 7, 8], now, false), 1);
        assert_eq!(gate.pass(&[7, 8], now, false), 0);
        assert_eq!(gate.pass(&[6, 7, 8], now, false), 3);
        assert_eq!(gate.last, 8);
    }

    #[test]
    fn a_gap_that_does_not_close_is_passed_after_a_while_and_the_next_one_is_waited_for_again() {
        let (mut gate, now) = (Gate { last: 4, gap_since: None }, Instant::now());
        assert_eq!(gate.pass(&[6, 9], now, false), 0);
        assert_eq!(gate.pass(&[6, 9], now + GAP_MAX, false), 1);
        assert_eq!(gate.pass(&[9], now + GAP_MAX, false), 0);
        assert_eq!(gate.pass(&[9], now + GAP_MAX, true), 1);
    }
}
