//! Ports that are a test's own: whoever stops what listens at one can start it there again.
//!
//! A port that the kernel chose and that was given back is anybody's until somebody listens at it: another test's, or the near
//! end of a connection. So these are below those that the kernel hands out, and a file under `target/tmp/ports` is locked
//! for each, by the process that took it, until that ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Mutex;

use rand::Rng as _;

/// The kernel's own begin at 32,768 (`net.ipv4.ip_local_port_range`).
const RANGE: std::ops::Range<u16> = 24_000..28_000;

/// A port of 127.0.0.1 that nobody listens at, and that no other test takes before this process has ended.
pub fn own() -> u16 {
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    fs::create_dir_all(&directory).expect("target/tmp is writable");
    for _ in 0..RANGE.len() {
        let port = rand::thread_rng().gen_range(RANGE);
        let file = File::create(directory.join(port.to_string())).expect("target/tmp is writable");
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            TAKEN.lock().expect("nobody panicked here").push(file);
            return port;
        }
    }
    panic!("no port is left in {RANGE:?}");
}
