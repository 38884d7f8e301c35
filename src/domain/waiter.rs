//! The receiver of a row's outcome: a request that waits in some process, or the producer of a submission.

use serde::{Deserialize, Serialize};

use super::AccountId;

/// The prefix of a column that names a producer. No reply queue of a process begins with it.
const PRODUCER: &str = "amqp:";

/// The place where a row's outcome is awaited, as its column `waiter` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiter {
    /// `<reply address>/<ticket>`: a request that waits in the process with that address.
    Request { address: String, ticket: String },
    /// `amqp:` and JSON: the `reply_to` of a submission over RabbitMQ.
    Producer(ReplyTo),
}

/// The place for a producer's answer, in the producer's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// Name of a queue: the routing key on the default exchange.
    pub queue: String,
    /// The correlation id, returned unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The account of the submission; earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
}

impl Waiter {
    /// Read the column. `None`: a later version wrote it.
    pub fn read(column: &str) -> Option<Waiter> {
        match column.strip_prefix(PRODUCER) {
            Some(reply_to) => serde_json::from_str(reply_to).ok().map(Waiter::Producer),
            None => column
                .rsplit_once('/')
                .map(|(address, ticket)| Waiter::Request { address: address.into(), ticket: ticket.into() }),
        }
    }

    /// Return the column's text. Free of NUL, whatever the producer sent: JSON escapes it.
    pub fn column(&self) -> String {
        match self {
            Waiter::Request { address, ticket } => format!("{address}/{ticket}"),
            Waiter::Producer(reply_to) => {
                let json = serde_json::to_string(reply_to).expect("texts are always JSON");
                format!("{PRODUCER}{json}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_any_producers_texts() {
        for correlation_id in [None, Some("7"), Some("a/b\"\0ü")] {
            let reply_to = ReplyTo {
                queue: "answers/of \"ours\"".into(),
                correlation_id: correlation_id.map(Into::into),
                account: correlation_id.map(|_| AccountId(7)),
            };
            let column = Waiter::Producer(reply_to.clone()).column();
            assert!(!column.contains('\0'));
            assert_eq!(Waiter::read(&column), Some(Waiter::Producer(reply_to)));
        }
        let request = Waiter::Request { address: "cdls.reply.0198".into(), ticket: "7".into() };
        assert_eq!(request.column(), "cdls.reply.0198/7");
        assert_eq!(Waiter::read(&request.column()), Some(request));
    }

    #[test]
    fn reads_waiters_of_earlier_versions() {
        let reply_to = ReplyTo { queue: "answers".into(), correlation_id: None, account: None };
        assert_eq!(Waiter::read(r#"amqp:{"queue":"answers"}"#), Some(Waiter::Producer(reply_to)));
    }

    #[test]
    fn ignores_waiters_of_later_versions() {
        assert_eq!(Waiter::read("amqp:[7]"), None);
        assert_eq!(Waiter::read("nobody"), None);
    }
}
