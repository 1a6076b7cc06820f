//! Bootstrap only: see [`benefits_sync::cli`].

#![forbid(unsafe_code)]

/// A sixth of a delivery's time was the system's allocator: what one thread allocates another one often frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    benefits_sync::cli::main()
}
