//! What systemd is told by the program itself, over a real socket; `/livez`.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use benefits_sync::demo::cluster::StopMode;

use crate::for_each_major;
use crate::support::site::{PATIENCE, Process, Site, eventually};

/// Reads datagrams until one has this line; what came before it.
fn until(manager: &UnixDatagram, line: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut seen, start) = (Vec::new(), Instant::now());
    let mut buffer = [0; 4096];
    while start.elapsed() < PATIENCE {
        let Ok(count) = manager.recv(&mut buffer) else { continue };
        let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
        let found = message.lines().any(&line);
        seen.push(message);
        if found {
            return seen;
        }
    }
    panic!("not told within {PATIENCE:?}; but {seen:?}");
}

fn manager(site: &Site) -> UnixDatagram {
    let manager = UnixDatagram::bind(site.directory.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    manager
}

fn launch(site: &Site) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_benefits-sync"))
        .args(["run", "--config"])
        .arg(site.config_file())
        .env("NOTIFY_SOCKET", site.directory.path().join("notify"))
        .env("WATCHDOG_USEC", "600000")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Process { child }
}

for_each_major! {
    async fn systemd_is_told_of_readiness_of_faults_of_every_turn_and_of_the_end(major: u32) {
        let site = Site::new(major).await;
        let manager = manager(&site);
        let process = launch(&site);
        tokio::task::block_in_place(|| {
            let before = until(&manager, |line| line == "READY=1");
            assert_eq!(before[0], "STATUS=waiting for PostgreSQL");
            until(&manager, |line| line == "STATUS=in order");
            for _ in 0..3 {
                until(&manager, |line| line == "WATCHDOG=1");
            }
        });
        site.hr.execute("select benefits.sync(array['1'])", &[]).await.unwrap();
        site.sandbox.set_suspended(true);
        site.hr.execute("update hr.employee set surname = 'Other' where id = 1", &[]).await.unwrap();
        tokio::task::block_in_place(|| {
            until(&manager, |line| line.starts_with("STATUS=delivery is halted"));
            // A halt is no reason to be restarted.
            until(&manager, |line| line == "WATCHDOG=1");
            process.signal("TERM");
            until(&manager, |line| line == "STOPPING=1");
        });
        assert!(process.ended().await.success());
    }

    async fn while_postgresql_is_away_at_the_start_health_is_served_and_a_stop_is_in_order(major: u32) {
        let (cluster, site) = Site::apart(crate::support::options(major), major).await;
        let manager = manager(&site);
        cluster.stop(StopMode::Immediate).await.unwrap();
        let waits = async || {
            let (status, text) = site.get("/readyz").await;
            status == 503 && text.contains("PostgreSQL is away: cannot connect to")
        };
        let process = launch(&site);
        eventually("it says what it waits for", waits).await;
        assert_eq!(site.get("/livez").await, (200, "ok\n".to_owned()));
        assert!(site.get("/metrics").await.1.contains("benefits_sync_up 1"));
        process.signal("TERM");
        tokio::task::block_in_place(|| {
            let told = until(&manager, |line| line == "STOPPING=1");
            assert!(!told.iter().any(|message| message == "READY=1"), "{told:?}");
        });
        assert!(process.ended().await.success(), "an orderly stop");

        let process = launch(&site);
        eventually("it waits again", waits).await;
        cluster.restart().await.unwrap();
        tokio::task::block_in_place(|| until(&manager, |line| line == "READY=1"));
        site.until_ready().await;
        process.kill9();
    }

    async fn the_process_is_alive_while_postgresql_and_the_platform_are_away(major: u32) {
        let (cluster, mut site) = Site::apart(crate::support::options(major), major).await;
        site.start().await;
        site.sandbox.set_suspended(true);
        cluster.stop(StopMode::Immediate).await.unwrap();
        eventually("it is not ready", async || site.get("/readyz").await.0 == 503).await;
        assert_eq!(site.get("/livez").await, (200, "ok\n".to_owned()));
        cluster.restart().await.unwrap();
    }
}
