//! The network and the clock between PostgreSQL and the stream: a worker that was suspended, packets that vanish, a disk
//! that is full for a while.

use std::net::SocketAddr;
use std::sync::Arc;

use benefits_sync::demo::cluster::{Cluster, StopMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::for_each_major;
use crate::support;
use crate::support::database::connect;
use crate::support::proof::prove;
use crate::support::site::{Site, eventually};

/// Passes bytes on, until it is told to swallow them: then nothing comes through any more, on connections old and new, and
/// nobody is told.
struct Hole {
    address: SocketAddr,
    swallow: watch::Sender<bool>,
}

impl Hole {
    async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (swallow, swallows) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_server, swallows.clone()));
                tokio::spawn(pass(from_server, to_client, swallows.clone()));
            }
        });
        Self { address, swallow }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut swallows: watch::Receiver<bool>) {
    let swallowed = async move { drop(swallows.wait_for(|swallow| *swallow).await) };
    let mut swallowed = std::pin::pin!(swallowed);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            biased;
            () = &mut swallowed => break,
            read = from.read(&mut buffer) => match read {
                Ok(count) if count > 0 => if to.write_all(&buffer[..count]).await.is_err() { return },
                _ => return,
            },
        }
    }
    // Both halves stay open: neither end hears of it.
    std::future::pending::<()>().await;
}

for_each_major! {
    async fn a_worker_suspended_for_twice_wal_sender_timeout_resumes(major: u32) {
        let options = support::options(major).setting("wal_sender_timeout", "1s");
        let (_cluster, site) = Site::apart(options, major).await;
        let process = site.spawn().await;
        site.sync(&["1", "2"]).await;
        process.signal("STOP");
        let change = "update hr.employee set surname = 'Meanwhile' where id <= 2";
        site.hr.execute(change, &[]).await.unwrap();
        eventually("the server has given the worker up", async || {
            let sql = "select count(*) from pg_replication_slots where active";
            site.hr.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        process.signal("CONT");
        prove(&site).await;
        assert_eq!(site.held("2", "surname").as_deref(), Some("Meanwhile"));
        site.until_ready().await;
        process.kill9();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_dropped_silently_are_noticed_and_the_stream_is_made_anew() {
    if !support::wanted(18) {
        return;
    }
    let mut site = Site::new(18).await;
    let port = url_port(&site.database.url);
    let hole = Hole::before(port).await;
    let through = site.database.url.replace(&format!(":{port}/"), &format!(":{}/", hole.address.port()));
    site.more_of_database = format!("replication_url = \"{through}\"\nidle_limit = \"1s\"\n");
    site.start().await;
    site.sync(&["1"]).await;
    hole.swallow.send_replace(true);
    site.hr.execute("update hr.employee set surname = 'Lost' where id = 1", &[]).await.unwrap();
    eventually("it says so", async || {
        let (status, text) = site.get("/readyz").await;
        status == 503 && text.contains("not streaming")
    })
    .await;
    assert!(site.get("/metrics").await.1.contains("benefits_sync_replication_connected 0"));
    hole.swallow.send_replace(false);
    prove(&site).await;
    assert_eq!(site.held("1", "surname").as_deref(), Some("Lost"));
    site.until_ready().await;
    site.stop().await;
}

fn url_port(url: &str) -> u16 {
    let host = url.split('@').nth(1).unwrap().split('/').next().unwrap();
    host.split(':').nth(1).unwrap().parse().unwrap()
}

/// WAL on a small tmpfs that fills up: PostgreSQL refuses, panics and restarts as it likes; once there is room all is
/// as it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_a_while_loses_nothing() {
    if !support::wanted(18) {
        return;
    }
    let (cluster, mut site) = Site::apart(support::options(18), 18).await;
    let Some(disk) = SmallDisk::under_wal_of(&cluster).await else {
        eprintln!("left out: mounting a tmpfs needs root and the capability");
        return;
    };
    site.hr = connect(&site.database.url).await;
    let process = site.spawn().await;
    site.sync(&["1", "2"]).await;
    disk.fill();
    let filler = "create table filler as select repeat('x', 1000) as x from generate_series(1, 200000)";
    assert!(site.hr.batch_execute(filler).await.is_err(), "the disk is not full");
    eventually("the service feels it", async || site.get("/readyz").await.0 == 503).await;
    disk.clear();
    // Where the server went down for want of space somebody starts it again.
    if tokio_postgres::connect(&site.database.url, tokio_postgres::NoTls).await.is_err() {
        drop(cluster.stop(StopMode::Immediate).await);
        cluster.restart().await.unwrap();
    }
    site.hr = connect(&site.database.url).await;
    site.hr.execute("update hr.employee set surname = 'Space' where id <= 2", &[]).await.unwrap();
    prove(&site).await;
    assert_eq!(site.held("2", "surname").as_deref(), Some("Space"));
    process.kill9();
    drop(disk);
}

/// A tmpfs in place of a cluster's `pg_wal`; unmounted when dropped.
struct SmallDisk {
    path: Arc<std::path::Path>,
}

impl SmallDisk {
    async fn under_wal_of(cluster: &Cluster) -> Option<Self> {
        cluster.stop(StopMode::Fast).await.unwrap();
        let wal = cluster.directory().join("data/pg_wal");
        let kept = cluster.directory().join("kept_wal");
        let run = |program: &str, args: &[&str]| {
            let done = std::process::Command::new(program).args(args).output();
            done.is_ok_and(|output| output.status.success())
        };
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        std::fs::rename(&wal, &kept).ok()?;
        std::fs::create_dir(&wal).ok()?;
        let mounted = run("mount", &["-t", "tmpfs", "-o", "size=128m", "tmpfs", &text(&wal)]);
        run(
            "sh",
            &[
                "-c",
                "cp -a \"$1\"/. \"$2\"/ && chown -R --reference=\"$1\" \"$2\"",
                "sh",
                &text(&kept),
                &text(&wal),
            ],
        );
        let disk = Self { path: wal.into() };
        cluster.restart().await.unwrap();
        mounted.then_some(disk)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("ballast")).unwrap();
        let block = vec![0_u8; 1 << 20];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn clear(&self) {
        std::fs::remove_file(self.path.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still have files in it, and goes right after.
        drop(std::process::Command::new("umount").arg("-l").arg(&*self.path).status());
    }
}
