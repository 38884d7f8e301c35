//! The program: see `cli`.

use std::ffi::OsStr;
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
const STACK_BYTES: usize = 256 * 1024 * 1024;

/// The number of tokio's threads; tokio reads it itself.
const THREADS: &str = "TOKIO_WORKER_THREADS";

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if cli.reads_what_producers_send() && !are_deep(env::var_os(STACK_VARIABLE).as_deref()) {
        // A program that cannot be started again goes on without deep stacks, and warns.
        cli.without_deep_stacks = Some(again_with_deep_stacks());
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

/// Whether stacks of this value of the variable are deep enough; std takes its default, 2 MiB, for one that is no number.
fn are_deep(variable: Option<&OsStr>) -> bool {
    let bytes = variable.and_then(OsStr::to_str).and_then(|text| text.parse::<usize>().ok());
    bytes.is_some_and(|bytes| bytes >= STACK_BYTES)
}

/// Start the program again, as the same process, with deeper stacks: lapin reads the tables in a message's
/// headers by recursion, in threads of its own with std's default stack. A producer that nests a thousand of
/// them would end the process.
fn again_with_deep_stacks() -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    match env::current_exe() {
        Ok(program) => {
            let stacks = STACK_BYTES.to_string();
            Command::new(program).arg0(name).args(arguments).env(STACK_VARIABLE, stacks).exec()
        }
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_stacks_of_the_environment_are_too_small() {
        for (variable, is_enough) in [
            (None, false),
            (Some("2097152"), false),
            (Some("268435455"), false),
            (Some("268435456"), true),
            (Some("1073741824"), true),
            (Some("256M"), false),
            (Some(""), false),
        ] {
            assert_eq!(are_deep(variable.map(OsStr::new)), is_enough, "{variable:?}");
        }
    }
}
