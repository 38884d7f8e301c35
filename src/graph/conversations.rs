//! The newest messages of a recipient's conversation with a line, as Meta shows them.

use std::time::Duration;

use reqwest::Method;

use super::client::no_token;
use super::{Caller, GraphClient};
use crate::channel::Class;
use crate::policy::classify::CallResult;

/// Meta shows details of the newest 20 messages alone.
const FIELDS: &str = "messages.limit(20){id,message,created_time,from,to,attachments}";

/// No message waits for the answer.
const LONGEST: Duration = Duration::from_secs(30);

impl GraphClient {
    /// Ask for the newest messages with a recipient (Meta, Messenger Platform, "Conversations API"). Meta takes two such
    /// calls a second for each line.
    pub async fn conversation(&self, caller: &Caller<'_>, class: Class, dest: &str) -> CallResult {
        let mut url = self.url(caller.endpoint.host(), &[caller.endpoint.object(), "conversations"]);
        url.query_pairs_mut()
            .append_pair("platform", class.as_str())
            .append_pair("user_id", dest)
            .append_pair("fields", FIELDS);
        let Some(request) = self.request(Method::GET, url, caller) else { return no_token() };
        self.ask(request, self.short_timeout().min(LONGEST), &[caller.page_token]).await
    }
}
