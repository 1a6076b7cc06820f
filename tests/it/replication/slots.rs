//! What is wrong with a slot, told apart by what mends it.

use std::time::Duration;

use benefits_sync::lsn::Lsn;
use benefits_sync::replication::{Connection, Problem, Remedy, ReplicationError};
use tokio::sync::watch;

use super::cluster::{Settings, majors, start_cluster};
use super::{LIMIT, create_slot, execute, problem, start};

#[tokio::test]
async fn what_is_wrong_with_a_slot_is_told_apart() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        execute(&cluster, "create publication \"Pub\"").await;

        let missing = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert_eq!((problem(&missing), missing.remedy()), (&Problem::SlotMissing, Remedy::RecreateSlot));

        execute(&cluster, "select pg_create_physical_replication_slot('slot')").await;
        let foreign = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert_eq!((problem(&foreign), foreign.remedy()), (&Problem::SlotForeign, Remedy::Configuration));
        execute(&cluster, "select pg_drop_replication_slot('slot')").await;

        create_slot(&cluster).await;
        let mut again = Connection::connect(&cluster.target()).await.unwrap();
        let exists = again.create_slot("slot", true, LIMIT).await.unwrap_err();
        assert_eq!(problem(&exists), &Problem::SlotExists);

        let stream = start(&cluster, confirmed.clone()).await.unwrap();
        let busy = start(&cluster, confirmed.clone()).await.err().unwrap();
        assert!(matches!(problem(&busy), Problem::SlotBusy { pid: Some(pid) } if *pid > 0), "{busy:?}");
        assert_eq!(busy.remedy(), Remedy::Retry);
        stream.close(LIMIT).await.unwrap();
        again.drop_slot("slot").await.unwrap();
    }
}

#[tokio::test]
async fn a_slot_whose_wal_is_gone_is_lost() {
    for major in majors() {
        let settings = Settings {
            config: vec!["max_slot_wal_keep_size = '1MB'", "min_wal_size = '32MB'", "max_wal_size = '32MB'"],
            ..Settings::default()
        };
        let cluster = start_cluster(major, &settings);
        execute(&cluster, "create publication \"Pub\"").await;
        create_slot(&cluster).await;
        let session = cluster.sql().await;
        for _ in 0..4 {
            session.batch_execute("select pg_logical_emit_message(false, 'x', 'y')").await.unwrap();
            session.batch_execute("select pg_switch_wal()").await.unwrap();
        }
        session.batch_execute("checkpoint").await.unwrap();
        let (_confirm, confirmed) = watch::channel(Lsn::ZERO);
        let lost = start(&cluster, confirmed).await.err().unwrap();
        assert_eq!((problem(&lost), lost.remedy()), (&Problem::SlotLost, Remedy::RecreateSlot), "{lost:?}");
    }
}

#[tokio::test]
async fn a_wal_level_below_logical_is_a_matter_of_configuration() {
    for major in majors() {
        let settings = Settings { config: vec!["wal_level = replica"], ..Settings::default() };
        let cluster = start_cluster(major, &settings);
        let mut connection = Connection::connect(&cluster.target()).await.unwrap();
        let error = connection.create_slot("slot", false, LIMIT).await.unwrap_err();
        assert!(matches!(&error, ReplicationError::WalLevel { found } if found == "replica"), "{error:?}");
        assert_eq!(error.remedy(), Remedy::Configuration);
    }
}

#[tokio::test]
async fn a_slot_that_waits_for_an_old_transaction_is_cancelled_and_leaves_nothing() {
    for major in majors() {
        let cluster = start_cluster(major, &Settings::default());
        let mut old = cluster.sql().await;
        let transaction = old.transaction().await.unwrap();
        transaction.batch_execute("select pg_current_xact_id()").await.unwrap();
        let mut connection = Connection::connect(&cluster.target()).await.unwrap();
        let error = connection.create_slot("slot", false, Duration::from_millis(300)).await.unwrap_err();
        assert!(matches!(error, ReplicationError::SlotCreationTimedOut { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("pg_stat_activity"));
        let left = connection.simple_query("select slot_name from pg_replication_slots").await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        transaction.commit().await.unwrap();
        connection.create_slot("slot", false, LIMIT).await.unwrap();
    }
}
