//! The replication client against real servers, each major that is there.

mod cluster;
mod sessions;
mod slots;
mod streaming;

use std::time::Duration;

use benefits_sync::lsn::Lsn;
use benefits_sync::replication::{Connection, Problem, ReplicationError, StartOptions, Stream};
use tokio::sync::watch;

use self::cluster::Cluster;

const LIMIT: Duration = Duration::from_secs(30);

async fn create_slot(cluster: &Cluster) -> Lsn {
    let mut connection = Connection::connect(&cluster.target()).await.unwrap();
    connection.create_slot("slot", false, LIMIT).await.unwrap().consistent_point
}

async fn start(cluster: &Cluster, confirmed: watch::Receiver<Lsn>) -> Result<Stream, ReplicationError> {
    let connection = Connection::connect(&cluster.target()).await.unwrap();
    connection.start(StartOptions::new("slot", "Pub", confirmed)).await
}

async fn execute(cluster: &Cluster, statements: &str) {
    cluster.sql().await.batch_execute(statements).await.unwrap();
}

fn problem(error: &ReplicationError) -> &Problem {
    match error {
        ReplicationError::Server { problem, .. } => problem,
        other => panic!("not the server's error: {other:?}"),
    }
}
