//! Questions to Meta about the object behind a token: its ids and names, and the features that it was approved for.
//!
//! These calls only read.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;

use super::client::no_token;
use super::endpoint::Endpoint;
use super::request::authorization;
use super::{Caller, GraphClient};
use crate::policy::classify::CallResult;

impl GraphClient {
    /// Ask which Page or Instagram account the token belongs to.
    pub async fn identity(&self, caller: &Caller<'_>) -> CallResult {
        let mut url = self.url(caller.endpoint.host(), &[caller.endpoint.object()]);
        let fields = match caller.endpoint {
            Endpoint::Facebook => "id,name,instagram_business_account{id,username}",
            Endpoint::Instagram => "user_id,username",
            Endpoint::Unified { .. } => "id,username",
        };
        url.query_pairs_mut().append_pair("fields", fields);
        let Some(request) = self.request(Method::GET, url, caller) else { return no_token() };
        self.ask(request, self.short_timeout(), &[caller.page_token]).await
    }

    /// Ask the same in its shortest form, without the proof of the app: an app that demands one refuses this.
    pub async fn identity_without_proof(&self, caller: &Caller<'_>) -> CallResult {
        let mut url = self.url(caller.endpoint.host(), &[caller.endpoint.object()]);
        url.query_pairs_mut().append_pair("fields", "id");
        let Some(authorization) = authorization(caller.page_token) else { return no_token() };
        let request = self.plain_request(Method::GET, url).header(AUTHORIZATION, authorization);
        self.ask(request, self.short_timeout(), &[caller.page_token]).await
    }

    /// Ask which features of messaging Meta has approved for the Page.
    pub async fn features(&self, caller: &Caller<'_>) -> CallResult {
        let url = self.url(caller.endpoint.host(), &[caller.endpoint.object(), "messaging_feature_review"]);
        let Some(request) = self.request(Method::GET, url, caller) else { return no_token() };
        self.ask(request, self.short_timeout(), &[caller.page_token]).await
    }

    /// Whether calls of this line carry a proof of their app.
    pub fn proves(&self, caller: &Caller<'_>) -> bool {
        self.secret(caller.endpoint, caller.app_secret).is_some()
    }
}
