//! `benefits-sync sandbox`: the simulated platform as a program of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Fault, FaultRule, OauthClient, Sandbox, SandboxOptions, self_registered};

const EXAMPLES: &str = "\
Examples:
  benefits-sync sandbox --listen 127.0.0.1:8080
  benefits-sync sandbox --listen 127.0.0.1:8080 --latency 20ms --seed-employees 500
  benefits-sync sandbox --listen 127.0.0.1:8080 --fault 429,share=0.05,retry-after=2
  benefits-sync sandbox --listen 127.0.0.1:8080 --fault lost-after,next=3,on=createEmployee
  benefits-sync sandbox --listen 127.0.0.1:8080 --fault reject,external-id=42 --fault slow,delay=30s,external-id=43

Faults can be changed while it runs:
  curl -d 'unavailable,share=0.5' http://127.0.0.1:8080/_sandbox/faults
  curl -X DELETE http://127.0.0.1:8080/_sandbox/faults
  curl http://127.0.0.1:8080/_sandbox/state

Kinds of fault: slow, slow-answer, rate-limited (429), unavailable (503), internal (500), internal-after, lost-before,
lost-after, half-answer, wrong-content-type, huge-body, invalid-json, redirect, unauthenticated (401), forbidden (403),
suspended, not-found (404), gone (410), reject (422). Each takes share=0..1, next=N, on=any|reads|writes|OPERATION and
external-id=ID; slow ones delay= and jitter=; rate-limited and unavailable retry-after=SECONDS or date:SECONDS.";

/// Serves a simulated Benefits platform, in memory, with faults on demand.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SandboxArgs {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// The bearer token that is accepted [default: sandbox-token].
    #[arg(long, value_name = "TOKEN", env = "BENEFITS_SANDBOX_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// A client that may fetch tokens, good for an hour, at /oauth2/token.
    #[arg(long, value_name = "ID:SECRET", value_parser = oauth_client)]
    pub oauth_client: Option<OauthClient>,
    /// The one platform id that exists.
    #[arg(long, value_name = "ID", default_value = "demo")]
    pub platform_id: String,
    /// Self-registered accounts to start with: people whom a first sync may link.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed_employees: usize,
    /// Seed of all random decisions; drawn and printed where it is not given.
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Every request waits so long before it is worked on (20ms, 1s).
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub latency: Option<Duration>,
    /// At most so much more than the latency, at random.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub jitter: Option<Duration>,
    /// A fault, `KIND[,name=value]...`; may be given several times (see below).
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<FaultRule>,
    /// Writes remembered for /_sandbox/journal; 0 remembers none.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub journal: usize,
    /// Idempotency keys remembered within their 24 hours, 1 to 1.5 kB each; the oldest go first.
    #[arg(long, value_name = "N", default_value_t = 250_000)]
    pub idempotency_keys: usize,
    /// The platform starts suspended.
    #[arg(long)]
    pub suspended: bool,
}

fn oauth_client(text: &str) -> Result<OauthClient, &'static str> {
    let (id, secret) = text.split_once(':').ok_or("give ID:SECRET")?;
    Ok(OauthClient { id: id.to_owned(), secret: secret.to_owned(), lifetime: Duration::from_hours(1) })
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: SandboxArgs) -> anyhow::Result<()> {
    let defaults = SandboxOptions::default();
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file);
            text.with_context(|| format!("cannot read the token file {}", file.display()))?.trim().to_owned()
        }
        (None, None) => defaults.token.clone(),
    };
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut faults = args.fault;
    if args.latency.is_some() || args.jitter.is_some() {
        let delay = args.latency.unwrap_or_default();
        faults.push(FaultRule::always(Fault::Slow { delay, jitter: args.jitter.unwrap_or_default() }));
    }
    let platform_id = args.platform_id;
    let sandbox = Sandbox::new(SandboxOptions {
        platform_id: platform_id.clone(),
        token,
        oauth_client: args.oauth_client,
        seed,
        faults,
        journal_max: args.journal,
        keys_max: args.idempotency_keys,
        ..defaults
    });
    sandbox.set_suspended(args.suspended);
    for account in self_registered(args.seed_employees, seed) {
        sandbox.seed(account)?;
    }

    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut out = std::io::stdout();
    writeln!(out, "sandbox: platform {platform_id} at http://{address}/api/v1 (seed {seed})")?;
    out.flush()?;
    sandbox.serve(listener, stop).await?;
    Ok(())
}
