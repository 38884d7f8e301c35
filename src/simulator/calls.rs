//! The calls of Graph that are no messages: tokens, identities, subscriptions, uploads, conversations.
//!
//! Never here: control calls (`control.rs`), and the send call (`server.rs`).

use std::borrow::Cow;

use hyper::http::request::Parts;
use hyper::{Method, Response};
use serde_json::{Map, Value, json};

use super::answer::{AnswerBody, AnswerWriter, GRAPH_VERSION};
use super::conversations::{MessagesWish, Reader, read_conversation_id};
use super::identities::{Identity, LOGIN_LIFE, PlayedApp, TokenKind, is_login};
use super::path::GraphPath;
use super::refusal::{OTHER_TOKEN, OVER_LIMIT, PlayedError, UNKNOWN_OBJECT, UNKNOWN_PATH, wrong_parameter};
use super::request::{self, AssetSource, ProofRule, parameter};
use super::shared::Shared;
use super::stage::{now_ms, now_seconds};
use super::uploads::Owner;

/// Calls about conversations that an account may make in a second.
const CONVERSATION_CALLS: u32 = 2;
/// The age from which a token of Instagram Login can be refreshed, in seconds.
const REFRESHABLE: i64 = 24 * 3_600;

/// A call with a good token.
struct Caller<'a> {
    token: Cow<'a, str>,
    identity: Identity,
    query: &'a str,
}

impl Shared {
    /// Answer a call of Graph that is no message. The answer to an upload waits as long as Meta takes to fetch
    /// the asset.
    pub async fn graph_call(&self, path: GraphPath<'_>, head: &Parts, body: &[u8]) -> Response<AnswerBody> {
        let token = request::token(&head.headers, head.uri.query().unwrap_or_default());
        let is_login = token.is_ok_and(|token| is_login(&token));
        let result = self.told(path, head, body);
        if matches!(path, GraphPath::Attachments(_)) {
            let wait = self.stage().uploads.lock().fetch_time();
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        let answers = AnswerWriter { is_login, ..self.answers(0, "", None) };
        match result {
            Ok(value) => answers.told(&value),
            Err(error) => answers.error(&error),
        }
    }

    fn told(&self, path: GraphPath<'_>, head: &Parts, body: &[u8]) -> Result<Value, PlayedError> {
        let query = head.uri.query().unwrap_or_default();
        let token = request::token(&head.headers, query)?;
        match (path, &head.method) {
            (GraphPath::DebugToken, &Method::GET) => return self.debug_token(&token, query),
            (GraphPath::Refresh, &Method::GET) => return self.refresh(&token, query),
            _ => {}
        }
        let identity = self.stage().identities.lock().of_token(&token, now_seconds());
        if let Some(refusal) = identity.refusal(now_seconds()) {
            return Err(refusal);
        }
        let caller = Caller { token, identity, query };
        if let GraphPath::Attachments(id) = path
            && head.method == Method::POST
        {
            return self.upload(&caller, id, head, body);
        }
        self.check_proof(&caller, body)?;
        match (path, &head.method) {
            (GraphPath::Object(id), &Method::GET) if id.starts_with("t_") || id.starts_with("m_") => {
                self.read_conversation(&caller, path, head)
            }
            (GraphPath::Object(id), &Method::GET) => caller.about(id),
            (GraphPath::SubscribedApps(id), &Method::GET) => self.subscriptions(&caller, id),
            (GraphPath::SubscribedApps(id), &Method::POST) => self.subscribe(&caller, id, body),
            (GraphPath::Conversations(_) | GraphPath::ConversationMessages(_), &Method::GET) => {
                self.read_conversation(&caller, path, head)
            }
            _ => Err(UNKNOWN_PATH),
        }
    }

    /// Return the app of an identity.
    pub fn app_of(&self, identity: &Identity) -> Option<PlayedApp> {
        self.stage().identities.lock().app(&identity.app_id).cloned()
    }

    fn check_proof(&self, caller: &Caller<'_>, body: &[u8]) -> Result<(), PlayedError> {
        let app = self.app_of(&caller.identity);
        let proof = self.proof_rule(app.as_ref());
        let in_body = serde_json::from_slice::<Value>(body).ok();
        let in_body = in_body.as_ref().and_then(|body| body["appsecret_proof"].as_str());
        proof.check(&caller.token, caller.query, in_body)
    }

    /// Return the demand for a proof: the app's own, else the simulator's.
    pub fn proof_rule<'a>(&'a self, app: Option<&'a PlayedApp>) -> ProofRule<'a> {
        match app {
            Some(PlayedApp { secret: Some(secret), require_proof, .. }) => {
                ProofRule { secret: Some(secret), is_required: require_proof.unwrap_or(true) }
            }
            _ => ProofRule { secret: self.options().app_secret.as_ref(), is_required: true },
        }
    }

    fn upload(&self, caller: &Caller<'_>, id: &str, head: &Parts, body: &[u8]) -> Result<Value, PlayedError> {
        if is_login(&caller.token) || !caller.identity.is_named(id) {
            return Err(UNKNOWN_OBJECT);
        }
        let app = self.app_of(&caller.identity);
        let proof = self.proof_rule(app.as_ref());
        let asset = request::upload(&head.headers, caller.query, &caller.token, proof, body)?;
        let AssetSource::Url(url) = &asset.source else { return Err(UNKNOWN_PATH) };
        let tag = request::token_tag(&caller.token);
        let owner = Owner { tag: &tag, account: caller.identity.account() };
        let attachment_id = self.stage().uploads.lock().upload(owner, asset.kind, url, now_ms())?;
        Ok(json!({ "attachment_id": attachment_id }))
    }

    fn subscriptions(&self, caller: &Caller<'_>, id: &str) -> Result<Value, PlayedError> {
        let identity = &caller.identity;
        if !identity.is_named(id) {
            return Err(UNKNOWN_OBJECT);
        }
        if identity.subscribed.is_empty() {
            return Ok(json!({ "data": [] }));
        }
        let name = self.app_of(identity).and_then(|app| app.name);
        Ok(json!({ "data": [{
            "id": identity.app_id,
            "name": name.as_deref().unwrap_or("Simulated app"),
            "link": "https://example.com/",
            "subscribed_fields": identity.subscribed,
        }] }))
    }

    fn subscribe(&self, caller: &Caller<'_>, id: &str, body: &[u8]) -> Result<Value, PlayedError> {
        if !caller.identity.is_named(id) {
            return Err(UNKNOWN_OBJECT);
        }
        let in_json = serde_json::from_slice::<Value>(body).ok();
        let in_json = in_json.as_ref().and_then(|body| match &body["subscribed_fields"] {
            Value::String(text) => Some(text.clone()),
            Value::Array(fields) => {
                Some(fields.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
            }
            _ => None,
        });
        let form = std::str::from_utf8(body).unwrap_or_default();
        let fields = parameter(caller.query, "subscribed_fields")
            .map(Cow::into_owned)
            .or(in_json)
            .or_else(|| parameter(form, "subscribed_fields").map(Cow::into_owned))
            .ok_or(wrong_parameter("(#100) The parameter subscribed_fields is required."))?;
        let fields: Vec<String> = fields
            .split(',')
            .map(|field| field.trim().to_owned())
            .filter(|field| !field.is_empty())
            .collect();
        let is_word = |field: &String| field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if fields.is_empty() || !fields.iter().all(is_word) {
            return Err(wrong_parameter("(#100) Param subscribed_fields must be an array of field names"));
        }
        self.stage().turn_on();
        let mut identities = self.stage().identities.lock();
        identities.change(&caller.token, now_seconds(), |identity| identity.subscribed = fields);
        Ok(json!({ "success": true }))
    }

    fn debug_token(&self, token: &str, query: &str) -> Result<Value, PlayedError> {
        let now = now_seconds();
        let identities = self.stage().identities.lock();
        match token.split_once('|') {
            // An app token: its id and secret.
            Some((app_id, secret)) => {
                use secrecy::ExposeSecret;
                let known = identities.app(app_id).and_then(|app| app.secret.as_ref());
                if known.is_some_and(|known| known.expose_secret() != secret) {
                    return Err(OTHER_TOKEN);
                }
            }
            None => {
                if let Some(refusal) = identities.of_token(token, now).refusal(now) {
                    return Err(refusal);
                }
            }
        }
        let Some(input) = parameter(query, "input_token").filter(|input| !input.is_empty()) else {
            return Err(wrong_parameter("(#100) The parameter input_token is required"));
        };
        let identity = identities.of_token(&input, now);
        let app = identities.app(&identity.app_id).and_then(|app| app.name.clone());
        let refusal = identity.refusal(now);
        let target = json!([identity.account()]);
        let granular: Vec<Value> =
            identity.scopes.iter().map(|scope| json!({ "scope": scope, "target_ids": target })).collect();
        let mut data = json!({
            "app_id": identity.app_id,
            "type": identity.kind,
            "application": app.as_deref().unwrap_or("Simulated app"),
            "data_access_expires_at": identity.data_access_expires_at,
            "expires_at": identity.expires_at,
            "is_valid": refusal.is_none(),
            "issued_at": identity.issued_at,
            "profile_id": identity.account(),
            "scopes": identity.scopes,
            "granular_scopes": granular,
            "user_id": identity.scoped_id(),
        });
        if let Some(error) = refusal {
            data["error"] = json!({ "code": error.code, "message": error.message, "subcode": error.subcode });
        }
        Ok(json!({ "data": data }))
    }

    fn refresh(&self, token: &str, query: &str) -> Result<Value, PlayedError> {
        if parameter(query, "grant_type").as_deref() != Some("ig_refresh_token") {
            return Err(wrong_parameter("(#100) Param grant_type must be ig_refresh_token"));
        }
        if !is_login(token) {
            return Err(OTHER_TOKEN);
        }
        let now = now_seconds();
        let mut identities = self.stage().identities.lock();
        let identity = identities.of_token(token, now);
        if let Some(refusal) = identity.refusal(now) {
            return Err(refusal);
        }
        if now - identity.issued_at < REFRESHABLE {
            return Err(wrong_parameter("(#100) The access token must be at least 24 hours old"));
        }
        let next = format!("IGAA{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let permissions = identity.scopes.join(",");
        identities.add(&next, Identity { issued_at: now, expires_at: now + LOGIN_LIFE, ..identity });
        // Otherwise its identity would be made up anew, for another account.
        self.stage().turn_on();
        Ok(json!({
            "access_token": next,
            "token_type": "bearer",
            "expires_in": LOGIN_LIFE,
            "permissions": permissions,
        }))
    }

    fn read_conversation(
        &self,
        caller: &Caller<'_>,
        path: GraphPath<'_>,
        head: &Parts,
    ) -> Result<Value, PlayedError> {
        let account = caller.identity.account();
        let calls = &self.stage().conversation_calls;
        if calls.lock().take(account, CONVERSATION_CALLS, std::time::Instant::now()).is_err() {
            return Err(OVER_LIMIT);
        }
        let host = head.headers.get(hyper::header::HOST).and_then(|host| host.to_str().ok());
        let base = format!("http://{}/{GRAPH_VERSION}", host.unwrap_or("127.0.0.1"));
        let reader = Reader { object: caller.identity.object, account, base: &base };
        let named = |name: &str| parameter(caller.query, name);
        let (fields, after) = (named("fields"), named("after"));
        let wish = || MessagesWish::read(fields.as_deref(), named("limit").as_deref());
        let own = |id: &str| {
            let known = read_conversation_id(id).filter(|(owner, _)| owner == account);
            known.map(|(_, dest)| dest).ok_or(UNKNOWN_OBJECT)
        };
        match path {
            GraphPath::Conversations(id) if caller.identity.is_named(id) => {
                let fields = fields.as_deref().unwrap_or_default();
                self.conversations(reader, named("user_id").as_deref(), fields, after.as_deref())
            }
            GraphPath::ConversationMessages(id) => {
                Ok(self.conversation_messages(reader, &own(id)?, &wish()?, after.as_deref()))
            }
            GraphPath::Object(id) if id.starts_with("t_") => {
                let wish = MessagesWish::of_conversation(fields.as_deref().unwrap_or_default())?;
                self.conversation(reader, &own(id)?, wish.as_ref()).ok_or(UNKNOWN_OBJECT)
            }
            GraphPath::Object(id) => self.message(reader, id, &wish()?),
            _ => Err(UNKNOWN_OBJECT),
        }
    }
}

impl Caller<'_> {
    /// Answer `GET /{id}?fields=…`.
    fn about(&self, id: &str) -> Result<Value, PlayedError> {
        if !self.identity.is_named(id) {
            return Err(UNKNOWN_OBJECT);
        }
        let given = parameter(self.query, "fields");
        let usual = if self.identity.kind == TokenKind::Instagram { "id" } else { "id,name" };
        let mut told = Map::new();
        for field in fields(given.as_deref().unwrap_or(usual)) {
            let name = field.split(['{', '.']).next().unwrap_or_default();
            match self.identity.field(name, id) {
                Some(Value::Null) => {}
                Some(value) => drop(told.insert(name.to_owned(), value)),
                None => return Err(wrong_parameter("(#100) Tried accessing nonexisting field")),
            }
        }
        Ok(Value::Object(told))
    }
}

/// Split `a,b{c,d}` at the commas outside braces.
fn fields(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0_u32, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[begin..].trim());
    found.retain(|field| !field.is_empty());
    found
}

impl Identity {
    /// Return a field of the object that a path names; null if the object has none, `None` if there is no such
    /// field.
    fn field(&self, name: &str, id: &str) -> Option<Value> {
        let is_instagram = self.kind == TokenKind::Instagram
            || (id != "me" && self.ig_id.as_deref() == Some(id))
            || (self.kind == TokenKind::Page && self.page_id.is_none());
        let is_person = id == "me" && matches!(self.kind, TokenKind::User | TokenKind::SystemUser);
        Some(match name {
            "id" if is_person => json!(self.scoped_id()),
            "name" if is_person => json!("Simulated person"),
            _ if is_person => return None,
            "id" if self.kind == TokenKind::Instagram && id == "me" => json!(self.scoped_id()),
            "id" if is_instagram => json!(self.ig_id),
            "id" => json!(self.page_id),
            "user_id" if is_instagram => json!(self.ig_id),
            "username" if is_instagram => json!(self.ig_username),
            "account_type" if is_instagram => json!("BUSINESS"),
            "name" => json!(self.page_name),
            "instagram_business_account" | "connected_instagram_account" if !is_instagram => {
                match &self.ig_id {
                    Some(id) => json!({ "id": id, "username": self.ig_username }),
                    None => Value::Null,
                }
            }
            _ => return None,
        })
    }
}

/// Return the reason why a token cannot send to an object's `messages`.
pub(super) fn sender_refusal(identity: &Identity, id: &str) -> Option<PlayedError> {
    let is_person = matches!(identity.kind, TokenKind::User | TokenKind::SystemUser);
    if !identity.is_named(id) || (id == "me" && is_person) || identity.kind == TokenKind::User {
        return Some(UNKNOWN_OBJECT);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::identities::GivenIdentity;

    #[test]
    fn fields_are_split_outside_braces() {
        assert_eq!(
            fields("id, name,instagram_business_account{id,username}"),
            ["id", "name", "instagram_business_account{id,username}"]
        );
        assert_eq!(fields(""), [] as [&str; 0]);
    }

    #[test]
    fn person_cannot_send_and_a_system_user_names_the_account() {
        let of = |kind| {
            let given = GivenIdentity {
                ig_id: Some("1784".to_owned()),
                kind: Some(kind),
                ..GivenIdentity::default()
            };
            Identity::complete(given, "EAA", 0)
        };
        assert_eq!(sender_refusal(&of(TokenKind::User), "me"), Some(UNKNOWN_OBJECT));
        assert_eq!(sender_refusal(&of(TokenKind::User), "1784"), Some(UNKNOWN_OBJECT));
        assert_eq!(sender_refusal(&of(TokenKind::SystemUser), "me"), Some(UNKNOWN_OBJECT));
        assert_eq!(sender_refusal(&of(TokenKind::SystemUser), "1784"), None);
        assert_eq!(sender_refusal(&of(TokenKind::Page), "me"), None);
        assert_eq!(sender_refusal(&of(TokenKind::Page), "9"), Some(UNKNOWN_OBJECT));
    }
}
