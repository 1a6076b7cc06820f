//! The README's tutorial, typed as it is written.
//!
//! Everything behind a prompt in its `console` blocks is run, in order: `$` by the shell's rules, `hr=#` in one psql. What
//! follows is compared with what is printed. Two things only are not as written: the port, which another run on this machine
//! may have, and where `benefits-sync` and `psql` are. `…` in an output stands for anything. A question (a `select` that
//! commands nothing) is asked again until it is answered as written, as a reader would who types fast.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use benefits_sync::demo::binaries::Binaries;

/// How long an answer may take to become what is written.
const PATIENCE: Duration = Duration::from_secs(30);
/// The tutorial's port.
const PORT: &str = "54320";
/// The end of an answer.
const END: &str = "-- end of the answer --";

/// What is typed, and what is to be seen.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    prompt: Prompt,
    typed: String,
    seen: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    Shell,
    Psql,
}

/// The steps of the README's tutorial.
fn steps(readme: &str) -> Vec<Step> {
    let (_, tutorial) = readme.split_once("\n## Tutorial").expect("the README has a tutorial");
    let tutorial = tutorial.split("\n## ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    let mut in_block = false;
    for line in tutorial.lines() {
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
fn is_as_written(written: &[String], seen: &[String]) -> bool {
    match (written, seen) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == "…" => {
            is_as_written(rest, seen) || (!seen.is_empty() && is_as_written(written, &seen[1..]))
        }
        ([first, rest @ ..], [line, lines @ ..]) => {
            line_is_as_written(first, line.trim_end()) && is_as_written(rest, lines)
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
fn is_question(typed: &str) -> bool {
    const COMMANDS: [&str; 8] =
        ["sync", "assign_level", "transfer_link", "relink", "release", "discard", "pause", "resume"];
    typed.starts_with("select") && !COMMANDS.iter().any(|name| typed.contains(&format!("benefits.{name}(")))
}

/// The demo, interrupted as a person does it when this is dropped.
struct Demo {
    child: Child,
    directory: PathBuf,
}

impl Demo {
    /// Starts what `make demo ARGS="..."` starts, on another port, and waits until it says that it is ready.
    fn start(typed: &str, port: &str, directory: &Path) -> Self {
        let arguments = typed.strip_prefix("make demo ARGS=\"").and_then(|rest| rest.strip_suffix('"'));
        let arguments = arguments.unwrap_or_else(|| panic!("{typed}")).replace(PORT, port);
        let mut child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
            .arg("demo")
            .args(arguments.split_whitespace())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.find(|line| line.as_ref().unwrap().contains("Yours until Ctrl-C"));
        assert!(ready.is_some(), "the demo has ended");
        // What it says further must have somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, directory: directory.to_owned() }
    }

    fn interrupt(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        assert!(!self.directory.join("demo.toml").exists(), "nothing is left behind");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One psql for all statements.
struct Psql {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Psql {
    fn start(typed: &str, port: &str) -> Self {
        let program = Binaries::newest().unwrap().path("psql");
        let arguments = typed.strip_prefix("psql ").unwrap().replace(PORT, port);
        // Errors among the answers, where they belong.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(program)
            .args(["-X"])
            .args(arguments.split_whitespace())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, output }
    }

    fn ask(&mut self, typed: &str) -> Vec<String> {
        writeln!(self.input, "{typed}\n\\echo {END}").unwrap();
        let mut seen = Vec::new();
        for line in &mut self.output {
            let line = line.unwrap();
            if line == END {
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

/// Runs a `benefits-sync` of the tutorial.
fn run(typed: &str, directory: &Path) -> Vec<String> {
    let arguments = typed.strip_prefix("benefits-sync ").unwrap_or_else(|| panic!("{typed}"));
    let output = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{typed}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

/// Asks until the answer is as written, where it may be asked again.
fn prove(step: &Step, mut ask: impl FnMut() -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let seen = ask();
        if is_as_written(&step.seen, &seen) {
            return;
        }
        let again = step.prompt == Prompt::Shell || is_question(&step.typed);
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

#[test]
fn the_tutorial_in_the_readme_runs_as_it_is_written() {
    let steps = steps(include_str!("../../README.md"));
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (mut demo, mut psql) = (None, None);
    for step in &steps {
        match (step.prompt, step.typed.split_whitespace().next().unwrap()) {
            (Prompt::Shell, "make") => demo = Some(Demo::start(&step.typed, &port, directory.path())),
            (Prompt::Shell, "psql") => psql = Some(Psql::start(&step.typed, &port)),
            (Prompt::Shell, _) => prove(step, || run(&step.typed, directory.path())),
            (Prompt::Psql, "\\q") => drop(psql.take()),
            (Prompt::Psql, _) => {
                let psql = psql.as_mut().expect("psql is started before");
                prove(step, || psql.ask(&step.typed));
            }
        }
    }
    demo.expect("the tutorial starts the demo").interrupt();
    let told: Vec<&str> = steps.iter().flat_map(|step| step.seen.iter().map(String::as_str)).collect();
    for state in ["not_syncing", "in_progress", "successful", "failed"] {
        assert!(told.iter().any(|line| line.contains(state)), "the tutorial shows {state}");
    }
}

#[test]
fn steps_are_read_from_console_blocks_alone_and_the_ellipsis_stands_for_anything() {
    let text = "x\n## Tutorial\n```sh\n$ no\n```\n```console\n$ one two\nanswer\nhr=# begin\nhr-*# more;\nBEGIN\n```\n## Next\n```console\n$ no\n```\n";
    let found = steps(text);
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].prompt, found[0].typed.as_str(), found[0].seen.len()),
        (Prompt::Shell, "one two", 1)
    );
    assert_eq!((found[1].prompt, found[1].typed.as_str()), (Prompt::Psql, "begin\nmore;"));
    let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    assert!(is_as_written(&lines("a … c\n…\nend"), &lines("a b c  \nx\ny\nend")));
    assert!(!is_as_written(&lines("a … c"), &lines("a b d")));
    assert!(!is_as_written(&lines("a"), &lines("a\nb")));
    assert!(!is_as_written(&lines("a|…"), &lines("b|1")));
    assert!(is_question("select benefits.why('1');") && !is_question("select benefits.sync(array['1']);"));
}
