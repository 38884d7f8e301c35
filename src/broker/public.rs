//! What producers and listeners are promised on RabbitMQ (contract 4): names, and the arguments with which they are
//! declared. `docs/asyncapi.json` says the same; a test holds the two together.
//!
//! A client may declare these itself, with exactly these arguments. All other names under `cdls.` are ours.

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
pub const OURS: &str = "cdls.";

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
