//! What producers and listeners are promised on RabbitMQ (contract 4): names, and the arguments with which they are
//! declared. `docs/asyncapi.json` says the same; a test holds the two together.
//!
//! A client may declare these itself, with exactly these arguments. All other names under `cdls.` are ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Exchange and queue that producers publish to; the routing key is the class.
pub const SUBMIT: &str = "cdls.submit";
/// Takes what fits no routing key of [`SUBMIT`], so that it is refused and not lost.
pub const UNROUTED: &str = "cdls.unrouted";
/// Queue of refused submissions.
pub const REJECTED: &str = "cdls.rejected";
/// Queue of submissions that no AMQP client of ours can read, for operators: they are kept as they came, token and all.
pub const UNREADABLE: &str = "cdls.unreadable";
/// Topic exchange of events.
pub const EVENTS: &str = "cdls.events";
/// A queue of one of these names is never replied to.
const OURS: &str = "cdls.";
/// What an address of direct reply-to begins with.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether an answer may be sent to this queue: to none of ours, and to an address of direct reply-to only in the form
/// that the broker writes into a submission, `amq.rabbitmq.reply-to.<process>.<key>`, both in base64. Others are nobody's,
/// and RabbitMQ ends the connection that publishes to one. It may still do so: see `rabbitmq::answers`.
pub fn takes_answers(queue: &str) -> bool {
    let is_base64 = |text: &str| !text.is_empty() && BASE64.decode(text).is_ok();
    match queue.strip_prefix(DIRECT_REPLY_TO) {
        Some(rest) => rest
            .strip_prefix('.')
            .and_then(|rest| rest.split_once('.'))
            .is_some_and(|(process, key)| is_base64(process) && is_base64(key)),
        None => !queue.starts_with(OURS),
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

/// One consumer at a time, so that a producer's order holds. A submission that has ended 20 sessions is one that
/// cannot be read; with a limit, what is given back keeps its place. When the queue is full, producers are told so.
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

/// At most 100,000, for 7 days. Used for [`UNREADABLE`] too.
pub const REJECTED_QUEUE_ARGUMENTS: Arguments = &[
    ("x-queue-type", Text("classic")),
    ("x-max-length", Number(100_000)),
    ("x-message-ttl", Number(7 * 24 * 3600 * 1000)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_any_queue_of_others_and_to_an_address_as_a_broker_makes_it() {
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
