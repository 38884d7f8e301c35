//! The control calls, `/simulator/…`: evidence, and what the simulator plays (docs/simulator.md).
//!
//! Never here: the parts themselves; each control call hands its body to one of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{AnswerBody, message_id, plain};
use super::budget::BudgetRules;
use super::identities::{GivenIdentity, Identity, Object, PlayedApp};
use super::shared::Shared;
use super::stage::{now_ms, now_seconds};
use super::uploads::UploadRules;
use super::webhooks::{self, EventKind, InboundKind, MessageFacts, WebhookRules};
use super::windows::WindowRules;

/// The part of the path that separates these endpoints from Graph's.
pub(super) const PREFIX: &str = "/simulator/";

const KNOWN: &str = "GET calls, GET count, POST reset, PUT and GET pages, apps, budgets, windows, webhooks and uploads, \
DELETE webhooks, POST webhooks/verify, inbound, enforcement and uploads/expire, GET conversations";

/// The fault of a control call, in words.
type Wrong = String;

/// Answer a request under [`PREFIX`].
pub(super) async fn answer(shared: &Shared, head: &Parts, body: &[u8]) -> Response<AnswerBody> {
    let result = match (&head.method, &head.uri.path()[PREFIX.len()..]) {
        (&Method::GET, "calls") => calls(shared, head),
        (&Method::GET, "count") => Ok(json(&shared.counts())),
        (&Method::POST, "reset") => reset(shared, head),
        (&Method::POST, "webhooks/verify") => verify(shared).await,
        (method, name) => match played(shared, method, name, head, body) {
            Some(result) => result,
            None => {
                let unknown = format!("known under {PREFIX}: {KNOWN}");
                return as_json(StatusCode::NOT_FOUND, &json!({ "error": unknown }));
            }
        },
    };
    match result {
        Ok(value) => as_json(StatusCode::OK, &value),
        Err(wrong) => as_json(StatusCode::BAD_REQUEST, &json!({ "error": wrong })),
    }
}

/// Answer a call about a played part; `None` if there is no such call.
fn played(
    shared: &Shared,
    method: &Method,
    name: &str,
    head: &Parts,
    body: &[u8],
) -> Option<Result<Value, Wrong>> {
    let stage = shared.stage();
    Some(match (method, name) {
        (&Method::PUT, "pages") => put_pages(shared, body),
        (&Method::GET, "pages") => Ok(json(&stage.identities.lock().identities())),
        (&Method::PUT, "apps") => put_apps(shared, body),
        (&Method::GET, "apps") => Ok(json(stage.identities.lock().apps())),
        (&Method::PUT, "budgets") => read(body).and_then(|rules| shared.put_budgets(rules)),
        (&Method::GET, "budgets") => Ok(stage.budgets.lock().uses(stage.elapsed())),
        (&Method::PUT, "windows") => read(body).and_then(|rules| shared.put_windows(rules)),
        (&Method::GET, "windows") => Ok(stage.windows.lock().listed(now_ms())),
        (&Method::PUT, "webhooks") => read(body).and_then(|rules| shared.put_webhooks(rules)),
        (&Method::GET, "webhooks") => Ok(stage.outbox.listed()),
        (&Method::DELETE, "webhooks") => {
            stage.outbox.delete();
            Ok(stage.outbox.listed())
        }
        (&Method::POST, "inbound") => read(body).and_then(|person| inbound(shared, person)),
        (&Method::POST, "enforcement") => read(body).and_then(|notice| enforcement(shared, notice)),
        (&Method::PUT, "uploads") => read(body).map(|rules: UploadRules| {
            stage.uploads.lock().put(rules);
            stage.uploads.lock().listed()
        }),
        (&Method::GET, "uploads") => Ok(stage.uploads.lock().listed()),
        (&Method::POST, "uploads/expire") => expire(shared, body),
        (&Method::GET, "conversations") => Ok(shared.all_conversations(parameter(head, "dest").as_deref())),
        _ => return None,
    })
}

fn calls(shared: &Shared, head: &Parts) -> Result<Value, Wrong> {
    let after = match parameter(head, "after") {
        Some(text) => text.parse().map_err(|_| "after: must be the seq of a call".to_owned())?,
        None => 0,
    };
    Ok(json(&shared.calls(after, parameter(head, "dest").as_deref())))
}

fn reset(shared: &Shared, head: &Parts) -> Result<Value, Wrong> {
    let (latency, jitter) = shared.latency();
    let latency = duration(head, "latency")?.unwrap_or(latency);
    let jitter = duration(head, "jitter")?.unwrap_or(jitter);
    shared.set_latency(latency, jitter);
    shared.reset();
    Ok(json(&shared.counts()))
}

async fn verify(shared: &Shared) -> Result<Value, Wrong> {
    let rules = shared.stage().outbox.rules();
    let rules = rules.ok_or("no webhooks: PUT /simulator/webhooks first".to_owned())?;
    Ok(webhooks::verify(&rules).await)
}

fn put_pages(shared: &Shared, body: &[u8]) -> Result<Value, Wrong> {
    let given: HashMap<String, GivenIdentity> = read(body)?;
    if given.keys().any(|token| token.trim().is_empty()) {
        return Err("a token must not be empty".to_owned());
    }
    let mut identities = shared.stage().identities.lock();
    identities.put(given, now_seconds());
    shared.stage().turn_on();
    Ok(json(&identities.identities()))
}

fn put_apps(shared: &Shared, body: &[u8]) -> Result<Value, Wrong> {
    let given: BTreeMap<String, PlayedApp> = read(body)?;
    let mut identities = shared.stage().identities.lock();
    identities.put_apps(given);
    shared.stage().turn_on();
    Ok(json(identities.apps()))
}

fn expire(shared: &Shared, body: &[u8]) -> Result<Value, Wrong> {
    let wish: Expire = read(body)?;
    let ended = shared.stage().uploads.lock().expire(wish.attachment_id.as_deref());
    Ok(json!({ "expired": ended }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expire {
    #[serde(default)]
    attachment_id: Option<String>,
}

/// A person who does something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    object: Object,
    account: String,
    from: String,
    #[serde(default)]
    kind: InboundKind,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    at_ms: Option<u64>,
}

fn inbound(shared: &Shared, person: Person) -> Result<Value, Wrong> {
    let stage = shared.stage();
    let at_ms = person.at_ms.unwrap_or_else(now_ms);
    let text = person.text.as_deref();
    let shown = text.or((person.kind == InboundKind::Message).then_some("Hello"));
    let number = stage.inbox.lock().add(&person.account, &person.from, shown, at_ms);
    let until = stage.windows.lock().open(&person.account, &person.from, at_ms);
    let mid = message_id(shared.run(), number);
    if let Some((rules, identity, app)) = shared.listener(EventKind::Inbound, person.object, &person.account)
    {
        let facts = MessageFacts { mid: &mid, dest: &person.from, text, metadata: None, asset: None, at_ms };
        let secret = app.and_then(|app| app.secret);
        let event = webhooks::inbound(&identity, secret.as_ref(), person.kind, facts);
        stage.outbox.add(event.map(|event| (Duration::from_millis(rules.delay_ms), event)));
    }
    Ok(json!({ "mid": mid, "window_until_ms": until }))
}

/// A notice of a policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notice {
    #[serde(default = "page")]
    object: Object,
    account: String,
    action: String,
    #[serde(default)]
    reason: Option<String>,
}

fn page() -> Object {
    Object::Page
}

fn enforcement(shared: &Shared, notice: Notice) -> Result<Value, Wrong> {
    if !["block", "unblock", "warning"].contains(&notice.action.as_str()) {
        return Err("action: must be block, unblock or warning".to_owned());
    }
    if let Some((rules, identity, app)) =
        shared.listener(EventKind::Enforcement, notice.object, &notice.account)
    {
        let secret = app.and_then(|app| app.secret);
        let reason = notice.reason.as_deref();
        let event = webhooks::enforcement(&identity, secret.as_ref(), &notice.action, reason, now_ms());
        let delay = Duration::from_millis(rules.delay_ms);
        shared.stage().outbox.add(event.map(|event| (delay, event)));
    }
    Ok(json!({ "action": notice.action }))
}

impl Shared {
    pub fn put_budgets(&self, rules: BudgetRules) -> Result<Value, Wrong> {
        rules.check()?;
        let stage = self.stage();
        stage.budgets.lock().put(rules);
        stage.turn_on();
        Ok(stage.budgets.lock().uses(stage.elapsed()))
    }

    pub fn put_windows(&self, rules: WindowRules) -> Result<Value, Wrong> {
        rules.check()?;
        let stage = self.stage();
        stage.windows.lock().put(rules);
        stage.turn_on();
        Ok(stage.windows.lock().listed(now_ms()))
    }

    pub fn put_webhooks(&self, rules: WebhookRules) -> Result<Value, Wrong> {
        rules.check()?;
        let stage = self.stage();
        stage.outbox.put(rules);
        stage.turn_on();
        Ok(stage.outbox.listed())
    }

    /// Add the identity of a token, or replace it.
    pub fn add_identity(&self, token: &str, given: GivenIdentity) {
        let identity = Identity::complete(given, token, now_seconds());
        self.stage().identities.lock().add(token, identity);
        self.stage().turn_on();
    }

    /// Return who hears events of an account: the rules, its identity, and its app; `None` if nobody does.
    fn listener(
        &self,
        kind: EventKind,
        object: Object,
        account: &str,
    ) -> Option<(std::sync::Arc<WebhookRules>, Identity, Option<PlayedApp>)> {
        let rules = self.stage().outbox.rules().filter(|rules| rules.events.contains(&kind))?;
        let known = self.stage().identities.lock().of_account(object, account).cloned();
        let identity = known.unwrap_or_else(|| {
            let id = Some(account.to_owned());
            let given = match object {
                Object::Page => GivenIdentity { page_id: id, ..GivenIdentity::default() },
                Object::Instagram => GivenIdentity { ig_id: id, ..GivenIdentity::default() },
            };
            Identity::complete(given, "", now_seconds())
        });
        let app = self.app_of(&identity);
        Some((rules, identity, app))
    }
}

/// Read a body, which names every part of it that is wrong.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Wrong> {
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())
}

fn duration(head: &Parts, name: &str) -> Result<Option<Duration>, Wrong> {
    parameter(head, name)
        .map(|text| {
            humantime::parse_duration(&text).map_err(|_| format!("{name}: must be a time such as 80ms or 2s"))
        })
        .transpose()
}

fn parameter(head: &Parts, name: &str) -> Option<String> {
    url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
        .find_map(|(given, value)| (given == name).then(|| value.into_owned()))
}

/// Return a value as JSON; the control calls have none that does not serialise.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn as_json(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    plain(status, "application/json", value.to_string())
}
