//! Colours on a terminal, plain text in a pipe; sizes and times as people say them.

use std::io::IsTerminal as _;

/// Whether and how text is coloured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    colour: bool,
}

impl Paint {
    /// For standard output: in colour on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !unwanted }
    }

    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self { colour: false }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.in_colour("32", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.in_colour("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.in_colour("1;31", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.in_colour("2", text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.in_colour("1", text)
    }

    fn in_colour(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `1.5 GB` of 1024s, as PostgreSQL counts.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// `0.3 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(crate) fn span(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "for ever".to_owned();
    }
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = std::time::Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |span| span.as_secs());
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_said_in_the_largest_unit_that_fits() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(size), ["0 B", "1023 B", "1.5 kB", "5.0 GB"]);
        assert_eq!(
            [0.25, 12.9, 185.0, 7_800.0, 356_400.0].map(span),
            ["0.2 s", "12 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"]
        );
    }

    #[test]
    fn a_pipe_gets_no_colour() {
        assert_eq!(Paint::plain().bad("x"), "x");
        assert_eq!(Paint { colour: true }.bad("x"), "\x1b[1;31mx\x1b[0m");
    }
}
