//! The README's `console` blocks, typed as they are written.
//!
//! Everything behind a prompt is run, in order: `$` by the shell's rules, `hr=#` in one psql. What follows is compared with what
//! is printed. `…` in an output stands for anything.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an answer may take to become what is written.
const PATIENCE: Duration = Duration::from_secs(30);
/// The end of an answer.
const END: &str = "-- end of the answer --";

/// What is typed, and what is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub prompt: Prompt,
    pub typed: String,
    pub seen: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    Shell,
    Psql,
}

/// A section: from its heading (`## Tutorial`, perhaps with more behind it) to the next heading of its level or above.
pub fn section<'t>(readme: &'t str, heading: &str) -> &'t str {
    let (_, text) = readme
        .split_once(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("the README has no section {heading}"));
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let ends = (2..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level))));
    text.split_at(ends.min().unwrap_or(text.len())).0
}

/// The steps of a section.
pub fn steps(readme: &str, heading: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut in_block = false;
    for line in section(readme, heading).lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
            continue;
        }
        if !in_block {
            continue;
        }
        if let Some(typed) = line.strip_prefix("$ ") {
            steps.push(Step { prompt: Prompt::Shell, typed: typed.to_owned(), seen: Vec::new() });
        } else if let Some(typed) = line.strip_prefix("hr=# ").or_else(|| line.strip_prefix("hr=*# ")) {
            steps.push(Step { prompt: Prompt::Psql, typed: typed.to_owned(), seen: Vec::new() });
        } else if let Some(more) = line.strip_prefix("hr-# ").or_else(|| line.strip_prefix("hr-*# ")) {
            let step = steps.last_mut().expect("a statement begins before it goes on");
            step.typed.extend(["\n", more]);
        } else {
            steps.last_mut().expect("an answer follows a question").seen.push(line.to_owned());
        }
    }
    steps
}

/// Whether `…` in what is written makes it what is seen. A line of it alone stands for any number of lines.
pub fn is_as_written(written: &[String], seen: &[String]) -> bool {
    match (written, seen) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == "…" => {
            is_as_written(rest, seen) || (!seen.is_empty() && is_as_written(written, &seen[1..]))
        }
        ([first, rest @ ..], [line, lines @ ..]) => {
            line_is_as_written(first.trim_end(), line.trim_end()) && is_as_written(rest, lines)
        }
        _ => false,
    }
}

fn line_is_as_written(written: &str, seen: &str) -> bool {
    let mut parts = written.split('…');
    let Some(mut rest) = seen.strip_prefix(parts.next().unwrap()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// A question can be asked again; what commands something cannot.
pub fn is_question(typed: &str) -> bool {
    const COMMANDS: [&str; 9] = [
        "sync",
        "assign_level",
        "transfer_link",
        "relink",
        "release",
        "discard",
        "pause",
        "resume",
        "pg_terminate_backend",
    ];
    typed.starts_with("select") && !COMMANDS.iter().any(|name| typed.contains(&format!("{name}(")))
}

/// Asks until the answer is as written, where it may be asked `again`.
pub fn prove(step: &Step, again: bool, mut ask: impl FnMut() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let seen = ask();
        if is_as_written(&step.seen, &seen) {
            return;
        }
        assert!(
            again && begun.elapsed() < PATIENCE,
            "{}\nis answered\n{}\nand the README says\n{}",
            step.typed,
            seen.join("\n"),
            step.seen.join("\n")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One psql for all statements.
pub struct Psql {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Psql {
    /// Starts `psql`, errors among the answers where they belong, and without a terminal, so that it asks for passwords here.
    pub fn start(mut psql: Command) -> Self {
        psql.env("LC_ALL", "C.UTF-8").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    pub fn ask(&mut self, typed: &str) -> Vec<String> {
        writeln!(self.input, "{typed}\n\\echo\n\\echo {END}").unwrap();
        let mut seen: Vec<String> = Vec::new();
        for line in &mut self.output {
            let line = line.unwrap();
            if line == END {
                // The line before it is the one that was begun for it.
                if seen.last().is_some_and(String::is_empty) {
                    seen.pop();
                }
                return seen;
            }
            seen.push(line);
        }
        panic!("psql has ended: {seen:?}")
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
