//! `recipient`: what is known of one recipient of a line.

use anyhow::Context;
use clap::Subcommand;

use super::fields::fields;
use super::output::{Output, printable};
use super::parse;
use crate::domain::LineId;
use crate::store::{RecipientFacts, Scope, Store};
use crate::text::trimmed;

#[derive(Debug, Subcommand)]
pub enum RecipientCommand {
    /// Show what is known of a recipient: window, last message, reachable or not
    Show {
        /// Id of the line
        #[arg(value_name = "APP_ID", value_parser = parse::id(LineId))]
        line: LineId,
        /// Recipient's PSID or IGSID
        #[arg(value_parser = parse::name)]
        dest: String,
    },
}

pub async fn run(command: RecipientCommand, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    let RecipientCommand::Show { line, dest } = command;
    let facts = store.recipient(Scope::Operator, line, trimmed(&dest)).await?;
    let facts = facts.with_context(|| format!("there is no line {line} (line list shows the lines)"))?;
    out.answer(&facts, shown)
}

/// A field on each line.
fn shown(facts: &RecipientFacts) -> String {
    let fields = fields(facts).unwrap_or_default();
    let longest = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, text): &(String, String)| format!("{name:longest$}  {}\n", printable(text));
    fields.iter().map(line).collect()
}
