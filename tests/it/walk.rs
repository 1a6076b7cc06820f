//! The README's walk from nothing to the first employee, and its runbooks, typed as they are written.
//!
//! The settings, access lines, configuration and commands are taken out of the README. Other than written are: the host, port
//! and directories, the platform's address, `http.listen`; `sudo` runs the command, and `systemctl` starts what the unit's
//! `ExecStart` says, and ends it with SIGTERM. What HR does in between (it hires, it ends many at once) is done here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use benefits_sync::demo::cluster::Cluster;
use benefits_sync::demo::{self, people};
use benefits_sync::sandbox::{RunningSandbox, Sandbox, SandboxOptions};
use tokio_postgres::Client;

use crate::for_each_major;
use crate::support::certificates::{Certificates, certificates};
use crate::support::console::{Prompt, Psql, Step, is_question, prove, section, steps};
use crate::support::database::connect;
use crate::support::site::eventually;
use crate::support::{options, private_cluster_with};

const README: &str = include_str!("../../README.md");
const WALK: &str = "## Beside a real HR database";
/// Commands that only look.
const LOOKS: [&str; 3] = ["benefits-sync doctor", "benefits-sync status", "benefits-sync preview"];
/// The logins and the files that their passwords are in.
const PASSWORDS: [(&str, &str); 2] =
    [("benefits_service", "service-password"), ("benefits_reader", "reader-password")];

struct Walk {
    cluster: Cluster,
    hr: Client,
    sandbox: RunningSandbox,
    platform_id: &'static str,
    root: tempfile::TempDir,
    http: u16,
    psql: Option<Psql>,
}

/// The blocks of a language in a section.
fn blocks<'t>(heading: &str, language: &str) -> Vec<&'t str> {
    let fence = format!("\n```{language}\n");
    section(README, heading).split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// `name = value # comment` lines.
fn settings(block: &str) -> Vec<(String, String)> {
    let without_comment = |line: &str| line.split('#').next().unwrap().trim().to_owned();
    let pair = |line: String| {
        line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
    };
    block.lines().map(without_comment).filter_map(pair).collect()
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Walk {
    /// An HR database without people, on a server with the README's settings; the configuration is written, nothing is set up.
    async fn new(major: u32) -> Self {
        let ini = blocks(WALK, "ini");
        let Certificates { authority, server, key } = certificates();
        let mut options = options(major).setting("ssl", "on");
        options.settings.extend(settings(ini[0]));
        options.hba = ini[1].lines().map(|line| line.replace("192.0.2.17/32", "127.0.0.1/32")).collect();
        options.files = vec![
            ("server.crt".into(), server.pem().into()),
            ("server.key".into(), key.serialize_pem().into()),
        ];
        let cluster = private_cluster_with(options).await;
        cluster.psql("postgres", "create database hr").await.unwrap();
        let hr = connect(&cluster.url("hr")).await;
        hr.batch_execute("create role hr_application; grant create on database hr to hr_application; set role hr_application").await.unwrap();
        hr.batch_execute(demo::SCHEMA).await.unwrap();
        hr.batch_execute("reset role").await.unwrap();
        let sandbox = Self::platform("acme").await;
        let http = crate::support::port::own();
        let walk = Self {
            cluster,
            hr,
            sandbox,
            platform_id: "acme",
            root: tempfile::tempdir().unwrap(),
            http,
            psql: None,
        };
        walk.install(&authority);
        walk
    }

    async fn platform(id: &str) -> RunningSandbox {
        let options = SandboxOptions {
            platform_id: id.to_owned(),
            token: format!("token of {id}"),
            ..SandboxOptions::default()
        };
        Sandbox::start(options).await.unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What a package and the reader put into place before the first command.
    fn install(&self, authority: &str) {
        for directory in ["bin", "etc", "var"] {
            std::fs::create_dir(self.path(directory)).unwrap();
        }
        write(&self.path("etc/ca.pem"), authority, 0o644);
        for (login, file) in PASSWORDS {
            write(&self.path("etc").join(file), &format!("the first of {login}\n"), 0o600);
        }
        self.configure();
        write(&self.path("etc/describe.sql"), demo::DESCRIPTION, 0o644);
        let library = self.cluster.binaries().path("psql").parent().unwrap().with_file_name("lib");
        let tool = |name: &str, text: &str| {
            write(&self.path("bin").join(name), &format!("#!/bin/sh\n{text}\n"), 0o755);
        };
        tool("benefits-sync", &format!("exec {} \"$@\"", env!("CARGO_BIN_EXE_benefits-sync")));
        let psql = self.cluster.binaries().path("psql");
        tool(
            "psql",
            &format!("LD_LIBRARY_PATH={} exec {} -X \"$@\" 2>&1", library.display(), psql.display()),
        );
        tool("sudo", "[ \"$1\" != -u ] || shift 2\nexec \"$@\"");
        let unit = include_str!("../../packaging/benefits-sync.service");
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).unwrap();
        let stop = "kill -TERM $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.05; done; rm pid";
        tool(
            "systemctl",
            &format!(
                "cd {root}\ncase \"$*\" in\n'enable --now benefits-sync' | 'start benefits-sync') setsid {start} >>log 2>&1 </dev/null & echo $! >pid ;;\n\
             'disable --now benefits-sync' | 'stop benefits-sync') {stop} ;;\n*) echo \"unknown: $*\" >&2; exit 1 ;;\nesac",
                root = self.root.path().display(),
                start = self.here(start),
            ),
        );
    }

    /// The README's configuration, for the platform of the moment.
    fn configure(&self) {
        let id = self.platform_id;
        let toml = self
            .here(blocks(WALK, "toml")[0])
            .replace("platform_id = \"acme\"", &format!("platform_id = \"{id}\""))
            .replace("subdomain = \"acme\"", &format!("base_url = \"{}\"", self.sandbox.base_url()));
        assert!(toml.contains("base_url"), "{toml}");
        write(
            &self.path("etc/benefits-sync.toml"),
            &format!("{toml}\n[http]\nlisten = \"127.0.0.1:{}\"\n", self.http),
            0o640,
        );
        write(&self.path("etc/token"), &format!("token of {id}\n"), 0o600);
    }

    /// What is written, as it is called here.
    fn here(&self, text: &str) -> String {
        let root = self.root.path().display().to_string();
        let server = format!("localhost:{}", self.cluster.port());
        text.replace("platform acme", &format!("platform {}", self.platform_id))
            .replace("db.example:5432", &server)
            .replace("db.example", &server)
            .replace("/etc/benefits-sync", &format!("{root}/etc"))
            .replace("/var/lib/benefits-sync", &format!("{root}/var"))
            .replace("/tmp/setup.sql", &format!("{root}/setup.sql"))
    }

    /// Runs steps, all of them or those that hold.
    fn take(&mut self, steps: &[Step]) {
        for step in steps {
            let step = Step {
                prompt: step.prompt,
                typed: self.here(&step.typed),
                seen: step.seen.iter().map(|line| self.here(line)).collect(),
            };
            match step.prompt {
                Prompt::Shell if step.typed.starts_with("cd ") => {
                    assert_eq!(step.typed, format!("cd {}", self.path("etc").display()));
                }
                Prompt::Shell if step.typed.starts_with("psql ") => {
                    self.psql = Some(Psql::start(self.shell(&step.typed)));
                }
                Prompt::Shell => {
                    let again = LOOKS.iter().any(|look| step.typed.contains(look));
                    prove(&step, again, || self.run(&step.typed));
                }
                Prompt::Psql if step.typed == "\\q" => self.psql = None,
                Prompt::Psql => {
                    let typed = self.with_passwords(&step.typed);
                    let psql = self.psql.as_mut().expect("psql is started before");
                    if step.seen.is_empty() {
                        let seen = psql.ask(&typed).join("\n");
                        assert!(!seen.contains("ERROR") && !seen.contains("error:"), "{typed}: {seen}");
                    } else {
                        prove(&step, is_question(&typed), || psql.ask(&typed));
                    }
                }
            }
        }
    }

    /// psql asks for a password twice.
    fn with_passwords(&self, typed: &str) -> String {
        let Some(login) = typed.strip_prefix("\\password ") else { return typed.to_owned() };
        let (_, file) = PASSWORDS.into_iter().find(|(name, _)| *name == login).unwrap();
        let password = std::fs::read_to_string(self.path("etc").join(file)).unwrap();
        format!("{typed}\n{password}{}", password.trim_end())
    }

    fn shell(&self, typed: &str) -> Command {
        let mut command = Command::new("setsid");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        command.args(["--wait", "bash", "-c", typed]).env("PATH", path).current_dir(self.path("etc"));
        command.env_remove("BENEFITS_SYNC_CONFIG").env_remove("NOTIFY_SOCKET").env("NO_COLOR", "1");
        command
    }

    fn run(&self, typed: &str) -> Vec<String> {
        let output = self.shell(typed).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{typed}: {told}{}{}",
            String::from_utf8_lossy(&output.stdout),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// HR hires.
    async fn hire(&mut self, count: usize) {
        let mut generator = people::People::new(7, jiff::civil::date(2026, 11, 1));
        people::load(&mut self.hr, &mut generator, count).await.unwrap();
        self.hr.batch_execute("update hr.employee set title = 'Mx', leave_date = null").await.unwrap();
        self.until("everybody is known", &format!("select count(*) = {count} from benefits.employee_status"))
            .await;
    }

    async fn until(&self, what: &str, sql: &str) {
        eventually(what, async || self.hr.query_one(sql, &[]).await.is_ok_and(|row| row.get(0))).await;
    }

    async fn settled(&self) {
        self.until(
            "nothing is pending",
            "select not exists (select from benefits.pending) and not exists (select from benefits.request)",
        )
        .await;
    }

    async fn rename(&self, id: i64, name: &str) {
        self.hr.execute("update hr.employee set surname = $2 where id = $1", &[&id, &name]).await.unwrap();
        eventually(&format!("{name} is at the platform"), async || {
            self.sandbox
                .account_of(&id.to_string())
                .is_some_and(|account| account.get("surname") == Some(name))
        })
        .await;
    }

    fn dump(&self) -> String {
        let mut dump = self.cluster.binaries().client("pg_dump");
        let output = dump.args(["--schema-only", "-d", &self.cluster.url("hr")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.contains("restrict")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.path("pid")) {
            drop(Command::new("kill").args(["-KILL", pid.trim()]).status());
        }
    }
}

fn runbook(name: &str) -> Vec<Step> {
    let steps = steps(README, &format!("### {name}"));
    assert!(!steps.is_empty(), "{name}");
    steps
}

for_each_major! {
    async fn from_nothing_to_the_first_employee_and_away_again_by_the_readmes_commands_alone(major: u32) {
        let mut walk = Walk::new(major).await;
        let before = walk.dump();
        let all = steps(README, WALK);
        let first_look = all.iter().position(|step| step.typed.contains("preview")).unwrap();
        walk.take(&all[..first_look]);
        walk.hire(40).await;
        walk.take(&all[first_look..]);
        walk.rename(1, "Lovelace").await;

        // Runbooks, each with what calls for it.
        let pin = connect(&walk.cluster.url("hr")).await;
        pin.batch_execute("set application_name = 'payroll'; begin; select pg_current_xact_id()").await.unwrap();
        walk.take(&runbook("Lag grows"));
        drop(pin);

        for (login, file) in PASSWORDS {
            write(&walk.path("etc").join(file), &format!("the second of {login}\n"), 0o600);
        }
        walk.take(&runbook("Credentials are rotated"));
        walk.rename(1, "Hopper").await;
        walk.sandbox.set_token("renewed");
        write(&walk.path("etc/token"), "renewed\n", 0o600);
        walk.rename(1, "Noether").await;
        walk.sandbox.set_token("token of acme");
        write(&walk.path("etc/token"), "token of acme\n", 0o600);

        walk.hr.batch_execute("select benefits.sync(array(select id::text from hr.employee))").await.unwrap();
        walk.settled().await;
        walk.hr.batch_execute("update hr.employee set leave_date = '2027-03-31' where id <= 25").await.unwrap();
        walk.until("they are held", "select count(*) = 1 from benefits.hold where state = 'open' and cardinality(employee_ids) = 25").await;
        walk.take(&runbook("A mass change is held"));
        walk.settled().await;

        let moving = runbook("Moving to another platform");
        let away = moving.iter().position(|step| step.typed.contains("teardown")).unwrap();
        walk.take(&moving[..=away]);
        (walk.sandbox, walk.platform_id) = (Walk::platform("other").await, "other");
        walk.configure();
        walk.take(&all[..first_look]);
        walk.until("everybody is known", "select count(*) = 40 from benefits.employee_status").await;
        walk.take(&moving[away + 1..]);
        walk.settled().await;
        let counts = "select count(*) filter (where state = 'successful') = 40 from benefits.employee_status";
        walk.until("everybody is synced", counts).await;
        walk.rename(1, "Franklin").await;
        let history = std::fs::read_to_string(walk.path("etc/history.csv")).unwrap();
        assert!(history.lines().count() > 40);

        walk.take(&runbook("Taking it all away"));
        assert_eq!(walk.dump(), before);
        assert!(walk.sandbox.account_of("1").is_some(), "at Benefits nothing changes");

        let (accounts, witness) = (walk.sandbox.accounts().len(), walk.path("var/witness"));
        assert!(witness.exists(), "the README's configuration names it");
        walk.take(&all[..first_look]);
        walk.until("everybody is known", "select count(*) = 40 from benefits.employee_status").await;
        walk.take(&runbook("Setting up anew"));
        walk.rename(1, "Germain").await;
        assert_eq!(walk.sandbox.accounts().len(), accounts, "nobody has a second account");
        assert!(!walk.log().contains("set back"), "{}", walk.log());
    }
}

#[test]
fn every_link_within_the_readme_leads_somewhere() {
    let slug = |heading: &str| {
        let kept = heading.to_lowercase().replace('`', "");
        kept.chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
            .collect::<String>()
            .replace(' ', "-")
    };
    let mut anchors: Vec<String> = README
        .lines()
        .filter_map(|line| Some(slug(line.trim_start_matches('#').trim())).filter(|_| line.starts_with("##")))
        .collect();
    anchors.extend(README.split("<a id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    let links: Vec<&str> = README.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.len() >= 6, "{links:?}");
    for link in links {
        assert!(anchors.iter().any(|anchor| anchor == link), "#{link} leads nowhere: {anchors:?}");
    }
}

#[test]
fn files_that_the_readme_points_at_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in README.split('`').filter(|name| {
        ["tests/", "packaging/", "grafana/", "sql/", "src/"].iter().any(|start| name.starts_with(start))
            && !name.contains("FILE")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-.".contains(&b))
    }) {
        assert!(root.join(name).exists(), "{name}");
    }
}
