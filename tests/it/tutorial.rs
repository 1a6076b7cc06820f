//! The README's tutorial, typed as it is written.
//!
//! See `support/console.rs`. Two things only are not as written: the port, which another run on this machine
//! may have, and where `benefits-sync` and `psql` are. `…` in an output stands for anything. A question (a `select` that
//! commands nothing) is asked again until it is answered as written, as a reader would who types fast.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use benefits_sync::demo::binaries::Binaries;

use crate::support::console::{Prompt, Psql, is_as_written, is_question, prove, steps};

/// The tutorial's port.
const PORT: &str = "54320";

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

/// What the tutorial's `psql` starts.
fn psql(typed: &str, port: &str) -> Psql {
    let program = Binaries::newest().unwrap().path("psql");
    let arguments = typed.strip_prefix("psql ").unwrap().replace(PORT, port);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(program).arg("-X").args(arguments.split_whitespace());
    Psql::start(command)
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

#[test]
fn the_tutorial_in_the_readme_runs_as_it_is_written() {
    let steps = steps(include_str!("../../README.md"), "## Tutorial");
    let directory = tempfile::tempdir().unwrap();
    let port = crate::support::port::own().to_string();
    let (mut demo, mut open) = (None, None);
    for step in &steps {
        match (step.prompt, step.typed.split_whitespace().next().unwrap()) {
            (Prompt::Shell, "make") => demo = Some(Demo::start(&step.typed, &port, directory.path())),
            (Prompt::Shell, "psql") => open = Some(psql(&step.typed, &port)),
            (Prompt::Shell, _) => prove(step, true, || run(&step.typed, directory.path())),
            (Prompt::Psql, "\\q") => drop(open.take()),
            (Prompt::Psql, _) => {
                let psql = open.as_mut().expect("psql is started before");
                prove(step, is_question(&step.typed), || psql.ask(&step.typed));
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
    let found = steps(text, "## Tutorial");
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
