//! Bootstrap only: see [`benefits_sync::cli`].

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    benefits_sync::cli::main()
}
