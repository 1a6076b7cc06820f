//! The demo as its user runs it, and what its verdict rests on.

use std::process::{Command, Output, Stdio};

fn demo(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .arg("demo")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

/// The number at the end of the summary's line that begins so.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("no {name:?}"));
    number.parse().unwrap_or_else(|_| panic!("{name:?} is {number:?}"))
}

#[test]
fn a_short_demo_ends_in_step_and_says_what_happened() {
    let output = demo(&["--employees", "60", "--edits-per-second", "20", "--for", "4s", "--seed", "5"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing to warn of");
    assert!(text.ends_with("\nIn step: what Benefits holds is what HR holds.\n"));
    assert!(!text.contains('\x1b'), "a pipe gets no colours");
    let synced = number(&text, "employees to be synced");
    assert!(synced >= 30, "half of the people and the starters, not {synced}");
    let refused = number(&text, "refused, for HR to mend");
    assert_eq!(number(&text, "the same on both sides") + refused, synced);
    assert_eq!(number(&text, "different"), 0);
    // Each delivery is one line, and is counted once.
    let lines = text.lines().filter(|line| line.contains("s  ✓ ") || line.contains("s  ✗ ")).count();
    let counted: u64 = ["created ", "linked ", "updated ", "rejected "]
        .iter()
        .filter(|name| text.contains(&format!("\n  {name} ")))
        .map(|name| number(&text, name))
        .sum();
    assert!(lines > 0);
    assert_eq!(u64::try_from(lines).unwrap(), counted);
    assert!(text.contains("99 % within (p99)"));
}

#[test]
fn a_demo_that_is_interrupted_shows_its_summary_and_leaves_nothing_behind() {
    let child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .args(["demo", "--employees", "40", "--for", "1h", "--seed", "6"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let (mut seen, mut child) = (String::new(), child);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    // The first delivery: HR is at work.
    for line in &mut lines {
        seen.push_str(&line.unwrap());
        if seen.contains("✓ ") {
            break;
        }
    }
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{seen}\n{}", rest.join("\n"));
    assert_eq!(rest.last().map(String::as_str), Some("In step: what Benefits holds is what HR holds."));
    let left: Vec<_> = std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("benefits-sync-{pid}-")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_leaves_a_configuration_that_is_there_already_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("benefits-sync.toml");
    std::fs::write(&path, "an operator's").unwrap();
    let output = demo(&["--employees", "1", "--for", "1s", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--config") && text.contains(path.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "an operator's");
}

#[test]
fn a_demo_without_postgresql_says_how_to_get_it() {
    let output = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .arg("demo")
        .env("BENEFITS_SYNC_POSTGRES", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("run tests/postgres/fetch 18"), "{text}");
}
