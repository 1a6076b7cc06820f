//! A site on a server of its own, as a careful DBA sets it up: HR's tables belong to HR's role, the service and the reader
//! are logins of their own without any power, with passwords over SCRAM.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use benefits_sync::config::Config;
use benefits_sync::demo::{self, people};
use benefits_sync::postgres::Target;
use benefits_sync::sandbox::{RunningSandbox, Sandbox, SandboxOptions};
use benefits_sync::setup;
use tokio_postgres::Client;

use super::database::connect;
use super::{options, private_cluster_with};
use benefits_sync::demo::cluster::{Cluster, ClusterOptions};

pub const SERVICE_PASSWORD: &str = "keeps the ledger";
pub const READER_PASSWORD: &str = "reads the slot";

pub struct Logins {
    pub cluster: Cluster,
    /// As the superuser.
    pub admin: Client,
    pub sandbox: RunningSandbox,
    pub directory: tempfile::TempDir,
    pub http: u16,
}

impl Logins {
    /// Set up and described; nothing runs.
    pub async fn new(major: u32) -> Self {
        Self::bare(major).await.described().await
    }

    /// Sets up and describes.
    pub async fn described(self) -> Self {
        setup::apply(&self.admin_target(), &self.config()).await.unwrap();
        self.set_passwords().await;
        self.admin.batch_execute(demo::DESCRIPTION).await.unwrap();
        self
    }

    /// The HR database alone.
    pub async fn bare(major: u32) -> Self {
        Self::on(Self::options(major)).await
    }

    /// Settings of the server.
    pub fn options(major: u32) -> ClusterOptions {
        let mut options = options(major).setting("max_slot_wal_keep_size", "4GB");
        options.hba = ["benefits_service", "benefits_reader"]
            .map(|role| format!("host all {role} 127.0.0.1/32 scram-sha-256"))
            .to_vec();
        options
    }

    /// The HR database alone, on a server of these settings.
    pub async fn on(options: ClusterOptions) -> Self {
        let cluster = private_cluster_with(options).await;
        cluster.psql("postgres", "create database hr").await.unwrap();
        let mut hr = connect(&cluster.url("hr")).await;
        hr.batch_execute("create role hr_application; grant create on database hr to hr_application; set role hr_application")
            .await
            .unwrap();
        hr.batch_execute(demo::SCHEMA).await.unwrap();
        let mut people = people::People::new(7, jiff::civil::date(2026, 11, 1));
        people::load(&mut hr, &mut people, 30).await.unwrap();
        hr.batch_execute("update hr.employee set title = 'Mx' where title is null or title = ''")
            .await
            .unwrap();
        let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, SandboxOptions::default().token).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let admin = connect(&cluster.url("hr")).await;
        let http = crate::support::port::own();
        Self { cluster, admin, sandbox, directory, http }
    }

    pub async fn set_passwords(&self) {
        self.admin
            .batch_execute(&format!(
                "alter role benefits_service password '{SERVICE_PASSWORD}'; alter role benefits_reader password '{READER_PASSWORD}'"
            ))
            .await
            .unwrap();
    }

    pub fn admin_target(&self) -> Target {
        Target::parse(&self.cluster.url("hr")).unwrap()
    }

    /// The configuration's text, with `base_url`.
    pub fn text(&self) -> String {
        let login = |role: &str, password: &str| {
            self.cluster.url_as(&format!("{role}:{}", password.replace(' ', "%20")), "hr")
        };
        format!(
            "[database]\nurl = \"{}\"\nreplication_url = \"{}\"\n[ledger]\nfingerprint_key_file = \"{directory}/key\"\n\
             [benefits]\nplatform_id = \"demo\"\nbase_url = \"{}\"\ntoken_file = \"{directory}/token\"\n\
             email_source = \"work\"\n[http]\nlisten = \"127.0.0.1:{}\"\n",
            login("benefits_service", SERVICE_PASSWORD),
            login("benefits_reader", READER_PASSWORD),
            self.sandbox.base_url(),
            self.http,
            directory = self.directory.path().display(),
        )
    }

    pub fn config(&self) -> Config {
        Config::parse(&self.text(), "test", []).unwrap()
    }

    pub fn config_file(&self) -> PathBuf {
        let path = self.directory.path().join("config.toml");
        std::fs::write(&path, self.text()).unwrap();
        path
    }
}
