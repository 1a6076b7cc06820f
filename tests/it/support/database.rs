//! A database for one test.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use benefits_sync::demo::binaries::Binaries;
use benefits_sync::demo::cluster::{Cluster, Script, psql};
use tokio_postgres::{Client, NoTls};

use super::shared::{self, Server};

/// A database on the shared server; dropped, with every slot in it, when this is.
#[derive(Debug)]
pub struct TestDatabase {
    /// The URL, as the superuser.
    pub url: String,
    /// The database's name.
    pub name: String,
    /// A name for a replication slot that no other test uses. The slot itself is the test's to create.
    pub slot: String,
    /// None on a private cluster, which goes with everything in it.
    server: Option<&'static Server>,
    major: u32,
    binaries: Binaries,
}

/// An empty database on the shared server of this major version.
pub async fn database(major: u32) -> TestDatabase {
    database_from(major, "template1").await
}

/// A copy of the database `template` on the shared server of this major version. Nobody may be connected to it.
pub async fn database_from(major: u32, template: &str) -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(move || shared::server(major)).await.expect("a server");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("t{}_{number}_{:08x}", std::process::id(), rand::random::<u32>());
    let admin = connect(&server.url("postgres")).await;
    // Through the WAL: copying files would force a checkpoint for every test.
    let sql = format!(r#"create database "{name}" template "{template}" strategy wal_log"#);
    admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let slot = format!("s_{name}");
    let binaries = server.binaries.clone();
    TestDatabase { url: server.url(&name), slot, name, server: Some(server), major, binaries }
}

/// A new database on a private cluster.
pub async fn database_on(cluster: &Cluster, major: u32) -> TestDatabase {
    let name = "hr".to_owned();
    connect(&cluster.url("postgres")).await.batch_execute("create database hr").await.unwrap();
    let binaries = cluster.binaries().clone();
    TestDatabase { url: cluster.url(&name), slot: "s_hr".to_owned(), name, server: None, major, binaries }
}

/// A copy of a database that `prepare` (given its URL) has filled, once for all test processes and once for each
/// `content`: what it is made from (the migrations' text, say), so that an edit of that makes another template.
pub async fn database_prepared(major: u32, content: &str, prepare: impl AsyncFnOnce(String)) -> TestDatabase {
    let server = tokio::task::spawn_blocking(move || shared::server(major)).await.expect("a server");
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let template = format!("template_{:016x}", hasher.finish());
    let admin = connect(&server.url("postgres")).await;
    // Held until `admin` is dropped.
    admin.execute("select pg_advisory_lock(hashtextextended($1, 0))", &[&template]).await.expect("a lock");
    let exists = "select exists (select from pg_database where datname = $1)";
    if !admin.query_one(exists, &[&template]).await.expect("an answer").get::<_, bool>(0) {
        let unfinished = format!("unfinished_{template}");
        for sql in [
            format!(r#"drop database if exists "{unfinished}" with (force)"#),
            format!(r#"create database "{unfinished}""#),
        ] {
            admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        prepare(server.url(&unfinished)).await;
        let sql = format!(r#"alter database "{unfinished}" rename to "{template}""#);
        admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    drop(admin);
    database_from(major, &template).await
}

impl TestDatabase {
    /// A connection, as the superuser.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// The URL as another user.
    pub fn url_as(&self, user: &str) -> String {
        self.url.replacen("postgres@", &format!("{user}@"), 1)
    }

    /// The server's programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Runs SQL in psql, stopping at the first error; returns what it printed.
    pub async fn psql(&self, sql: &str) -> String {
        self.run(Script::Text(sql.to_owned())).await
    }

    /// Runs a file of the repository (a path from its root) in psql, stopping at the first error.
    pub async fn psql_file(&self, path: &str) -> String {
        self.run(Script::File(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))).await
    }

    async fn run(&self, script: Script) -> String {
        let (binaries, url) = (self.binaries.clone(), self.url.clone());
        let result = tokio::task::spawn_blocking(move || psql(&binaries, &url, &script)).await;
        result.expect("psql ran").unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(server) = self.server else { return };
        server.touch();
        let (admin, name) = (server.url("postgres"), self.name.clone());
        // A thread with a runtime of its own: the test's may be single-threaded, or have been shut down.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(clean(&admin, &name)).map_err(std::io::Error::other)
        });
        match cleaner.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("the database {} could not be dropped: {error:?}", self.name),
            Err(_) => eprintln!("the database {} could not be dropped", self.name),
        }
    }
}

/// Drops the slots of a database, with whoever reads from them, and then the database.
async fn clean(admin: &str, name: &str) -> Result<(), tokio_postgres::Error> {
    let client = try_connect(admin).await?;
    // A reader that was terminated takes a moment to let go of its slot, and a pipeline that is still running may take
    // it again: hence the loop, which is bounded.
    for _ in 0..500 {
        let sql = "select pg_terminate_backend(active_pid) from pg_replication_slots where database = $1 and active";
        client.execute(sql, &[&name]).await?;
        let sql = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active";
        // Somebody may have taken one between the look and the drop: then again.
        let dropped = client.execute(sql, &[&name]).await;
        let sql = "select count(*) from pg_replication_slots where database = $1";
        if dropped.is_ok() && client.query_one(sql, &[&name]).await?.get::<_, i64>(0) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.batch_execute(&format!(r#"drop database if exists "{name}" with (force)"#)).await
}

/// A connection that is driven until its client is dropped.
pub async fn connect(url: &str) -> Client {
    try_connect(url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
}

async fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
