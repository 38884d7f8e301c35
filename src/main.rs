//! The program: see `cli`.

use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::{env, io};

use clap::Parser;
use meta_dispatch::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The variable from which std's threads take the size of their stacks, once, when the program starts.
const STACK_VARIABLE: &str = "RUST_MIN_STACK";
/// Enough for the deepest header that fits into a frame of RabbitMQ (128 KiB). Memory is used only as deep as
/// a stack gets.
const STACK_BYTES: &str = "268435456";

/// The number of tokio's threads; tokio reads it itself.
const THREADS: &str = "TOKIO_WORKER_THREADS";

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.reads_what_producers_send() && env::var_os(STACK_VARIABLE).is_none() {
        // Where a new start is not possible the program does without.
        let _could_not = again_with_deep_stacks();
    }
    // Fails only if a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if env::var_os(THREADS).is_none() {
        runtime.worker_threads(threads());
    }
    let runtime = runtime.enable_all().build().expect("the system gives a runtime its threads");
    let code = runtime.block_on(cli::run(cli));
    // A name look-up that hangs in its own thread must not hold the exit up.
    runtime.shutdown_background();
    code
}

/// Return a quarter of the cores: a message's steps are short, and handing one to another thread costs more
/// than the step.
fn threads() -> usize {
    (std::thread::available_parallelism().map_or(1, NonZero::get) / 4).max(1)
}

/// Start the program again, as the same process, with deeper stacks: lapin reads the tables in a message's
/// headers by recursion, in threads of its own with std's default stack. A producer that nests a thousand of
/// them would end the process.
fn again_with_deep_stacks() -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    match env::current_exe() {
        Ok(program) => {
            Command::new(program).arg0(name).args(arguments).env(STACK_VARIABLE, STACK_BYTES).exec()
        }
        Err(error) => error,
    }
}
