//! `account`: the customers who own lines, tokens and log rows.

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::table::{add, align_right, date_and_time, table, yes_no};
use super::{parse, token};
use crate::store::{AccountRow, Store};

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Add an account, with its first token; the token is shown this once
    Add {
        /// The customer's name
        #[arg(long, value_parser = parse::name)]
        name: String,
    },
    /// List the accounts
    List,
}

#[derive(Serialize)]
struct Accounts {
    accounts: Vec<AccountRow>,
}

pub async fn run(command: AccountCommand, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    match command {
        AccountCommand::Add { name } => {
            let account = store.add_account(&name).await?;
            let token = token::issue(store, account).await.with_context(|| {
                format!(
                    "account {account} was added without a token (token add --account {account} makes one)"
                )
            })?;
            out.answer(&token, |token| format!("account {account} added\n{}", token.human()))
        }
        AccountCommand::List => {
            let accounts = Accounts { accounts: store.accounts().await? };
            out.answer(&accounts, |accounts| list(&accounts.accounts, out.width))
        }
    }
}

fn list(accounts: &[AccountRow], width: u16) -> String {
    let mut table = table(width, &["CDCS_ID", "NAME", "ACTIVE", "CREATED (UTC)"]);
    align_right(&mut table, [0]);
    for account in accounts {
        add(
            &mut table,
            [
                &account.cdcs_id.to_string(),
                &account.cdcs_name,
                yes_no(account.cdcs_active),
                &date_and_time(account.created_at),
            ],
        );
    }
    table.trim_fmt()
}
