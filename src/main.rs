//! Bootstrap only: see [`benefits_sync::cli`].

fn main() -> std::process::ExitCode {
    benefits_sync::cli::main()
}
