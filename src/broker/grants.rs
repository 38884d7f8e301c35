//! The rights on RabbitMQ that each user needs, and no more: this program's own, producers and listeners.
//!
//! The names are regular expressions, as RabbitMQ reads them. A test (`tests/it/permissions.rs`) runs with them.
//! Never here: users, which operators add.

use super::public;
use crate::domain::AccountId;

/// The rights of a user on one virtual host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rights {
    pub configure: String,
    pub write: String,
    pub read: String,
    /// The rights on the keys of topic exchanges, where they are bounded.
    pub topics: Vec<TopicRights>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicRights {
    pub exchange: String,
    pub write: String,
    pub read: String,
}

impl Rights {
    fn of(configure: impl Into<String>, write: impl Into<String>, read: impl Into<String>) -> Rights {
        Rights { configure: configure.into(), write: write.into(), read: read.into(), topics: Vec::new() }
    }

    /// Return the rights of an `ingest` process. It declares what producers and listeners use, consumes
    /// submissions, and publishes jobs, answers, refused submissions, events and the bodies of webhooks. A queue with a
    /// dead-letter exchange is declared by a user that may read the queue.
    pub fn of_ingest() -> Rights {
        Rights::of(
            r"^cdls\.(submit|unrouted|rejected|unreadable|events|inbound|webhooks|work|reply)(\..*)?$",
            r"^(amq\.default|cdls\.(submit|unrouted|events)(\..*)?)$",
            r"^cdls\.(submit|unrouted|webhooks|reply)(\..*)?$",
        )
    }

    /// Return the rights of a `worker` process. It consumes jobs and the bodies of webhooks, and publishes answers and
    /// events; it has no right on submissions.
    pub fn of_worker() -> Rights {
        Rights::of(
            r"^cdls\.(events|inbound|webhooks|work|reply)(\..*)?$",
            r"^(amq\.default|cdls\.inbound|cdls\.events(\..*)?)$",
            r"^cdls\.(webhooks|work|reply)(\..*)?$",
        )
    }

    /// Return the rights of a producer: to publish to its exchange, its own or the shared one, and to have queues
    /// for answers. It may not write to the default exchange, which leads into any queue.
    pub fn of_producer(user: &str, has_own_queue: bool) -> Rights {
        let exchange = if has_own_queue { public::submit_of(user) } else { public::SUBMIT.to_owned() };
        let own = format!(r"^(amq\.gen.*|{}\..*)$", escaped(user));
        Rights::of(own.clone(), format!("^{}$", escaped(&exchange)), own)
    }

    /// Return the rights of a listener that hears one account: to bind queues of its own to the account's
    /// exchange.
    pub fn of_listener(user: &str, account: AccountId) -> Rights {
        let (own, exchange) = (escaped(user), public::events_of(account));
        let queues = format!(r"^{own}\..*$");
        let read = format!(r"^({}|{own}\..*)$", escaped(&exchange));
        let topics = vec![TopicRights { exchange, write: "^$".to_owned(), read: ".*".to_owned() }];
        Rights { topics, ..Rights::of(queues.clone(), queues, read) }
    }

    /// Return the rights of a program that hears the events of Meta's webhooks, of all accounts: to bind queues of its
    /// own to their exchange.
    pub fn of_inbound_listener(user: &str) -> Rights {
        let (own, exchange) = (escaped(user), escaped(public::INBOUND));
        let queues = format!(r"^{own}\..*$");
        Rights::of(queues.clone(), queues, format!(r"^({exchange}|{own}\..*)$"))
    }

    /// Return the commands that grant the rights.
    pub fn commands(&self, vhost: &str, user: &str) -> Vec<String> {
        let (vhost, user) = (quoted(vhost), quoted(user));
        let Rights { configure, write, read, topics } = self;
        let mut commands = vec![format!(
            "rabbitmqctl set_permissions -p {vhost} {user} {} {} {}",
            quoted(configure),
            quoted(write),
            quoted(read)
        )];
        commands.extend(topics.iter().map(|TopicRights { exchange, write, read }| {
            let (exchange, write, read) = (quoted(exchange), quoted(write), quoted(read));
            format!("rabbitmqctl set_topic_permissions -p {vhost} {user} {exchange} {write} {read}")
        }));
        commands
    }
}

/// Return a name as a regular expression that fits it alone.
fn escaped(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if r"\.+*?()[]{}|^$".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// Return a word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producer_writes_to_its_exchange_alone() {
        let shared = Rights::of_producer("shop", false).commands("VHOST", "shop");
        assert_eq!(
            shared,
            [
                r"rabbitmqctl set_permissions -p VHOST shop '^(amq\.gen.*|shop\..*)$' '^cdls\.submit$' '^(amq\.gen.*|shop\..*)$'"
            ]
        );
        assert_eq!(Rights::of_producer("shop", true).write, r"^cdls\.submit\.shop$");
    }

    #[test]
    fn odd_names_fit_themselves_alone() {
        let commands = Rights::of_producer("o'neil (+1)", true).commands("/", "o'neil (+1)");
        assert_eq!(
            commands,
            [
                r"rabbitmqctl set_permissions -p / 'o'\''neil (+1)' '^(amq\.gen.*|o'\''neil \(\+1\)\..*)$' '^cdls\.submit\.o'\''neil \(\+1\)$' '^(amq\.gen.*|o'\''neil \(\+1\)\..*)$'"
            ]
        );
    }

    #[test]
    fn inbound_listener_hears_webhooks_alone() {
        let rights = Rights::of_inbound_listener("crm");
        assert_eq!(rights.read, r"^(cdls\.inbound|crm\..*)$");
        assert_eq!((rights.configure.as_str(), rights.write.as_str()), (r"^crm\..*$", r"^crm\..*$"));
    }

    #[test]
    fn listener_hears_one_account() {
        let rights = Rights::of_listener("listener-7", AccountId(7));
        assert_eq!(rights.read, r"^(cdls\.events\.7|listener-7\..*)$");
        assert_eq!(
            rights.commands("VHOST", "listener-7")[1],
            "rabbitmqctl set_topic_permissions -p VHOST listener-7 cdls.events.7 '^$' '.*'"
        );
    }
}
