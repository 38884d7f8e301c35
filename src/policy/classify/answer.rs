//! The result of a call, as the client of Graph reports it, and the ids of its sender.

/// The result of one call.
#[derive(Debug, Clone)]
pub enum CallResult {
    /// A complete HTTP answer.
    Answer(GraphAnswer),
    /// No byte of the request was written: refused, no route, DNS, TLS, connect timeout.
    NotSent { reason: String },
    /// No byte was written, as this process may open no further file. No evidence about the host.
    NoFile { reason: String },
    /// No byte was written, and none can be until the line is changed: its page token fits no HTTP header.
    Unsendable { reason: String },
    /// The request was written, at least in part, and no complete answer arrived.
    Cut { reason: String },
}

/// A complete HTTP answer of Graph. Bodies are read up to 64 KiB; a longer one is a `Cut`.
#[derive(Debug, Clone, Default)]
pub struct GraphAnswer {
    pub http_status: u16,
    /// The inflated body.
    pub body: Vec<u8>,
    /// The body has an encoding that is not read; `body` is empty.
    pub is_unreadable: bool,
    /// `X-Business-Use-Case-Usage`, as received; several lines joined by commas.
    pub business_usage: Option<String>,
    /// `Retry-After` and `Date`, as received.
    pub retry_after: Option<String>,
    pub date: Option<String>,
    /// `WWW-Authenticate`, as received.
    pub challenge: Option<String>,
}

/// The ids under which a usage header names the sender of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
}

impl Subject {
    /// Whether the id is one of these.
    pub(super) fn is(&self, id: &str) -> bool {
        !id.is_empty()
            && [&self.page_id, &self.instagram_account_id].into_iter().flatten().any(|own| own.trim() == id)
    }
}
