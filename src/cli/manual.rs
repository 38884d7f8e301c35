//! `completions` and `man`: the command line as clap has it, for shells and for `man`.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::output::Output;

/// Print the completion script of a shell.
pub fn completions(shell: Shell, out: &Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meta-dispatch", &mut script);
    out.text(&String::from_utf8_lossy(&script))
}

/// Write a page for the program and one for each command.
pub fn man(folder: &Path, out: &Output) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(|| folder.display().to_string())?;
    out.text(&format!("man pages are in {}", folder.display()))
}
