//! The surroundings of the program: a reader of its log, its supervisor and terminal, the environment, the limits of the
//! system, files that others move, poolers and proxies.

mod commands;
mod log_reader;
mod open_files;
mod pooler;
mod signals;
mod submissions;
mod variables;
mod without_broker;

use testkit::program::Program;

/// The program with an SQLite file in this folder, which is its working folder, and nobody for Graph.
fn program(folder: &tempfile::TempDir) -> Program {
    Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .in_folder(folder.path())
        .database(&format!("sqlite:{}", folder.path().join("log.db").display()))
        .graph("http://127.0.0.1:1/v25.0")
}
