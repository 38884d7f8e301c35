//! The names that producers and listeners rely on over RabbitMQ, with the arguments of their declarations
//! (contract: "RabbitMQ: for producers and listeners"). A test keeps `docs/asyncapi.json` in step.
//!
//! A client may declare these names itself, with exactly these arguments. All other names under `cdls.`
//! belong to meta-dispatch.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Exchange and queue that producers publish to; the routing key is the class.
pub const SUBMIT: &str = "cdls.submit";
/// Exchange and queue for submissions that fit no routing key of [`SUBMIT`]: such a submission is refused,
/// not lost.
pub const UNROUTED: &str = "cdls.unrouted";
/// Queue of refused submissions.
pub const REJECTED: &str = "cdls.rejected";
/// Queue of submissions that the AMQP client of this program cannot read, for operators: the submissions are
/// kept as they came, token and all.
pub const UNREADABLE: &str = "cdls.unreadable";
/// Topic exchange of events.
pub const EVENTS: &str = "cdls.events";
/// Queues of this prefix never receive an answer.
const RESERVED_PREFIX: &str = "cdls.";
/// The prefix of an address of direct reply-to.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether an answer may be sent to this queue: to no queue of meta-dispatch, and to an address of direct
/// reply-to only in the form that the broker writes into a submission,
/// `amq.rabbitmq.reply-to.<process>.<key>`, both in base64. Other addresses reach no queue, and RabbitMQ ends
/// the connection that publishes to one. Even a valid form may end it: see `rabbitmq::answers`.
pub fn takes_answers(queue: &str) -> bool {
    let is_base64 = |text: &str| !text.is_empty() && BASE64.decode(text).is_ok();
    match queue.strip_prefix(DIRECT_REPLY_TO) {
        Some(rest) => rest
            .strip_prefix('.')
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(process, key)| is_base64(process) && is_base64(key)),
        None => !queue.starts_with(RESERVED_PREFIX),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_avoid_reserved_and_forged_addresses() {
        for queue in [
            "answers",
            "amq.gen-Xa2",
            "shop.cdls.answers",
            "amq.rabbitmq.reply-to.g1h2AA1yZXBseUA5MjQ4ODg0AAAfNwAAAABrCaCc.kW5WDtHPIzvrWKuZaV3vLw==",
        ] {
            assert!(takes_answers(queue), "{queue}");
        }
        for queue in [
            "cdls.submit",
            "cdls.",
            "amq.rabbitmq.reply-to",
            "amq.rabbitmq.reply-to.",
            "amq.rabbitmq.reply-to.g2c=",
            "amq.rabbitmq.reply-to..a2V5",
            "amq.rabbitmq.reply-to.g2c=.",
            "amq.rabbitmq.reply-to.g2c=..a2V5",
            "amq.rabbitmq.reply-to.g2c=.a2V5.",
            "amq.rabbitmq.reply-to.g2c=.a2V5.a2V5",
            "amq.rabbitmq.reply-to.%%%.x",
            "amq.rabbitmq.reply-tog2c=.a2V5",
        ] {
            assert!(!takes_answers(queue), "{queue}");
        }
    }
}
