//! What a package installs beside the program: completions and manual pages.

use std::process::{Command, Output};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_benefits-sync")).args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = program(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What bash would offer after these words.
fn offered_by_bash(words: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("completions");
    std::fs::write(&file, text(&["completions", "bash"])).unwrap();
    let script = format!(
        "source {}; COMP_WORDS=({words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         $(complete -p benefits-sync | sed 's/.* -F \\([^ ]*\\) .*/\\1/') benefits-sync '' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_their_flags() {
    let commands = offered_by_bash("benefits-sync");
    for command in ["setup", "teardown", "run", "doctor", "status", "preview", "reconcile", "completions"] {
        assert!(commands.iter().any(|offered| offered == command), "{command}: {commands:?}");
    }
    let flags = offered_by_bash("benefits-sync doctor");
    assert!(
        ["--config", "--json"].iter().all(|flag| flags.iter().any(|offered| offered == flag)),
        "{flags:?}"
    );
}

#[test]
fn zsh_and_fish_get_completions_of_their_own() {
    assert!(text(&["completions", "zsh"]).starts_with("#compdef benefits-sync"));
    assert!(text(&["completions", "fish"]).contains("complete -c benefits-sync"));
    assert_eq!(program(&["completions", "csh"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page_that_its_summary_leads_to() {
    let directory = tempfile::tempdir().unwrap();
    text(&["man", directory.path().to_str().unwrap()]);
    let page = |name: &str| {
        let path = directory.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let main = page("benefits-sync.1");
    assert!(main.contains("benefits\\-sync\\-doctor(1)") && main.contains("Exit codes"), "{main}");
    for command in ["setup", "teardown", "run", "doctor", "status", "preview", "reconcile", "demo", "sandbox"]
    {
        let page = page(&format!("benefits-sync-{command}.1"));
        assert!(page.contains(".SH OPTIONS") || page.contains("\\-\\-help"), "{command}: {page}");
    }
    assert!(!directory.path().join("benefits-sync-man.1").exists());
}
