//! The measured program in a process of its own.

use std::process::{Child, Command};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::cost::stat_of;

/// The measured program.
pub struct Process {
    pub(super) child: Child,
    /// The port of its health.
    pub(super) http: u16,
}

impl Process {
    /// Whether `/readyz` says so.
    pub async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.http)).await else { return false };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await;
        asked.is_ok()
            && stream.read_to_string(&mut answer).await.is_ok()
            && answer.starts_with("HTTP/1.0 200")
    }

    /// User and system time so far.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = stat_of(&self.child.id().to_string()).unwrap();
        (stat[11] + stat[12]) as f64 / 100.0
    }

    pub fn rss_max_mb(&self) -> f64 {
        self.memory("VmHWM")
    }

    pub fn rss_mb(&self) -> f64 {
        self.memory("VmRSS")
    }

    fn memory(&self, which: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(which)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// SIGTERM, and waits.
    pub fn stop(mut self) {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
