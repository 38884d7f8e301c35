//! `account`: the customers who own lines, tokens and log rows.

use anyhow::{Context, ensure};
use clap::Subcommand;
use ipnet::IpNet;
use serde::Serialize;

use super::output::Output;
use super::screen::Screen;
use super::table::{Column, Table, date_and_time, yes_no};
use super::token::{self, TokenTerms};
use super::{help, parse};
use crate::broker::public;
use crate::domain::AccountId;
use crate::edge::tokens::TokenKeys;
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
    /// Set the networks from which an account may be used; takes effect within 10 seconds
    #[command(after_help = help::ACCOUNT_ALLOW)]
    Allow {
        /// Id of the account
        #[arg(value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
        /// Network, or address, from which the account may be used; may be repeated
        #[arg(long = "network", value_name = "NETWORK", value_parser = parse::network, required_unless_present = "clear")]
        networks: Vec<IpNet>,
        /// Remove the networks that were set before
        #[arg(long)]
        clear: bool,
    },
    /// Let a RabbitMQ user send for an account; submissions with the checked user_id need no token
    #[command(after_help = help::ACCOUNT_MAP_USER)]
    MapUser {
        /// Id of the account
        #[arg(long, value_name = "CDCS_ID", value_parser = parse::id(AccountId))]
        account: AccountId,
        /// Name of the RabbitMQ user
        #[arg(long, value_name = "NAME", value_parser = parse::name)]
        user: String,
        /// Give the user an exchange and a queue of its own, cdls.submit.NAME; also for a user that is mapped already
        #[arg(long)]
        queue: bool,
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
struct AllowedNetworks {
    cdcs_id: AccountId,
    networks: Vec<String>,
}

#[derive(Serialize)]
struct MappedUser {
    broker_user: String,
    cdcs_id: AccountId,
    /// The exchange that it publishes to, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange: Option<String>,
    /// Mapped users that may name the same queues for answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overlapping: Vec<String>,
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

pub async fn run(
    command: AccountCommand,
    store: &dyn Store,
    keys: &TokenKeys,
    out: &Output,
) -> anyhow::Result<()> {
    match command {
        AccountCommand::Add { name } => {
            let account = store.add_account(&name).await?;
            let issued = token::issue(store, keys, account, TokenTerms::ANY).await;
            let token = issued.with_context(|| {
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
        AccountCommand::Allow { account, networks, clear } => {
            let networks = store.allow_networks(account, &networks, clear).await?;
            out.answer(&AllowedNetworks { cdcs_id: account, networks }, allowed)
        }
        AccountCommand::MapUser { account, user, queue } => {
            ensure!(
                !queue || user.len() <= public::LONGEST_USER,
                "the name of the user is too long for a queue: at most {} bytes",
                public::LONGEST_USER
            );
            store.map_broker_user(account, &user, queue).await?;
            let exchange = queue.then(|| public::submit_of(&user));
            let overlapping = overlapping(&user, &store.broker_users().await?);
            out.answer(&MappedUser { broker_user: user, cdcs_id: account, exchange, overlapping }, mapped)
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

fn allowed(allowed: &AllowedNetworks) -> String {
    let AllowedNetworks { cdcs_id, networks } = allowed;
    let from = if networks.is_empty() { "everywhere".to_owned() } else { networks.join(", ") };
    format!("account {cdcs_id} may be used from {from}; every process knows within 10 seconds")
}

/// Return the mapped users whose queues for answers overlap with those of `user`: one name and a dot begin the other.
fn overlapping(user: &str, mapped: &[BrokerUserRow]) -> Vec<String> {
    let begins = |short: &str, long: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
    let names = mapped.iter().map(|row| row.broker_user.as_str());
    names.filter(|other| begins(other, user) || begins(user, other)).map(str::to_owned).collect()
}

fn mapped(mapped: &MappedUser) -> String {
    let sends = format!("user {} sends for account {}", mapped.broker_user, mapped.cdcs_id);
    let mut text = match &mapped.exchange {
        Some(exchange) => format!(
            "{sends} over the exchange {exchange}, which is there within 10 seconds\n\
             `broker grants` prints the user's permissions"
        ),
        None => sends,
    };
    if !mapped.overlapping.is_empty() {
        let (user, others) = (&mapped.broker_user, mapped.overlapping.join(", "));
        text += &format!(
            "\nwarning: names overlap: {user} and {others} may name the same queues for answers; give users of different \
             accounts names of which none begins another up to a dot"
        );
    }
    text
}

async fn switch(account: AccountId, active: bool, store: &dyn Store, out: &Output) -> anyhow::Result<()> {
    ensure!(store.set_account_active(account, active).await?, "no account {account}");
    out.answer(&Switched { cdcs_id: account, cdcs_active: active }, |switched| {
        let word = if switched.cdcs_active { "enabled" } else { "disabled" };
        format!("account {} is {word}; every process knows within 10 seconds", switched.cdcs_id)
    })
}

fn list(accounts: &[AccountRow], screen: Screen) -> String {
    const COLUMNS: [Column; 5] = [
        Column::number("CDCS_ID"),
        Column::text("NAME", 12),
        Column::new("ACTIVE"),
        Column::text("NETWORKS", 12),
        Column::new("CREATED (UTC)"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for account in accounts {
        table.add([
            &account.cdcs_id.to_string(),
            &account.cdcs_name,
            yes_no(account.cdcs_active),
            &networks(account),
            &date_and_time(account.created_at),
        ]);
    }
    table.render()
}

/// Return the networks from which an account may be used.
fn networks(account: &AccountRow) -> String {
    if account.networks.is_empty() { "all".to_owned() } else { account.networks.join(",") }
}

fn list_users(users: &[BrokerUserRow], screen: Screen) -> String {
    const COLUMNS: [Column; 4] = [
        Column::text("USER", 12),
        Column::number("CDCS_ID"),
        Column::new("OWN QUEUE"),
        Column::new("CREATED (UTC)"),
    ];
    let mut table = Table::new(&COLUMNS, screen);
    for user in users {
        table.add([
            &user.broker_user,
            &user.cdcs_id.to_string(),
            yes_no(user.submit_queue),
            &date_and_time(user.created_at),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use time::macros::datetime;

    use super::super::table::widest;
    use super::*;

    #[test]
    fn users_with_a_dot_may_overlap() {
        let row = |name: &str| BrokerUserRow {
            broker_user: name.into(),
            cdcs_id: AccountId(7),
            submit_queue: false,
            created_at: datetime!(2026-11-23 14:15:20 UTC),
        };
        let mapped = ["shop", "shop.a", "shopping", "clinic.b"].map(row);
        assert_eq!(overlapping("shop", &mapped), ["shop.a"]);
        assert_eq!(overlapping("shop.a", &mapped), ["shop"]);
        assert_eq!(overlapping("clinic", &mapped), ["clinic.b"]);
        assert!(overlapping("shopping", &mapped).is_empty());
    }

    #[rstest]
    fn lists_fit_a_terminal(#[values(80, 160)] width: u16) {
        let screen = Screen { width: Some(width), colours: false };
        let name = "a name that is longer than any line 日本語 👍 ".repeat(9);
        let created_at = datetime!(2026-11-23 14:15:20 UTC);
        let account = AccountRow {
            cdcs_id: AccountId(7),
            cdcs_name: name.clone(),
            cdcs_active: true,
            networks: vec!["203.0.113.0/24".into(); 9],
            created_at,
        };
        let user = BrokerUserRow { broker_user: name, cdcs_id: AccountId(7), submit_queue: true, created_at };
        for text in [list(&[account], screen), list_users(&[user], screen)] {
            assert_eq!((text.lines().count(), widest(&text)), (2, width), "{text}");
            assert!(text.contains("2026-11-23 14:15") && text.contains('…'), "{text}");
        }
    }
}
