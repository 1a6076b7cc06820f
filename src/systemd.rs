//! What systemd is told, by `sd_notify(3)`: datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names.
//!
//! | sent | when |
//! |---|---|
//! | `READY=1` | the configuration is good, metrics and health are served, PostgreSQL has been reached once |
//! | `STATUS=` | whenever what `/readyz` answers has changed |
//! | `WATCHDOG=1` | three times in `WatchdogSec`, for as long as every task turns over (`pipeline::pulse`) |
//! | `STOPPING=1` | at SIGTERM |
//!
//! Without the variable nothing is sent. A message that cannot be sent is dropped: there is nobody to tell.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pipeline::Health;

/// Between two looks at what the status is, where no watchdog asks for less.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// systemd shows one line.
const STATUS_MAX: usize = 200;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Systemd {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_for_us = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").filter(|_| is_for_us).and_then(|text| text.parse().ok());
        Self::new(variable("NOTIFY_SOCKET").as_deref(), watchdog.map(Duration::from_micros))
    }

    /// `socket` is a path, or an abstract name that begins with `@`.
    pub fn new(socket: Option<&str>, watchdog: Option<Duration>) -> Self {
        let to = socket.and_then(|name| match open(name) {
            Ok(to) => Some(to),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET cannot be used; systemd is told nothing");
                None
            }
        });
        Self { to, watchdog: watchdog.filter(|limit| !limit.is_zero()) }
    }

    /// Sends one message.
    pub fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.to else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!(%error, "systemd could not be told");
        }
    }

    /// Sends what is going on, in one line.
    pub fn status(&self, text: &str) {
        let line: String =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_MAX).collect();
        self.tell(&format!("STATUS={line}"));
    }

    /// Keeps the status true and the watchdog quiet until `shutdown`.
    pub async fn run(self, health: std::sync::Arc<Health>, shutdown: CancellationToken) {
        if self.to.is_none() {
            return;
        }
        let every = self.watchdog.map_or(LOOK_EVERY, |limit| LOOK_EVERY.min(limit / 3));
        let mut every = tokio::time::interval(every.max(Duration::from_millis(1)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = String::new();
        while shutdown.run_until_cancelled(every.tick()).await.is_some() {
            let stalled = health.pulse().stalled();
            if stalled.is_empty() && self.watchdog.is_some() {
                self.tell("WATCHDOG=1");
            }
            let faults: Vec<String> = stalled
                .iter()
                .map(ToString::to_string)
                .chain(health.faults().iter().map(ToString::to_string))
                .collect();
            let now = if faults.is_empty() { "in order".to_owned() } else { faults.join("; ") };
            if now != told {
                self.status(&now);
                told = now;
            }
        }
        self.stopping();
    }

    /// Sends that an orderly stop has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: what is under way ends first");
    }
}

fn open(name: &str) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold us up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pipeline::{TURNS_OVER_MAX, Task};

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        std::iter::from_fn(|| {
            let count = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
        })
        .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_kept_quiet_only_while_every_task_turns_over() {
        let name = format!("benefits-sync-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let (health, shutdown) = (Arc::new(Health::new()), CancellationToken::new());
        let watched = Arc::clone(&health);
        tokio::spawn(async move { watched.pulse().watch(Task::Reader, std::future::pending::<()>()).await });
        let systemd = Systemd::new(Some(&format!("@{name}")), Some(Duration::from_secs(30)));
        let running = tokio::spawn(systemd.run(Arc::clone(&health), shutdown.clone()));
        // Read as they come: the socket keeps ten of them.
        let pings = async |time: Duration| {
            let mut count = 0;
            for _ in 0..time.as_secs() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                count += received(&manager).iter().filter(|message| *message == "WATCHDOG=1").count();
            }
            count
        };
        assert!(pings(TURNS_OVER_MAX).await >= 50);
        pings(Duration::from_secs(5)).await;
        assert_eq!(pings(Duration::from_mins(1)).await, 0, "the reader hangs");
        shutdown.cancel();
        running.await.unwrap();
        assert!(received(&manager).last().unwrap().starts_with("STOPPING=1\n"));
    }

    #[tokio::test]
    async fn without_a_socket_nothing_is_sent_and_nothing_waits() {
        Systemd::new(None, Some(Duration::from_secs(1)))
            .run(Arc::new(Health::new()), CancellationToken::new())
            .await;
        Systemd::new(Some("/nowhere/at/all"), None).tell("READY=1");
    }
}
