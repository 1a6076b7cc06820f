//! The preview's output: written as it comes, so that its size does not matter.

use std::io::Write;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Action, Counts, Forecast};
use crate::paint::Paint;

/// How far the preview is, on standard error of a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// On a terminal; hidden otherwise.
    pub fn on_stderr() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("  {bar:30} {pos} of {len} employees, {eta} to go") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Nothing is shown.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }
}

/// Takes forecasts and writes them.
pub struct Report<'w> {
    out: &'w mut (dyn Write + Send),
    json: bool,
    paint: Paint,
    progress: Progress,
    counts: Counts,
    written: u64,
}

impl<'w> Report<'w> {
    /// As JSON: one document `{"employees": [...], "summary": {...}}`.
    pub fn json(out: &'w mut (dyn Write + Send), progress: Progress) -> Self {
        Self { out, json: true, paint: Paint::for_stdout(), progress, counts: Counts::new(), written: 0 }
    }

    /// For people: a line an employee, a summary at the end.
    pub fn text(out: &'w mut (dyn Write + Send), progress: Progress) -> Self {
        Self { json: false, ..Self::json(out, progress) }
    }

    /// How many of each so far.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn expect(&self, employees: u64) {
        self.progress.0.set_length(employees);
    }

    pub(super) fn add(&mut self, forecast: &Forecast) -> std::io::Result<()> {
        self.progress.0.inc(1);
        *self.counts.entry(forecast.action).or_default() += 1;
        if self.json {
            let before = if self.written == 0 { "{\"employees\": [\n" } else { ",\n" };
            write!(self.out, "{before}{}", serde_json::to_string(forecast)?)?;
        } else if forecast.action != Action::InStep {
            let line = self.line(forecast);
            // A bar on the same terminal must not be written over.
            let out = &mut self.out;
            self.progress.0.suspend(|| writeln!(out, "{line}"))?;
        }
        self.written += 1;
        Ok(())
    }

    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        self.progress.0.finish_and_clear();
        let count = |action| self.counts.get(&action).copied().unwrap_or(0);
        if self.json {
            if self.written == 0 {
                write!(self.out, "{{\"employees\": [")?;
            }
            let summary = serde_json::json!({
                "create": count(Action::Create), "link": count(Action::Link), "update": count(Action::Update),
                "in_step": count(Action::InStep), "conflict": count(Action::Conflict), "blocked": count(Action::Blocked),
            });
            writeln!(self.out, "\n], \"summary\": {summary}}}")?;
        } else {
            writeln!(
                self.out,
                "Of {} employees: {} would be created, {} linked, {} updated, {} are in step; {} in conflict, {} blocked. \
                 Nothing was sent.",
                self.written,
                count(Action::Create),
                count(Action::Link),
                count(Action::Update),
                count(Action::InStep),
                count(Action::Conflict),
                count(Action::Blocked)
            )?;
        }
        self.out.flush()
    }

    fn line(&self, forecast: &Forecast) -> String {
        let paint = self.paint;
        let account = forecast.benefits_id.as_deref().unwrap_or_default();
        let (verb, rest) = match forecast.action {
            Action::Create => (paint.good("create  "), format!("{} fields", forecast.fields.len())),
            Action::Link => {
                (paint.good("link    "), format!("account {account}, {} fields", forecast.fields.len()))
            }
            Action::Update => (paint.good("update  "), forecast.fields.join(", ")),
            Action::InStep => (paint.faint("in step "), String::new()),
            Action::Conflict => (paint.warning("conflict"), reasons(forecast)),
            Action::Blocked => (paint.bad("blocked "), reasons(forecast)),
        };
        format!("{:<12} {verb}  {rest}", forecast.employee_id)
    }
}

fn reasons(forecast: &Forecast) -> String {
    let texts: Vec<String> =
        forecast.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text)).collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::*;

    fn forecasts() -> [Forecast; 2] {
        let reasons = vec![Reason { code: "required".into(), text: "Surname is empty.".into() }];
        let blocked = Forecast {
            employee_id: "1".into(),
            action: Action::Blocked,
            benefits_id: None,
            fields: vec!["surname"],
            reasons,
        };
        [blocked.clone(), Forecast { action: Action::Create, reasons: vec![], ..blocked }]
    }

    #[test]
    fn json_is_one_document_however_many_there_are() {
        for employees in [&forecasts()[..], &[]] {
            let mut out = Vec::new();
            let mut report = Report::json(&mut out, Progress::hidden());
            for forecast in employees {
                report.add(forecast).unwrap();
            }
            report.finish().unwrap();
            let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(document["employees"].as_array().unwrap().len(), employees.len());
            assert_eq!(document["summary"]["blocked"], u64::from(!employees.is_empty()));
        }
    }

    #[test]
    fn text_says_why_and_that_nothing_was_sent() {
        let mut out = Vec::new();
        let mut report = Report { paint: Paint::plain(), ..Report::text(&mut out, Progress::hidden()) };
        for forecast in forecasts() {
            report.add(&forecast).unwrap();
        }
        report.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("1            blocked   required: Surname is empty."), "{text}");
        assert!(text.ends_with("1 blocked. Nothing was sent.\n"), "{text}");
    }
}
