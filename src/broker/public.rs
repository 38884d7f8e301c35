//! The names that producers and listeners rely on over RabbitMQ, with the arguments of their declarations
//! (contract: "RabbitMQ: for producers and listeners"). A test keeps `docs/asyncapi.json` in step.
//!
//! A client may declare these names itself, with exactly these arguments. All other names under `cdls.`
//! belong to meta-dispatch.

use crate::domain::AccountId;

/// Exchange and queue that producers publish to; the routing key is the class.
pub const SUBMIT: &str = "cdls.submit";
/// Exchange and queue for submissions that fit no routing key of [`SUBMIT`]: such a submission is refused,
/// not lost.
pub const UNROUTED: &str = "cdls.unrouted";
/// Queue of refused submissions.
pub const REJECTED: &str = "cdls.rejected";
/// Queue of refused submissions of senders that are not known, without their bodies: these senders cannot push
/// the others' out of [`REJECTED`].
pub const UNAUTHENTICATED: &str = "cdls.rejected.unauthenticated";
/// Queue of submissions that the AMQP client of this program cannot read, for operators: the submissions are
/// kept as they came, token and all.
pub const UNREADABLE: &str = "cdls.unreadable";
/// Topic exchange of events.
pub const EVENTS: &str = "cdls.events";
/// Topic exchange of the events of Meta's webhooks, as they came.
pub const INBOUND: &str = "cdls.inbound";
/// Longest name of a user that may have a queue, in bytes: names of the broker have 255 at most, and
/// [`unrouted_of`] makes the longest of it.
pub const LONGEST_USER: usize = 255 - UNROUTED.len() - 1;

/// Return the exchange and the queue of one user of the broker, which mean the same as [`SUBMIT`].
pub fn submit_of(user: &str) -> String {
    format!("{SUBMIT}.{user}")
}

/// Return the exchange for a user's submissions that fit no routing key. It leads to the user's queue, never to
/// the shared one: a submission there could stop others.
pub fn unrouted_of(user: &str) -> String {
    format!("{UNROUTED}.{user}")
}

/// Return the topic exchange of one account's events, with the keys of [`EVENTS`].
pub fn events_of(account: AccountId) -> String {
    format!("{EVENTS}.{account}")
}

/// The value of a declaration's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    Text(&'static str),
    Number(i64),
    Yes,
}
use Argument::{Number, Text, Yes};

pub type Arguments = &'static [(&'static str, Argument)];

pub const SUBMIT_EXCHANGE_ARGUMENTS: Arguments = &[("alternate-exchange", Text(UNROUTED))];

/// One consumer at a time keeps a producer's order. A submission that has ended 20 sessions cannot be read;
/// under a limit, a submission that is given back keeps its place. A full queue refuses what producers
/// publish.
pub const SUBMIT_QUEUE_ARGUMENTS: Arguments = &[
    ("x-queue-type", Text("quorum")),
    ("x-single-active-consumer", Yes),
    ("x-delivery-limit", Number(20)),
    ("x-max-length", Number(1_000_000)),
    ("x-max-length-bytes", Number(1 << 30)),
    ("x-overflow", Text("reject-publish")),
    ("x-dead-letter-exchange", Text("")),
    ("x-dead-letter-routing-key", Text(UNREADABLE)),
];

/// At most 100,000, for 7 days. Also used for [`UNREADABLE`].
pub const REJECTED_QUEUE_ARGUMENTS: Arguments = &[
    ("x-queue-type", Text("classic")),
    ("x-max-length", Number(100_000)),
    ("x-message-ttl", Number(7 * 24 * 3600 * 1000)),
];

/// At most 10,000, for 7 days.
pub const UNAUTHENTICATED_QUEUE_ARGUMENTS: Arguments = &[
    ("x-queue-type", Text("classic")),
    ("x-max-length", Number(10_000)),
    ("x-message-ttl", Number(7 * 24 * 3600 * 1000)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_longest_user_fit() {
        let user = "x".repeat(LONGEST_USER);
        assert_eq!(submit_of("shop"), "cdls.submit.shop");
        assert_eq!(unrouted_of(&user).len(), 255);
        assert!(submit_of(&user).len() <= 255);
        assert_eq!(events_of(AccountId(7)), "cdls.events.7");
    }
}
