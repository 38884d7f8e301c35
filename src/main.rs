//! The program: see `cli`.

use std::process::ExitCode;

use clap::Parser;
use meta_dispatch::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails only if a provider is installed already, and then there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the system gives a runtime its threads");
    let code = runtime.block_on(cli::run(cli));
    // A name look-up that hangs in its own thread must not hold the exit up.
    runtime.shutdown_background();
    code
}
