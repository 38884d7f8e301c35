//! The addresses that answers may go to: an answer is published with the program's own rights, and a producer
//! names its address freely.
//!
//! An address is a queue's name: the routing key on the default exchange. Never here: who sent a submission.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Queues of this prefix never receive an answer.
const RESERVED_PREFIX: &str = "cdls.";
/// The prefix of an address of direct reply-to.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// The prefix of the names that the broker makes.
const SERVER_NAMED_PREFIX: &str = "amq.gen-";

/// Whether an answer may be sent to this queue: to no queue of meta-dispatch, and to an address of direct
/// reply-to only in the form that the broker writes into a submission,
/// `amq.rabbitmq.reply-to.<process>.<key>`: the process is a pid of Erlang in its external form, both parts are
/// in base64. RabbitMQ ends the connection that publishes to an address it cannot read. Even a valid form may
/// end it: see `rabbitmq::direct_answers`.
pub fn takes_answers(queue: &str) -> bool {
    let decoded = |text: &str| BASE64.decode(text).ok().filter(|bytes| !bytes.is_empty());
    match queue.strip_prefix(DIRECT_REPLY_TO) {
        Some(rest) => rest
            .strip_prefix('.')
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(process, key)| Some((decoded(process)?, decoded(key)?)))
            .is_some_and(|(process, _)| is_process(&process).is_some()),
        None => !queue.starts_with(RESERVED_PREFIX),
    }
}

/// Whether the address is one of direct reply-to: no queue, but a channel of its producer.
pub fn is_direct(queue: &str) -> bool {
    queue.starts_with(DIRECT_REPLY_TO)
}

/// Whether the address is a producer's own: direct reply-to, a queue that the broker named, or a name that
/// begins with the producer's user, as the broker has checked it, and a dot.
pub fn belongs_to(queue: &str, user: Option<&str>) -> bool {
    let begins_with = |user: &str| queue.strip_prefix(user).is_some_and(|rest| rest.starts_with('.'));
    is_direct(queue) || queue.starts_with(SERVER_NAMED_PREFIX) || user.is_some_and(begins_with)
}

/// Whether these bytes are a pid in Erlang's external term format, whole, on a node `name@host`.
fn is_process(term: &[u8]) -> Option<()> {
    const VERSION: u8 = 131;
    const PID: u8 = 103;
    const NEW_PID: u8 = 88;
    let (numbers, node) = match term {
        [VERSION, NEW_PID, node @ ..] => (12, node),
        [VERSION, PID, node @ ..] => (9, node),
        _ => return None,
    };
    let (name, rest) = atom(node)?;
    let (name, host) = str::from_utf8(name).ok()?.split_once('@')?;
    (rest.len() == numbers && !name.is_empty() && !host.is_empty()).then_some(())
}

/// Return the text of the atom at the beginning, and the bytes after it.
fn atom(term: &[u8]) -> Option<(&[u8], &[u8])> {
    const LATIN_1: u8 = 100;
    const UTF_8: u8 = 118;
    const SMALL_LATIN_1: u8 = 115;
    const SMALL_UTF_8: u8 = 119;
    let (length, text) = match term {
        [LATIN_1 | UTF_8, high, low, text @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), text),
        [SMALL_LATIN_1 | SMALL_UTF_8, length, text @ ..] => (usize::from(*length), text),
        _ => return None,
    };
    text.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const OF_THE_BROKER: &str =
        "amq.rabbitmq.reply-to.g1h2AA1yZXBseUA5MjQ4ODg0AAAfNwAAAABrCaCc.kW5WDtHPIzvrWKuZaV3vLw==";

    fn direct(process: &[u8]) -> String {
        format!("amq.rabbitmq.reply-to.{}.a2V5", BASE64.encode(process))
    }

    #[test]
    fn answers_avoid_reserved_and_forged_addresses() {
        for queue in ["answers", "amq.gen-Xa2", "shop.cdls.answers", OF_THE_BROKER] {
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
            "amq.rabbitmq.reply-to.g2c=.a2V5",
            "amq.rabbitmq.reply-to.AAAA.AAAA",
            "amq.rabbitmq.reply-to.%%%.x",
            "amq.rabbitmq.reply-tog2c=.a2V5",
        ] {
            assert!(!takes_answers(queue), "{queue}");
        }
        assert!(!takes_answers(&format!("{OF_THE_BROKER}.a2V5")));
    }

    #[rstest]
    #[case::new_pid_and_long_atom(&[131, 88, 118, 0, 3], b"r@h", 12, true)]
    #[case::new_pid_and_short_atom(&[131, 88, 119, 3], b"r@h", 12, true)]
    #[case::old_pid(&[131, 103, 100, 0, 3], b"r@h", 9, true)]
    #[case::another_version(&[130, 88, 119, 3], b"r@h", 12, false)]
    #[case::another_term(&[131, 109, 119, 3], b"r@h", 12, false)]
    #[case::cut(&[131, 88, 119, 3], b"r@h", 11, false)]
    #[case::with_more_behind_it(&[131, 88, 119, 3], b"r@h", 13, false)]
    #[case::atom_beyond_the_end(&[131, 88, 118, 255, 255], b"r@h", 12, false)]
    #[case::no_node(&[131, 88, 119, 3], b"r_h", 12, false)]
    #[case::no_host(&[131, 88, 119, 3], b"rh@", 12, false)]
    #[case::no_utf_8(&[131, 88, 119, 3], b"\xff@h", 12, false)]
    fn process_of_direct_reply_to_is_a_whole_pid(
        #[case] head: &[u8],
        #[case] node: &[u8],
        #[case] numbers: usize,
        #[case] is_good: bool,
    ) {
        let process = [head, node, &vec![0_u8; numbers]].concat();
        assert_eq!(takes_answers(&direct(&process)), is_good);
    }

    #[test]
    fn own_addresses_begin_with_the_user_or_are_the_brokers() {
        for (queue, user, is_own) in [
            (OF_THE_BROKER, None, true),
            ("amq.gen-Xa2", None, true),
            ("shop.answers", Some("shop"), true),
            ("shop.answers", None, false),
            ("shop.answers", Some("clinic"), false),
            ("shopping.answers", Some("shop"), false),
            ("shop", Some("shop"), false),
            ("payments.commands", Some("shop"), false),
        ] {
            assert_eq!(belongs_to(queue, user), is_own, "{queue} of {user:?}");
        }
    }
}
