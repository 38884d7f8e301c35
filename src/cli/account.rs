//! `account`: the customers who own lines, tokens and log rows.

use anyhow::{Context, ensure};
use clap::Subcommand;
use serde::Serialize;

use super::output::Output;
use super::table::{add, align_right, date_and_time, table, yes_no};
use super::{parse, token};
use crate::message::AccountId;
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
            out.answer(&accounts, |accounts| list(&accounts.accounts, out.width))
        }
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
            out.answer(&users, |users| list_users(&users.broker_users, out.width))
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

fn list_users(users: &[BrokerUserRow], width: u16) -> String {
    let mut table = table(width, &["USER", "CDCS_ID", "CREATED (UTC)"]);
    align_right(&mut table, [1]);
    for user in users {
        let created = date_and_time(user.created_at);
        add(&mut table, [user.broker_user.clone(), user.cdcs_id.to_string(), created]);
    }
    table.trim_fmt()
}
