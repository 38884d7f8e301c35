//! The result of a call, as the client of Graph reports it, and the ids of its sender.

use crate::channel::Class;

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
    /// `X-App-Usage` and `X-Page-Usage`, as received.
    pub app_usage: Option<String>,
    pub page_usage: Option<String>,
    /// `Retry-After` and `Date`, as received.
    pub retry_after: Option<String>,
    pub date: Option<String>,
    /// `WWW-Authenticate`, as received.
    pub challenge: Option<String>,
    /// `facebook-api-version`, as received: the version that answered.
    pub api_version: Option<String>,
}

/// The ids under which a usage header names the sender of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// `None`: entries of every channel are about the sender.
    pub class: Option<Class>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
}

impl Subject {
    /// Return how well an entry of a usage header under this id, of this type, fits the sender's messages: 0 is best;
    /// `None`: the entry is about another object or another use. An Instagram line that is linked to a Page goes by the
    /// Page's messages where its own account is not named.
    pub fn rank(&self, id: &str, kind: &str) -> Option<u8> {
        let is = |own: &Option<String>| own.as_deref().is_some_and(|own| !id.is_empty() && own.trim() == id);
        let (of_page, of_account) = (is(&self.page_id), is(&self.instagram_account_id));
        let fits = match (self.class, kind) {
            (None, "messenger" | "instagram" | "pages") => of_page || of_account,
            (Some(class), "instagram") => class == Class::INSTAGRAM && (of_account || of_page),
            (Some(_), "messenger") => of_page,
            (Some(class), "pages") => class != Class::INSTAGRAM && of_page,
            _ => false,
        };
        let is_second = self.class == Some(Class::INSTAGRAM) && kind == "messenger";
        fits.then_some(u8::from(is_second))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some(Class::MESSENGER), "1", "messenger", Some(0))]
    #[case(Some(Class::MESSENGER), "1", "pages", Some(0))]
    #[case(Some(Class::MESSENGER), "1", "instagram", None)]
    #[case(Some(Class::MESSENGER), "17", "instagram", None)]
    #[case(Some(Class::MESSENGER), "2", "messenger", None)]
    #[case(Some(Class::INSTAGRAM), "17", "instagram", Some(0))]
    #[case(Some(Class::INSTAGRAM), "1", "messenger", Some(1))]
    #[case(Some(Class::INSTAGRAM), "1", "pages", None)]
    #[case(None, "17", "instagram", Some(0))]
    #[case(None, "1", "ads_management", None)]
    #[case(None, "", "messenger", None)]
    fn entry_is_about_its_own_object_and_use(
        #[case] class: Option<Class>,
        #[case] id: &str,
        #[case] kind: &str,
        #[case] rank: Option<u8>,
    ) {
        let subject =
            Subject { class, page_id: Some(" 1\n".into()), instagram_account_id: Some("17".into()) };
        assert_eq!(subject.rank(id, kind), rank);
    }
}
