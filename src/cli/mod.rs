//! The commands, their help, and what their exit codes are.
//!
//! 0 well · 1 failed · 2 bad usage or configuration · 3 not ready (the database is not set up).

mod exit;
mod surroundings;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::exit::{Exit, FAILED, NOT_READY, USAGE};
use self::surroundings::{admin_url_of_environment, colour_on_stderr, log_to_stderr, say, stop_on_signal};
use crate::config::{Config, Log};
use crate::paint::Paint;
use crate::postgres::Target;
use crate::{demo, doctor, pipeline, preview, reconcile, sandbox, setup, status};

/// Between two looks of `status --watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  benefits-sync demo                                         see it work, with nothing set up
  benefits-sync setup --config benefits-sync.toml --print    read what would be set up
  benefits-sync setup --config benefits-sync.toml --admin-url postgresql://postgres@db/hr
  benefits-sync run --config benefits-sync.toml

Every key of the configuration is also an environment variable: BENEFITS_SYNC_DATABASE__URL for url in [database].
Exit codes: 0 well, 1 failed, 2 bad usage or configuration, 3 not ready.";

/// Keeps a Benefits platform in step with an HR system's PostgreSQL database.
#[derive(Debug, Parser)]
#[command(name = "benefits-sync", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up roles, schema and publication; again and again without harm.
    Setup(SetupArgs),
    /// Take everything away that was set up, and say what.
    Teardown(AdminArgs),
    /// Run the pipeline until it is told to stop (SIGTERM, SIGINT).
    Run(ConfigArgs),
    /// Check every precondition and cost, and say what mends what is not well; writes nothing.
    Doctor(DoctorArgs),
    /// Show the state of things on one screen.
    Status(StatusArgs),
    /// Say what a first sync would do, to whom, and what blocks it; nothing is sent.
    Preview(PreviewArgs),
    /// Compare everyone in HR with what Benefits has acknowledged; who is out of step is delivered by run.
    Reconcile(reconcile::cli::ReconcileArgs),
    /// See it work: a throw-away PostgreSQL, a busy HR department, the pipeline and a simulated platform.
    Demo(demo::Args),
    /// Serve a simulated Benefits platform.
    Sandbox(Box<sandbox::cli::SandboxArgs>),
    /// Print a shell's completions, to be put where that shell looks for them.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages (for packages).
    #[command(hide = true)]
    Man {
        /// An existing directory.
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "BENEFITS_SYNC_CONFIG", default_value = "benefits-sync.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct AdminArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A DBA's login, to the database of database.url [default: the PG* environment variables].
    #[arg(long, value_name = "URL", env = "BENEFITS_SYNC_ADMIN_URL", hide_env_values = true)]
    admin_url: Option<String>,
}

#[derive(Debug, Args)]
struct SetupArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the SQL for a DBA to read and to run with psql, and change nothing.
    #[arg(long)]
    print: bool,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Look again every two seconds until interrupted, while PostgreSQL is away, too; with --json a line each time.
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
struct PreviewArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only this employee; may be given several times [default: everyone in HR].
    #[arg(long, value_name = "ID")]
    employee: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One core in so many is ours. The database is often beside us, and each update costs a fifth less on one thread than on two
/// that hand it to each other.
const WORKERS_SHARE: usize = 2;
/// One thread delivers more than 20,000 updates a second.
const WORKERS_MAX: usize = 4;

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() / WORKERS_SHARE);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(workers.clamp(1, WORKERS_MAX)).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::new(FAILED, error).report(),
    };
    match runtime.block_on(cli.command.execute()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

impl Command {
    async fn execute(self) -> Result<(), Exit> {
        match self {
            Self::Setup(args) => setup_command(args).await,
            Self::Teardown(args) => {
                let config = load(&args.config)?;
                let target = admin(&args, &config)?;
                say(&format!("database {target}"));
                for line in setup::remove(&target, &config).await? {
                    // What stays is in brackets.
                    say(&if line.starts_with('(') { line } else { format!("removed {line}") });
                }
                Ok(())
            }
            Self::Run(args) => {
                let config = load(&args)?;
                log_to_stderr(&config.log)?;
                run(config).await
            }
            Self::Doctor(args) => doctor_command(args).await,
            Self::Status(args) => status_command(args).await,
            Self::Preview(args) => preview_command(args).await,
            Self::Reconcile(args) => reconcile_command(args).await,
            Self::Demo(args) => demo_command(args).await,
            Self::Sandbox(args) => Ok(sandbox::cli::run(*args).await?),
            Self::Completions { shell } => {
                let mut command = Cli::command();
                let mut text = Vec::new();
                clap_complete::generate(shell, &mut command, "benefits-sync", &mut text);
                // clap_complete 4.6 spells a name with a hyphen in two ways, so that bash finds no command's flags.
                let text = String::from_utf8(text)?.replace("benefits__subcmd__sync", "benefits__sync");
                say(text.trim_end());
                Ok(())
            }
            Self::Man { directory } => Ok(clap_mangen::generate_to(Cli::command(), directory)?),
        }
    }
}

async fn setup_command(args: SetupArgs) -> Result<(), Exit> {
    let config = load(&args.admin.config)?;
    if args.print {
        // With a DBA's address only what that database lacks.
        let target = if args.admin.admin_url.is_some() { Some(admin(&args.admin, &config)?) } else { None };
        say(setup::script(target.as_ref(), &config).await?.trim_end());
        return Ok(());
    }
    let target = admin(&args.admin, &config)?;
    say(&format!("database {target}"));
    let changes = setup::changes(&target, &config).await?;
    for change in &changes {
        say(&format!("will {change}"));
    }
    if changes.is_empty() {
        say("nothing is missing; settings and privileges are set again");
    }
    // It says when it has to wait for others.
    log_to_stderr(&Log { level: "warn".to_owned(), ..config.log.clone() })?;
    for title in setup::apply(&target, &config).await? {
        say(&format!("done: {title}"));
    }
    say(
        "Next: describe the site with psql (see sql/demo/describe.sql for an example), then: benefits-sync run",
    );
    Ok(())
}

async fn doctor_command(args: DoctorArgs) -> Result<(), Exit> {
    let config = load(&args.config)?;
    let report = doctor::run(&config).await.map_err(|error| Exit::new(USAGE, error))?;
    let text = if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.render(Paint::for_stdout()).trim_end().to_owned()
    };
    say(&text);
    match report.worst() {
        _ if !report.set_up => Err(Exit::new(NOT_READY, anyhow::anyhow!("the database is not set up"))),
        doctor::Level::Failed => Err(Exit::new(FAILED, anyhow::anyhow!("some checks failed"))),
        doctor::Level::Ok | doctor::Level::Warning => Ok(()),
    }
}

async fn status_command(args: StatusArgs) -> Result<(), Exit> {
    let config = load(&args.config)?;
    let origin = config.origin.clone();
    let mut observer = status::Observer::new(config);
    let paint = Paint::for_stdout();
    loop {
        let looked = observer.look().await;
        let text = match looked {
            Ok(status) => match (args.json, args.watch) {
                (true, false) => serde_json::to_string_pretty(&status)?,
                (true, true) => serde_json::to_string(&status)?,
                (false, _) => status::render(&status, paint).trim_end().to_owned(),
            },
            // Whoever watches wants to see it come back.
            Err(error) if args.watch && error.is_passing() => {
                if args.json {
                    serde_json::json!({ "away": error.to_string() }).to_string()
                } else {
                    status::render_away(&error, paint)
                }
            }
            Err(error) => return Err(Exit::of_status(&origin, error)),
        };
        // On a terminal the screen is drawn over the one before.
        let clear = args.watch && !args.json && std::io::stdout().is_terminal();
        say(&format!("{}{text}", if clear { "\x1b[H\x1b[2J" } else { "" }));
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn preview_command(args: PreviewArgs) -> Result<(), Exit> {
    use preview::{Progress, Report, Scope};
    let config = load(&args.config)?;
    let scope = if args.employee.is_empty() { Scope::Everyone } else { Scope::Named(args.employee) };
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let progress = Progress::on_stderr();
    let mut report =
        if args.json { Report::json(&mut out, progress) } else { Report::text(&mut out, progress) };
    preview::run(&config, scope, &mut report).await.map_err(|error| Exit::of_preview(&config.origin, error))
}

async fn run(config: Config) -> Result<(), Exit> {
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let origin = config.origin.clone();
    pipeline::run(config, shutdown).await.map_err(|error| Exit::of_run(&origin, error))
}

async fn reconcile_command(args: reconcile::cli::ReconcileArgs) -> Result<(), Exit> {
    let config = Config::load(&args.config).map_err(|error| Exit::new(USAGE, error))?;
    log_to_stderr(&config.log)?;
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone()));
    let report = reconcile::cli::run(&config, &args, &shutdown)
        .await
        .map_err(|error| Exit::of_reconcile(&config.origin, error))?;
    if args.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(&report.table());
    }
    Ok(())
}

/// The first signal ends the edits, a second one everything. Dropping the demo takes its server away.
async fn demo_command(args: demo::Args) -> Result<(), Exit> {
    let bar = demo::terminal::Bar::default();
    let layer = tracing_subscriber::fmt::layer().with_ansi(colour_on_stderr()).with_writer(bar.clone());
    tracing_subscriber::registry().with(Targets::new().with_default(tracing::Level::WARN)).with(layer).init();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let twice = async move {
        stop_on_signal(stopped.clone()).await;
        stop_on_signal(stopped).await;
    };
    let in_step = tokio::select! {
        in_step = demo::show::run(&args, stop, bar) => in_step,
        () = twice => return Err(Exit::new(FAILED, anyhow::anyhow!("interrupted"))),
    };
    match in_step {
        Ok(true) => Ok(()),
        Ok(false) => Err(Exit::new(FAILED, anyhow::anyhow!("HR and Benefits are not in step"))),
        Err(error) => {
            let code = if error.is::<demo::show::ConfigFileError>() {
                USAGE
            } else if error.downcast_ref().is_some_and(demo::StageError::is_not_fetched) {
                NOT_READY
            } else {
                FAILED
            };
            Err(Exit::new(code, error))
        }
    }
}

fn load(args: &ConfigArgs) -> Result<Config, Exit> {
    Config::load(&args.config).map_err(|error| Exit::new(USAGE, error))
}

/// The DBA's way to the database of `database.url`, and to no other: what is set up there would be of no use to anybody.
fn admin(args: &AdminArgs, config: &Config) -> Result<Target, Exit> {
    let usage = |text: String| Exit::new(USAGE, anyhow::anyhow!(text));
    let ours = Target::for_ledger(&config.database).map_err(|error| Exit::new(USAGE, error))?.database;
    let (named, url) = match &args.admin_url {
        Some(url) => ("the admin URL (--admin-url, BENEFITS_SYNC_ADMIN_URL)", url.clone()),
        None => ("the PG* environment variables", admin_url_of_environment(&ours)),
    };
    let database = crate::config::Database {
        url: SecretString::from(url),
        password_file: None,
        ..config.database.clone()
    };
    let target = Target::for_ledger(&database).map_err(|error| usage(format!("{named}: {error}")))?;
    if target.database == ours {
        return Ok(target);
    }
    Err(usage(format!(
        "{named}: this is database {}, and database.url of {} is {ours}: name the same one in both",
        target.database,
        config.origin.of("database.url")
    )))
}
