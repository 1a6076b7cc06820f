//! Target, figure and verdict, as Markdown: on the terminal and in the README.

use std::fmt;

const BEGIN: &str = "<!-- bench: written by `make bench` -->";
const END: &str = "<!-- bench: end -->";

pub struct Line {
    pub scene: String,
    pub figure: String,
    pub target: &'static str,
    pub met: bool,
}

#[derive(Default)]
pub struct Table {
    /// Of the scenes that have measured it.
    pub fsync_ms: Option<f64>,
    lines: Vec<Line>,
}

impl Table {
    pub fn add(&mut self, line: Line) {
        println!("{}: {}", line.scene, line.figure);
        self.lines.push(line);
    }

    pub fn extend(&mut self, lines: impl IntoIterator<Item = Line>) {
        lines.into_iter().for_each(|line| self.add(line));
    }

    /// Replaces the table in README.md.
    pub fn write_into_readme(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let text = std::fs::read_to_string(path).expect("README.md");
        let (before, rest) = text.split_once(BEGIN).expect("the mark before the table");
        let (_, after) = rest.split_once(END).expect("the mark after the table");
        std::fs::write(path, format!("{before}{BEGIN}\n{self}{END}{after}")).expect("README.md");
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| scene | figure | target | verdict |\n|---|---|---|---|")?;
        for line in &self.lines {
            let verdict = if line.met { "met" } else { "missed" };
            writeln!(f, "| {} | {} | {} | {verdict} |", line.scene, line.figure, line.target)?;
        }
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        write!(f, "\nOn {cores} cores, PostgreSQL 18 on the same machine")?;
        if let Some(fsync) = self.fsync_ms {
            write!(f, ", {fsync:.2} ms for the flush of one commit")?;
        }
        writeln!(f, ".")
    }
}
