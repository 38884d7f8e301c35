//! The upload of an asset, whose id messages then carry in place of its URL.
//!
//! An upload creates no message. Never here: when an asset is uploaded, and what an answer means.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;

use super::client::no_token;
use super::request::{Caller, authorization};
use super::{Endpoint, GraphClient};
use crate::channel::{Asset, Class, MessageKind, upload_body};
use crate::policy::classify::CallResult;

/// An asset to upload. `Debug` does not print the token.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    pub caller: Caller<'a>,
    pub class: Class,
    pub kind: MessageKind,
    pub url: &'a str,
}

impl Endpoint {
    /// Whether assets may be uploaded there. Meta documents uploads for the token of a Page alone.
    pub fn takes_uploads(&self) -> bool {
        matches!(self, Endpoint::Facebook)
    }
}

impl GraphClient {
    /// Upload an asset, once. Meta fetches it before it answers.
    pub async fn upload(&self, upload: &Upload<'_>) -> CallResult {
        let Caller { endpoint, app_secret, page_token } = upload.caller;
        let Some(authorization) = authorization(page_token) else { return no_token() };
        let proof = self.secret(endpoint, app_secret).map(|secret| secret.proof(page_token));
        let body = upload_body(&Asset {
            kind: upload.kind,
            url: upload.url,
            platform: upload.class.upload_platform,
            appsecret_proof: proof.as_deref(),
        });
        let url = self.url(endpoint.host(), &[endpoint.object(), "message_attachments"]);
        let request = self.plain_request(Method::POST, url).header(AUTHORIZATION, authorization).body(body);
        self.ask(request, self.total_timeout(upload.kind), &[page_token]).await
    }
}
