//! The exchanges and queues on the server, declared by their users. The names for producers and listeners
//! stand in [`super::super::public`]; the others are internal and may change.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind, Result};
use uuid::Uuid;

use super::super::public::{self, Argument};

use crate::channel::Class;
use crate::domain::{PARTITIONS, Partition};

const WORK_PREFIX: &str = "cdls.work.";
const REPLY_PREFIX: &str = "cdls.reply.";

/// Queue of webhooks' bodies, each until it is applied.
pub(super) const WEBHOOKS: &str = "cdls.webhooks";
/// Queue of bodies that cannot be applied.
const WEBHOOKS_ASIDE: &str = "cdls.webhooks.aside";

/// No body is dropped: the queue has no limit of length. A body that has come back a hundred times, or is rejected, is set
/// aside. Bodies are given back every twenty minutes of an outage, so that a hundred times are more than a day.
const WEBHOOK_ARGUMENTS: public::Arguments = &[
    ("x-queue-type", Argument::Text("quorum")),
    ("x-delivery-limit", Argument::Number(100)),
    ("x-dead-letter-exchange", Argument::Text("")),
    ("x-dead-letter-routing-key", Argument::Text(WEBHOOKS_ASIDE)),
];

/// How many jobs a work queue keeps while no worker consumes it. Older ones are dropped: scans find
/// their work.
const WORK_QUEUE_JOBS: i64 = 10_000;

/// `cdls.work.00` to `cdls.work.63`.
pub(super) fn work_queue(partition: Partition) -> ShortString {
    format!("{WORK_PREFIX}{partition}").into()
}

/// Return the partition of a work queue.
pub(super) fn work_partition(queue: &str) -> Option<Partition> {
    let partition = queue.strip_prefix(WORK_PREFIX)?.parse().ok()?;
    (0..PARTITIONS).contains(&partition).then_some(Partition(partition))
}

/// Return a fresh name for a process's reply queue.
pub(super) fn new_reply_queue() -> String {
    format!("{REPLY_PREFIX}{}", Uuid::now_v7())
}

/// Return the reply queue that an address names, if it is one.
pub(super) fn reply_queue(address: &str) -> Option<ShortString> {
    address.strip_prefix(REPLY_PREFIX).and_then(|_| ShortString::try_new(address).ok())
}

/// Declare a work queue, durable and classic: losing a job is harmless, and a job need not be replicated. The
/// type is named because a virtual host may have another default.
pub(super) async fn declare_work_queue(channel: &Channel, partition: Partition) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(WORK_QUEUE_JOBS));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(work_queue(partition), options, arguments).await.map(drop)
}

/// Declare the exchanges and queues that all producers and listeners share, with the outlets for their mistakes.
///
/// The broker confirms messages that it cannot route. The exchange that producers publish to is therefore
/// declared last, when a queue stands behind its alternate exchange: until then a producer's publish fails,
/// because the exchange does not exist (404).
pub(super) async fn declare_public(channel: &Channel) -> Result<()> {
    declare_queue(channel, public::UNREADABLE, public::REJECTED_QUEUE_ARGUMENTS).await?;
    declare_queue(channel, public::SUBMIT, public::SUBMIT_QUEUE_ARGUMENTS).await?;
    declare_outlets(channel).await?;
    bind_exchanges(channel, public::SUBMIT, public::UNROUTED, table(public::SUBMIT_EXCHANGE_ARGUMENTS)).await
}

/// Declare the exchanges and the queue of one user's submissions, in the same order.
pub(super) async fn declare_own(channel: &Channel, user: &str) -> Result<()> {
    let (submit, unrouted) = (public::submit_of(user), public::unrouted_of(user));
    declare_queue(channel, public::UNREADABLE, public::REJECTED_QUEUE_ARGUMENTS).await?;
    declare_queue(channel, &submit, public::SUBMIT_QUEUE_ARGUMENTS).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("alternate-exchange".into(), AMQPValue::LongString(unrouted.as_str().into()));
    bind_exchanges(channel, &submit, &unrouted, arguments).await
}

/// Declare an exchange for submissions and its alternate, bound to the queue of the exchange's name.
async fn bind_exchanges(
    channel: &Channel,
    submit: &str,
    unrouted: &str,
    arguments: FieldTable,
) -> Result<()> {
    declare_exchange(channel, unrouted, ExchangeKind::Fanout, FieldTable::default()).await?;
    bind(channel, submit, unrouted, "").await?;
    declare_exchange(channel, submit, ExchangeKind::Direct, arguments).await?;
    for class in Class::ALL {
        bind(channel, submit, submit, class.as_str()).await?;
    }
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<()> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none).await
}

/// Declare the outlets to producers' operators and to listeners.
async fn declare_outlets(channel: &Channel) -> Result<()> {
    declare_queue(channel, public::REJECTED, public::REJECTED_QUEUE_ARGUMENTS).await?;
    declare_queue(channel, public::UNAUTHENTICATED, public::UNAUTHENTICATED_QUEUE_ARGUMENTS).await?;
    declare_events(channel, public::EVENTS).await
}

/// Declare an exchange of events: the one of all listeners, an account's, or that of webhooks' events.
pub(super) async fn declare_events(channel: &Channel, exchange: &str) -> Result<()> {
    declare_exchange(channel, exchange, ExchangeKind::Topic, FieldTable::default()).await
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel.exchange_declare(name.into(), kind, options, arguments).await
}

async fn declare_queue(channel: &Channel, name: &str, arguments: public::Arguments) -> Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, table(arguments)).await.map(drop)
}

fn table(arguments: public::Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString((*text).into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Yes => AMQPValue::Boolean(true),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// Declare the queue of webhooks, the one for bodies that cannot be applied, and the exchange of webhooks' events, so that
/// listeners can bind queues before the first event.
pub(super) async fn declare_webhooks(channel: &Channel) -> Result<()> {
    declare_queue(channel, WEBHOOKS_ASIDE, public::REJECTED_QUEUE_ARGUMENTS).await?;
    declare_queue(channel, WEBHOOKS, WEBHOOK_ARGUMENTS).await?;
    declare_events(channel, public::INBOUND).await
}

/// Return how many bodies of webhooks wait in the queue, and how many are set aside.
pub(super) async fn count_webhooks(channel: &Channel) -> Result<(u32, u32)> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let waiting = channel.queue_declare(WEBHOOKS.into(), options, FieldTable::default()).await?;
    let aside = channel.queue_declare(WEBHOOKS_ASIDE.into(), options, FieldTable::default()).await?;
    Ok((waiting.message_count(), aside.message_count()))
}

/// Declare a reply queue that lives as long as its connection.
pub(super) async fn declare_reply_queue(channel: &Channel, queue: ShortString) -> Result<()> {
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    channel.queue_declare(queue, options, FieldTable::default()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_queue_name_yields_its_partition() {
        assert_eq!(work_queue(Partition(7)).as_str(), "cdls.work.07");
        for partition in Partition::all() {
            assert_eq!(work_partition(work_queue(partition).as_str()), Some(partition));
        }
        for other in ["cdls.work.64", "cdls.work.-1", "cdls.work.", "cdls.submit"] {
            assert_eq!(work_partition(other), None, "{other}");
        }
    }

    #[test]
    fn replies_go_only_to_reply_queues() {
        assert!(reply_queue(&new_reply_queue()).is_some());
        assert_eq!(reply_queue("cdls.work.07"), None);
        assert_eq!(reply_queue(&format!("cdls.reply.{}", "x".repeat(255))), None);
    }
}
