//! The server's processes, as Linux shows them, for [`Cluster::kill9`](super::Cluster::kill9).

use std::fs;
use std::io;
use std::process::{Command, Stdio};

/// Sends a signal to processes, of which some may have gone meanwhile.
pub(super) fn signal(name: &str, processes: &[u32]) -> io::Result<()> {
    // The shell's own kill: the program of that name is in a package that a bare machine lacks.
    let mut command = Command::new("sh");
    command.args(["-c", r#"kill "$@""#, "sh", &format!("-{name}")]);
    command.args(processes.iter().map(ToString::to_string));
    // A process that has gone meanwhile makes kill complain; the caller looks for itself who is left.
    let started = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.map(drop)
}

/// A process's state and parent, from `/proc/PID/stat`: the name before them may hold anything but ends at the last `)`.
pub(super) fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether the process runs; one that only waits to be collected by its parent does not.
pub(super) fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The processes that this one has started.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat(pid).is_some_and(|(_, its_parent)| its_parent == parent))
        .collect()
}
