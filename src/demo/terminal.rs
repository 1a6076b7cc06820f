//! What the demo shows: a bar for the first sync, a line for each delivery, a table at the end.
//!
//! On a terminal there are colours and a bar that moves; into a pipe or a file go plain lines. People are shown by their
//! HR id alone, and fields by name: the demo's people are made up, but a real site's log would be read the same way.
//! Everything is fed with plain data, and written to any [`Write`], so that tests can read it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::edits::{Edit, Kind};
use super::verdict::Verdict;

/// Employees listed before the rest are counted.
const LISTED_MAX: usize = 10;
/// Fields named on a line before the rest are counted.
const FIELDS_SHOWN: usize = 4;
/// From so many on, fields are not named at all: the record was sent in full, or nearly.
const FIELDS_NAMED_MAX: usize = 16;

/// What became of an attempt to bring an employee into step: a row of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The platform has it.
    Accepted,
    /// The platform, or our own checks, refused it.
    Rejected,
    /// Kept back for a person to decide.
    Held,
}

/// A line of the history.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Time since the edits began.
    pub at: Duration,
    /// HR's id.
    pub employee_id: String,
    /// `linked`, `created`, `updated`, `rejected`, `held`, `released`.
    pub event: String,
    /// The API's property names.
    pub fields: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The error's code, where it was refused.
    pub error_code: Option<String>,
    /// From HR's commit to the acknowledgement, where it is known.
    pub latency: Option<Duration>,
}

/// The progress bar, which log lines must not run into. Clones are the same bar.
#[derive(Debug, Clone, Default)]
pub struct Bar(Arc<Mutex<Option<ProgressBar>>>);

impl Bar {
    fn held(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For log lines: to standard error, the bar out of the way.
impl<'a> MakeWriter<'a> for Bar {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(self.clone())
    }
}

/// See [`Bar`].
#[derive(Debug)]
pub struct LogLine(Bar);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.0.held() {
            Some(bar) => bar.suspend(|| io::stderr().write_all(bytes))?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// How lines are drawn.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    colour: bool,
    bar: Bar,
    editing: Duration,
    edits: BTreeMap<Kind, u64>,
    events: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
}

impl Terminal<io::Stdout> {
    /// Standard output, with colour where it is a terminal and `NO_COLOR` is not set.
    pub fn stdout(bar: Bar) -> Self {
        let colour =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { bar, ..Self::new(io::stdout(), colour) }
    }
}

impl<W: Write> Terminal<W> {
    /// Any writer. With `colour` it is taken for a terminal, and progress is drawn on standard error.
    pub fn new(out: W, colour: bool) -> Self {
        Self {
            out,
            colour,
            bar: Bar::default(),
            editing: Duration::ZERO,
            edits: BTreeMap::new(),
            events: BTreeMap::new(),
            latencies: Vec::new(),
        }
    }

    /// A step of the demo: what is being done now.
    pub fn step(&mut self, text: &str) -> io::Result<()> {
        let mark = self.paint("1;36", "▸");
        writeln!(self.out, "{mark} {text}")
    }

    /// A line under a step, to be copied.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "    {text}")
    }

    /// The first sync, `done` of `all`. The last call, with `done == all`, takes the bar away.
    pub fn progress(&mut self, done: u64, all: u64) -> io::Result<()> {
        if self.colour {
            let mut held = self.bar.held();
            let bar = held.get_or_insert_with(|| bar(all));
            bar.set_position(done);
            if done >= all {
                bar.finish_and_clear();
                *held = None;
            }
            return Ok(());
        }
        if done >= all { writeln!(self.out, "  {done} of {all} employees") } else { Ok(()) }
    }

    /// Counts an edit for the table.
    pub fn edit(&mut self, edit: &Edit) {
        *self.edits.entry(edit.kind).or_default() += 1;
    }

    /// How long HR has been editing, all in all.
    pub fn edited_for(&mut self, length: Duration) {
        self.editing = length;
    }

    /// A line for a delivery.
    pub fn delivery(&mut self, delivery: &Delivery) -> io::Result<()> {
        *self.events.entry(delivery.event.clone()).or_default() += 1;
        // An account that is linked is written to in the same breath: two lines, one acknowledgement.
        let counts = delivery.outcome == Outcome::Accepted && delivery.event != "linked";
        self.latencies.extend(delivery.latency.filter(|_| counts));
        let (colour, mark) = match delivery.outcome {
            Outcome::Accepted => ("32", "✓"),
            Outcome::Rejected => ("31", "✗"),
            Outcome::Held => ("33", "‖"),
        };
        let mark = self.paint(colour, mark);
        let latency = delivery.latency.map_or_else(String::new, milliseconds);
        let code =
            delivery.error_code.as_deref().map_or_else(String::new, |code| self.paint("31", code) + "  ");
        let line = format!(
            "{:>7.2}s  {mark} {:<9} employee {:<8} {latency:>10}  {code}{}",
            delivery.at.as_secs_f64(),
            delivery.event,
            delivery.employee_id,
            self.paint("2", &fields(&delivery.fields)),
        );
        writeln!(self.out, "{}", line.trim_end())
    }

    /// The table at the end. `settled`: the last edit has arrived, whatever became of it.
    pub fn summary(&mut self, verdict: &Verdict, settled: bool) -> io::Result<()> {
        // A first sync that was interrupted leaves its bar.
        if let Some(bar) = self.bar.held().take() {
            bar.finish_and_clear();
        }
        writeln!(self.out)?;
        self.heading("Edits by HR")?;
        for (kind, count) in &self.edits {
            writeln!(self.out, "  {:<28}{count:>8}", kind.name())?;
        }
        let all = self.edits.values().sum::<u64>();
        let millis = u64::try_from(self.editing.as_millis()).unwrap_or(u64::MAX).max(1);
        writeln!(self.out, "  {:<28}{all:>8}   {} a second", "all", all.saturating_mul(1000) / millis)?;
        self.heading("Deliveries")?;
        for (event, count) in &self.events {
            writeln!(self.out, "  {event:<28}{count:>8}")?;
        }
        self.latencies.sort_unstable();
        if !self.latencies.is_empty() {
            self.heading("From HR's commit to Benefits' acknowledgement")?;
        }
        for (name, thousandths) in
            [("half within (p50)", 500), ("99 % within (p99)", 990), ("all within", 1000)]
        {
            if let Some(latency) = percentile(&self.latencies, thousandths) {
                writeln!(self.out, "  {name:<28}{:>11}", milliseconds(latency))?;
            }
        }
        self.heading("HR and Benefits, compared field by field")?;
        writeln!(self.out, "  {:<28}{:>8}", "employees to be synced", verdict.synced)?;
        writeln!(self.out, "  {:<28}{:>8}", "the same on both sides", verdict.same)?;
        writeln!(self.out, "  {:<28}{:>8}", "refused, for HR to mend", verdict.refused.len())?;
        for (employee, why) in verdict.refused.iter().take(LISTED_MAX) {
            let why = self.paint("2", why);
            writeln!(self.out, "    employee {employee:<8} {why}")?;
        }
        self.more(verdict.refused.len())?;
        writeln!(self.out, "  {:<28}{:>8}", "different", verdict.differences.len())?;
        for (employee, what) in verdict.differences.iter().take(LISTED_MAX) {
            writeln!(self.out, "    employee {employee:<8} {}", fields(what))?;
        }
        self.more(verdict.differences.len())?;
        self.judge(verdict, settled)
    }

    fn more(&mut self, listed: usize) -> io::Result<()> {
        match listed.saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => writeln!(self.out, "    and {more} more"),
        }
    }

    fn judge(&mut self, verdict: &Verdict, settled: bool) -> io::Result<()> {
        let (colour, word, rest) = match (settled, verdict.differences.is_empty()) {
            (true, true) => ("1;32", "In step", "what Benefits holds is what HR holds"),
            (true, false) => ("1;31", "Not in step", "Benefits does not hold what HR holds"),
            (false, _) => ("1;31", "Not settled", "not everything had arrived in time"),
        };
        let word = self.paint(colour, word);
        writeln!(self.out, "\n{word}: {rest}.")
    }

    fn heading(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint("1", text);
        writeln!(self.out, "{text}")
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn bar(all: u64) -> ProgressBar {
    let bar = ProgressBar::new(all);
    // The template is a constant; were it wrong, the default one would do.
    // Within 80 columns: a line that wraps is not taken away cleanly.
    let template = "  {bar:30.cyan} {pos} of {len} employees, {rate}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Nothing to be done where a bar cannot be drawn.
            let _drawn = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar
}

fn fields(names: &[String]) -> String {
    if names.len() > FIELDS_NAMED_MAX {
        return format!("{} fields", names.len());
    }
    let shown: Vec<&str> = names.iter().take(FIELDS_SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(FIELDS_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// The least value that so many thousandths of the (sorted) values do not exceed.
fn percentile(sorted: &[Duration], thousandths: usize) -> Option<Duration> {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(event: &str, outcome: Outcome) -> Delivery {
        Delivery {
            at: Duration::from_millis(1_234),
            employee_id: "42".to_owned(),
            event: event.to_owned(),
            fields: vec!["surname".to_owned(), "packageId".to_owned()],
            outcome,
            error_code: (outcome == Outcome::Rejected).then(|| "unknown-value".to_owned()),
            latency: Some(Duration::from_micros(12_340)),
        }
    }

    fn written(colour: bool, draw: impl FnOnce(&mut Terminal<Vec<u8>>) -> io::Result<()>) -> String {
        let mut terminal = Terminal::new(Vec::new(), colour);
        draw(&mut terminal).unwrap();
        String::from_utf8(terminal.out).unwrap()
    }

    #[test]
    fn a_delivery_is_one_plain_line_in_a_pipe() {
        let line = written(false, |terminal| terminal.delivery(&delivery("updated", Outcome::Accepted)));
        assert_eq!(line, "   1.23s  ✓ updated   employee 42          12.3 ms  surname, packageId\n");
        let line = written(false, |terminal| terminal.delivery(&delivery("rejected", Outcome::Rejected)));
        assert_eq!(
            line,
            "   1.23s  ✗ rejected  employee 42          12.3 ms  unknown-value  surname, packageId\n"
        );
    }

    #[test]
    fn colour_is_for_terminals_only() {
        let draw = |terminal: &mut Terminal<Vec<u8>>| {
            terminal.step("Starting")?;
            terminal.delivery(&delivery("held", Outcome::Held))?;
            terminal.summary(&Verdict::default(), true)
        };
        assert!(!written(false, draw).contains('\x1b'));
        assert!(written(true, draw).contains("\x1b[33m‖\x1b[0m"));
    }

    #[test]
    fn many_fields_are_counted_after_the_fourth_and_a_whole_record_is_only_counted() {
        let names: Vec<String> = (1..=33).map(|n| format!("f{n}")).collect();
        assert_eq!(fields(&names[..4]), "f1, f2, f3, f4");
        assert_eq!(fields(&names[..9]), "f1, f2, f3, f4 and 5 more");
        assert_eq!(fields(&names), "33 fields");
    }

    #[test]
    fn progress_in_a_pipe_is_one_line_at_the_end() {
        let lines = written(false, |terminal| (0..=5).try_for_each(|done| terminal.progress(done, 5)));
        assert_eq!(lines, "  5 of 5 employees\n");
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&hundred, 500), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&hundred, 990), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&hundred, 1000), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&hundred[..1], 500), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 500), None);
    }

    #[test]
    fn the_summary_names_those_that_differ_and_those_that_were_refused() {
        let verdict = Verdict {
            synced: 9,
            same: 7,
            refused: vec![("3".to_owned(), "Title is empty".to_owned())],
            differences: vec![("7".to_owned(), vec!["surname".to_owned()])],
        };
        let text = written(false, |terminal| {
            terminal.edit(&Edit { kind: Kind::PayRise, employees: vec![7] });
            terminal.edited_for(Duration::from_millis(500));
            let linked =
                Delivery { latency: Some(Duration::from_secs(9)), ..delivery("linked", Outcome::Accepted) };
            terminal.delivery(&linked)?;
            terminal.delivery(&delivery("updated", Outcome::Accepted))?;
            terminal.summary(&verdict, true)
        });
        for line in [
            "  pay rise                           1\n  all                                1   2 a second\n",
            "  half within (p50)               12.3 ms\n",
            "  all within                      12.3 ms\n",
            "  refused, for HR to mend            1\n    employee 3        Title is empty\n",
            "  different                          1\n    employee 7        surname\n",
            "\nNot in step: Benefits does not hold what HR holds.\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn only_a_settled_demo_without_differences_is_in_step() {
        let ends = |settled| written(false, |terminal| terminal.summary(&Verdict::default(), settled));
        assert!(ends(true).ends_with("In step: what Benefits holds is what HR holds.\n"));
        assert!(ends(false).ends_with("Not settled: not everything had arrived in time.\n"));
    }
}
