//! The targets, one a file: what comes from outside, and the properties that hold for it.

mod addresses;
mod amqp;
mod batches;
mod classify;
mod encodings;
mod headers;
mod jobs;
mod lists;
mod parameters;
mod redact;
mod rejected;
mod reply_to;
mod sealed;
mod settings;

/// A target. Its function panics where a property is broken.
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&[u8]),
    /// Words that mutations put into inputs.
    pub words: &'static [&'static str],
}

pub const TARGETS: &[Target] = &[
    Target {
        name: "addresses",
        about: "the client of a request behind proxies: a peer, the trusted networks, lines of X-Forwarded-For",
        run: addresses::target,
        words: addresses::WORDS,
    },
    Target {
        name: "amqp",
        about: "properties and headers of a submission over RabbitMQ, as the bytes of a frame",
        run: amqp::target,
        words: amqp::WORDS,
    },
    Target {
        name: "batches",
        about: "a file of messages, CSV or NDJSON, cut at any place",
        run: batches::target,
        words: batches::WORDS,
    },
    Target {
        name: "classify",
        about: "an answer of Graph: its status, headers and body",
        run: classify::target,
        words: classify::WORDS,
    },
    Target {
        name: "headers",
        about: "the headers of a request: Authorization, Prefer, Content-Type, Content-Encoding",
        run: headers::target,
        words: headers::WORDS,
    },
    Target {
        name: "jobs",
        about: "bodies of jobs and replies between processes, and waiters of rows",
        run: jobs::target,
        words: jobs::WORDS,
    },
    Target {
        name: "lists",
        about: "the query of a list: filters and cursors",
        run: lists::target,
        words: lists::WORDS,
    },
    Target {
        name: "parameters",
        about: "the parameters of a message in every encoding",
        run: parameters::target,
        words: parameters::WORDS,
    },
    Target {
        name: "redact",
        about: "a text from outside on its way into the log",
        run: redact::target,
        words: redact::WORDS,
    },
    Target {
        name: "rejected",
        about: "a refused submission: the token of its header, its properties, its body",
        run: rejected::target,
        words: rejected::WORDS,
    },
    Target {
        name: "reply_to",
        about: "the address for a producer's answer",
        run: reply_to::target,
        words: reply_to::WORDS,
    },
    Target {
        name: "sealed",
        about: "a secret, and the changes of its sealed text",
        run: sealed::target,
        words: sealed::WORDS,
    },
    Target {
        name: "settings",
        about: "settings with a secret among them: the two parts of the secret, then a settings file",
        run: settings::target,
        words: settings::WORDS,
    },
];
