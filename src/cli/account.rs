//! `account`: the customers who own lines, tokens and log rows.

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time, yes_no};
use super::{parse, token};
use crate::domain::AccountId;
use crate::store::{AccountRow, BrokerUserRow, Store};

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Add an account and its first token; the token is shown only once
    Add {
        /// The customer's name
        #[arg(long, value_parser = parse::name)]
        name: String,
    },
    /// List the accounts
    List,
    /// Disable an account: its tokens are refused, and its messages wait; takes effect within 10 seconds
    Disable {
        /// Id of the account
        #[arg(value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
    },
    /// Enable a disabled account; its messages go out
    Enable {
        /// Id of the account
        #[arg(value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
    },
    /// Let a RabbitMQ user send for an account; submissions with the checked user_id need no token
    MapUser {
        /// Id of the account
        #[arg(long, value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
        /// Name of the RabbitMQ user
        #[arg(long, value_name = "NAME", value_parser = parse::name)]
        user: String,
    },
    /// Stop a RabbitMQ user from sending for its account; takes effect within 10 seconds
    UnmapUser {
        /// Name of the RabbitMQ user
        #[arg(long, value_name = "NAME", value_parser = parse::name)]
        user: String,
    },
    /// List the RabbitMQ users that send for an account
    ListUsers,
}

#[derive(Serialize)]
struct Switched {
    cdcs_id: AccountId,
    cdcs_active: bool,
}

#[derive(Serialize)]
struct MappedUser {
    broker_user: String,
    cdcs_id: AccountId,
}

#[derive(Serialize)]
struct UnmappedUser {
    unmapped: String,
}

#[derive(Serialize)]
struct BrokerUsers {
    broker_users: Vec<BrokerUserRow>,
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
            out.answer(&accounts, |accounts| list(&accounts.accounts, out.screen))
        }
        AccountCommand::Disable { account } => switch(account, false, store, out).await,
        AccountCommand::Enable { account } => switch(account, true, store, out).await,
        AccountCommand::MapUser { account, user } => {
            store.map_broker_user(account, &user).await?;
            out.answer(&MappedUser { broker_user: user, cdcs_id: account }, |mapped| {
                format!("user {} sends for account {}", mapped.broker_user, mapped.cdcs_id)
            })
        }
        AccountCommand::UnmapUser { user } => {
            ensure!(
                store.unmap_broker_user(&user).await?,
                "user {user} is not mapped to an account (account list-users shows those that are)"
            );
            out.answer(&UnmappedUser { unmapped: user }, |user| {
                format!(
                    "user {} sends for no account; every process refuses it within 10 seconds",
                    user.unmapped
                )
            })
        }
        AccountCommand::ListUsers => {
            let users = BrokerUsers { broker_users: store.broker_users().await? };
            out.answer(&users, |users| list_users(&users.broker_users, out.screen))
        }
    }
}

async fn switch(account: AccountId, active: bool, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(store.set_account_active(account, active).await?, "no account {account}");
    out.answer(&Switched { cdcs_id: account, cdcs_active: active }, |switched| {
        let word = if switched.cdcs_active { "enabled" } else { "disabled" };
        format!("account {} is {word}; every process knows within 10 seconds", switched.cdcs_id)
    })
}

fn list(accounts: &[AccountRow], screen: Screen) -> String {
    const COLUMNS: [Column; 4] = [
        Column::number("CDCS_ID"),
        Column::text("NAME", 12),
        Column::new("ACTIVE"),
        Column::new("CREATED (UTC)"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for account in accounts {
        table.add([
            &account.cdcs_id.to_string(),
            &account.cdcs_name,
            yes_no(account.cdcs_active),
            &date_and_time(account.created_at),
        ]);
    }
    table.render()
}

fn list_users(users: &[BrokerUserRow], screen: Screen) -> String {
    const COLUMNS: [Column; 3] =
        [Column::text("USER", 12), Column::number("CDCS_ID"), Column::new("CREATED (UTC)")];
    let mut table = Table::new(&COLUMNS, screen);
    for user in users {
        table.add([&user.broker_user, &user.cdcs_id.to_string(), &date_and_time(user.created_at)]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;

    #[rstest]
    fn lists_fit_a_terminal(#[values(80, 160)] width: u16) {
        let screen = Screen { width: Some(width), colours: false };
        let name = "a name that is longer than any line 日本語 👍 ".repeat(9);
        let created_at = datetime!(2026-11-23 14:15:20 UTC);
        let account =
            AccountRow { cdcs_id: AccountId(7), cdcs_name: name.clone(), cdcs_active: true, created_at };
        let user = BrokerUserRow { broker_user: name, cdcs_id: AccountId(7), created_at };
        for text in [list(&[account], screen), list_users(&[user], screen)] {
            assert_eq!((text.lines().count(), widest(&text)), (2, width), "{text}");
            assert!(text.contains("2026-11-23 14:15") && text.contains('…'), "{text}");
        }
    }
}
