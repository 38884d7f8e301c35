//! `broker grants`: the rights on RabbitMQ of this program, of producers and of listeners, as commands for the
//! operator. Never here: a change of the broker.

use std::collections::BTreeSet;

use anyhow::ensure;
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::output::Output;
use super::parse;
use crate::broker::grants::Rights;
use crate::settings::BrokerSettings;
use crate::store::{BrokerUserRow, Store};

/// The names of the program's own users in the commands; the operator may choose others.
const INGEST_USER: &str = "meta-dispatch-ingest";
const WORKER_USER: &str = "meta-dispatch-worker";
/// The name of a program that hears the events of Meta's webhooks.
const INBOUND_USER: &str = "listener-inbound";

#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// Print the rabbitmqctl commands that give each RabbitMQ user its permissions, and no more
    #[command(after_help = super::help::BROKER_GRANTS)]
    Grants {
        /// Name of a user that `account map-user` has mapped; may be repeated (default: all users)
        #[arg(long = "user", value_name = "NAME", value_parser = parse::name)]
        users: Vec<String>,
    },
}

#[derive(Serialize)]
struct Grants {
    grants: Vec<Grant>,
}

#[derive(Serialize)]
struct Grant {
    user: String,
    purpose: String,
    #[serde(flatten)]
    rights: Rights,
    commands: Vec<String>,
}

pub async fn run(
    command: BrokerCommand,
    store: &dyn Store,
    settings: &BrokerSettings,
    out: &Output,
) -> anyhow::Result<()> {
    let BrokerCommand::Grants { users: wanted } = command;
    let url = settings.url.expose_secret();
    ensure!(url != "embedded", "setting broker.url is embedded: only RabbitMQ has users");
    let mapped = store.broker_users().await?;
    for name in &wanted {
        ensure!(
            mapped.iter().any(|user| user.broker_user == *name),
            "user {name} is not mapped to an account (account map-user --user {name} does that)"
        );
    }
    let grants = Grants { grants: grants(&mapped, &wanted, &vhost(url)) };
    out.answer(&grants, |grants| commands(&grants.grants))
}

/// Return the grants of the wanted users and of a listener for each of their accounts; where none is wanted in
/// particular, of all users and of the program.
fn grants(mapped: &[BrokerUserRow], wanted: &[String], vhost: &str) -> Vec<Grant> {
    let grant = |user: &str, purpose: String, rights: Rights| {
        let commands = rights.commands(vhost, user);
        Grant { user: user.to_owned(), purpose, rights, commands }
    };
    let mut grants = Vec::new();
    if wanted.is_empty() {
        grants.push(grant(INGEST_USER, "ingest (serve has both grants)".into(), Rights::of_ingest()));
        grants.push(grant(WORKER_USER, "worker".into(), Rights::of_worker()));
        let purpose = "listener to Meta's events of all accounts (events.inbound)".to_owned();
        grants.push(grant(INBOUND_USER, purpose, Rights::of_inbound_listener(INBOUND_USER)));
    }
    let shown = || mapped.iter().filter(|user| wanted.is_empty() || wanted.contains(&user.broker_user));
    for user in shown() {
        let purpose = format!("producer of account {}", user.cdcs_id);
        let rights = Rights::of_producer(&user.broker_user, user.submit_queue);
        grants.push(grant(&user.broker_user, purpose, rights));
    }
    let accounts: BTreeSet<_> = shown().map(|user| user.cdcs_id).collect();
    for account in accounts {
        let (user, purpose) =
            (format!("listener-{account}"), format!("listener to events of account {account}"));
        let rights = Rights::of_listener(&user, account);
        grants.push(grant(&user, purpose, rights));
    }
    grants
}

/// Return the virtual host that a URL names.
fn vhost(url: &str) -> String {
    let path = url::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    let name = percent_encoding::percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy();
    if name.is_empty() { "/".to_owned() } else { name.into_owned() }
}

fn commands(grants: &[Grant]) -> String {
    let grants = grants.iter().map(|grant| format!("# {}\n{}\n", grant.purpose, grant.commands.join("\n")));
    grants.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::AccountId;

    fn user(name: &str, account: i64, submit_queue: bool) -> BrokerUserRow {
        let created_at = datetime!(2026-11-23 14:15:20 UTC);
        BrokerUserRow { broker_user: name.into(), cdcs_id: AccountId(account), submit_queue, created_at }
    }

    #[test]
    fn each_user_has_its_own_commands() {
        let mapped = [user("clinic", 2, false), user("shop", 1, true)];
        let names = |grants: &[Grant]| grants.iter().map(|grant| grant.user.clone()).collect::<Vec<_>>();
        let all = grants(&mapped, &[], "/");
        assert_eq!(
            names(&all),
            [INGEST_USER, WORKER_USER, INBOUND_USER, "clinic", "shop", "listener-1", "listener-2"]
        );
        let one = grants(&mapped, &["shop".to_owned()], "prod");
        assert_eq!(names(&one), ["shop", "listener-1"]);
        let text = commands(&one);
        let first = "# producer of account 1\nrabbitmqctl set_permissions -p prod shop ";
        assert!(text.starts_with(first) && text.contains(r"'^cdls\.submit\.shop$'"), "{text}");
    }

    #[test]
    fn virtual_host_is_that_of_the_url() {
        for (url, name) in [
            ("amqp://u:p@host:5672/%2f", "/"),
            ("amqp://u:p@host/prod", "prod"),
            ("amqp://host", "/"),
            ("amqps://host/a%20b", "a b"),
        ] {
            assert_eq!(vhost(url), name, "{url}");
        }
    }
}
