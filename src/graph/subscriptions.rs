//! The subscription of an app to the webhooks of a line's Page or Instagram account: asked for, and made.

use reqwest::Method;

use super::client::no_token;
use super::{Caller, GraphClient};
use crate::policy::classify::CallResult;

impl GraphClient {
    /// Ask which apps hear of the object's events, and of which.
    pub async fn subscriptions(&self, caller: &Caller<'_>) -> CallResult {
        let url = self.url(caller.endpoint.host(), &[caller.endpoint.object(), "subscribed_apps"]);
        let Some(request) = self.request(Method::GET, url, caller) else { return no_token() };
        self.ask(request, self.short_timeout(), &[caller.page_token]).await
    }

    /// Subscribe the app of the token to these fields of the object; others that it had are replaced.
    pub async fn subscribe(&self, caller: &Caller<'_>, fields: &[&str]) -> CallResult {
        let mut url = self.url(caller.endpoint.host(), &[caller.endpoint.object(), "subscribed_apps"]);
        url.query_pairs_mut().append_pair("subscribed_fields", &fields.join(","));
        let Some(request) = self.request(Method::POST, url, caller) else { return no_token() };
        self.ask(request, self.short_timeout(), &[caller.page_token]).await
    }
}
