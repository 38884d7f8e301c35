//! The path of a send call before its recipient chooses: token, proof, budget, asset, window; and what Meta
//! tells about it afterwards.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;

use super::answer::message_id;
use super::calls::sender_refusal;
use super::identities::{Identity, is_login, number_of};
use super::refusal::PlayedError;
use super::request::{self, AskedAsset, AskedMessage, AssetSource};
use super::shared::Shared;
use super::stage::{now_ms, now_seconds};
use super::webhooks::{MessageFacts, of_message};

/// A send call as it was read.
#[derive(Debug, Default)]
pub(super) struct JudgedCall<'a> {
    /// The tag of the token; empty without one.
    pub tag: String,
    pub is_login: bool,
    /// `None` if the call was refused before its message was read.
    pub message: Option<AskedMessage<'a>>,
    /// Label and reason, whatever the recipient chose.
    pub refusal: Option<(&'static str, PlayedError)>,
    /// The identity behind the token; `None` while the stage is off.
    identity: Option<Identity>,
    /// The usage headers, if budgets are on.
    pub budget_headers: Option<Vec<(HeaderName, HeaderValue)>>,
    /// How long Meta takes to fetch the asset.
    pub fetch: Duration,
}

impl Shared {
    /// Read a call, and refuse it if anything but its recipient's word refuses it.
    pub fn judge<'a>(&self, head: &Parts, id: &str, body: &'a [u8]) -> JudgedCall<'a> {
        let token = match request::bearer(&head.headers) {
            Ok(token) => token,
            Err(error) => return JudgedCall { refusal: Some(("no token", error)), ..JudgedCall::default() },
        };
        let mut call =
            JudgedCall { tag: request::token_tag(token), is_login: is_login(token), ..JudgedCall::default() };
        // Without the stage only `me` needs no look at the identity behind the token.
        if self.stage().is_on() || id != "me" {
            call.identity = Some(self.stage().identities.lock().of_token(token, now_seconds()));
        }
        match self.read_message(head, id, token, call.identity.as_ref(), body) {
            Ok(message) => {
                call.message = Some(message);
                call.refusal = self.refuse(&mut call);
            }
            Err(error) => call.refusal = Some(("refused", error)),
        }
        call
    }

    fn read_message<'a>(
        &self,
        head: &Parts,
        id: &str,
        token: &str,
        identity: Option<&Identity>,
        body: &'a [u8],
    ) -> Result<AskedMessage<'a>, PlayedError> {
        let mut app = None;
        if let Some(identity) = identity {
            let refusal = identity.refusal(now_seconds()).or_else(|| sender_refusal(identity, id));
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            app = self.app_of(identity);
        }
        let query = head.uri.query().unwrap_or_default();
        request::message(&head.headers, query, token, self.proof_rule(app.as_ref()), body)
    }

    /// Look for a budget, an asset or a window that refuses a message.
    fn refuse(&self, call: &mut JudgedCall<'_>) -> Option<(&'static str, PlayedError)> {
        let message = call.message.as_ref()?;
        if let Some(identity) = &call.identity {
            let mut budgets = self.stage().budgets.lock();
            let (app, account, object) = (&identity.app_id, identity.account(), identity.object);
            // The clock is read under the lock, so that it does not go back.
            if let Some(verdict) = budgets.take(app, account, object, self.stage().elapsed()) {
                call.budget_headers = Some(verdict.headers);
                if let Some(error) = verdict.refusal {
                    return Some(("budget", error));
                }
            }
        }
        if let Some(asset) = &message.asset {
            let made_up = || number_of(&call.tag);
            let account =
                call.identity.as_ref().map_or_else(made_up, |identity| identity.account().to_owned());
            let mut uploads = self.stage().uploads.lock();
            if matches!(asset.source, AssetSource::Url(_)) {
                call.fetch = uploads.fetch_time();
            }
            if let Err(error) = uploads.take(&account, asset) {
                return Some(("asset", error));
            }
        }
        let identity = call.identity.as_ref()?;
        let windows = self.stage().windows.lock();
        let closed = windows.refusal(identity.object, identity.account(), &message.dest, now_ms());
        closed.map(|error| ("window", error))
    }

    /// Tell the app about a message that its recipient got.
    pub fn tell(&self, call: &JudgedCall<'_>, seq: u64) {
        let outbox = &self.stage().outbox;
        if !outbox.is_on() {
            return;
        }
        let (Some(identity), Some(message)) = (&call.identity, &call.message) else { return };
        let Some(rules) = outbox.rules() else { return };
        let asset = |asset: &'_ AskedAsset<'_>| match &asset.source {
            AssetSource::Url(url) => (asset.kind, Some(url.to_string())),
            AssetSource::Id(_) => (asset.kind, None),
        };
        let asset = message.asset.as_ref().map(asset);
        let mid = message_id(self.run(), seq);
        let facts = MessageFacts {
            mid: &mid,
            dest: &message.dest,
            text: message.text.as_deref(),
            metadata: message.metadata.as_deref(),
            asset: asset.as_ref().map(|(kind, url)| (*kind, url.as_deref())),
            at_ms: now_ms(),
        };
        let secret = self.app_of(identity).and_then(|app| app.secret);
        outbox.add(of_message(&rules, identity, secret.as_ref(), facts));
    }
}
