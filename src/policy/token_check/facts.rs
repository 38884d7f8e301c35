//! The facts that the answers hold, read leniently: a value that does not fit is left out.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::super::classify::{CallResult, asked, number};
use super::{Answers, wanted_fields, wanted_permissions};
use crate::channel::Login;
use crate::text::{printable_id, timestamp};

/// Longest name that is shown.
const MAX_NAME: usize = 200;
/// Entries of a list that are read.
const MAX_ENTRIES: usize = 500;

/// The end of a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenEnd {
    #[default]
    Unknown,
    Never,
    At(OffsetDateTime),
}

impl TokenEnd {
    /// Read Meta's Unix seconds; 0 is no end.
    fn read(value: Option<&Value>) -> TokenEnd {
        match value.and_then(number) {
            None => TokenEnd::Unknown,
            Some(0) => TokenEnd::Never,
            Some(seconds) => match OffsetDateTime::from_unix_timestamp(seconds) {
                Ok(at) if (2000..9999).contains(&at.year()) => TokenEnd::At(at),
                _ => TokenEnd::Unknown,
            },
        }
    }

    pub fn at(self) -> Option<OffsetDateTime> {
        match self {
            TokenEnd::At(at) => Some(at),
            TokenEnd::Unknown | TokenEnd::Never => None,
        }
    }

    /// Return the end for people.
    pub fn shown(self) -> String {
        match self {
            TokenEnd::Unknown => "not known".to_owned(),
            TokenEnd::Never => "no end".to_owned(),
            TokenEnd::At(at) => timestamp(at),
        }
    }
}

impl Serialize for TokenEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TokenEnd::At(at) => serializer.serialize_str(&timestamp(*at)),
            TokenEnd::Never => serializer.serialize_str("never"),
            TokenEnd::Unknown => serializer.serialize_none(),
        }
    }
}

/// A Page or an Instagram account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    pub id: String,
    pub name: Option<String>,
}

/// The facts about a line's token.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// `null`: Meta did not say.
    pub valid: Option<bool>,
    pub expires_at: TokenEnd,
    pub data_access_expires_at: TokenEnd,
    /// Meta's word for the kind of token.
    pub token_type: Option<String>,
    pub page: Option<Owner>,
    pub instagram_account: Option<Owner>,
    pub app_id: Option<String>,
    /// `null`: Meta did not say.
    pub missing_permissions: Option<Vec<&'static str>>,
    /// Whether the app hears of the object's events; `null`: Meta did not say.
    pub subscribed: Option<bool>,
    pub missing_fields: Vec<&'static str>,
    /// Whether the app refuses calls without a proof; `null`: not known.
    pub proof_demanded: Option<bool>,
    /// The highest use of a limit, in percent.
    pub usage_percent: Option<u64>,
    pub api_version: Option<String>,
    /// Features that Meta approved for the Page.
    pub features: Vec<String>,
}

impl Facts {
    pub(super) fn of(answers: &Answers<'_>) -> Facts {
        let debug = answers.debug.as_ref().and_then(debug_data);
        let field = |name: &str| debug.as_ref().and_then(|debug| debug.get(name));
        let identity = asked(&answers.identity);
        let (page, instagram_account) = match &identity {
            Ok(identity) => owners(identity, answers.login),
            Err(_) => (None, None),
        };
        let app_id = text(field("app_id")).or_else(|| answers.app_id.map(str::to_owned));
        let subscription = Subscription::read(answers, app_id.as_deref());
        let valid = match (&identity, field("is_valid").and_then(Value::as_bool)) {
            (_, Some(false)) => Some(false),
            (Ok(_), _) => Some(true),
            (Err(refusal), _) if refusal.is_about_the_token() => Some(false),
            (Err(_), is_valid) => is_valid,
        };
        let known = answers.known_end.map_or(TokenEnd::Unknown, TokenEnd::At);
        let expires_at = match TokenEnd::read(field("expires_at")) {
            TokenEnd::Unknown => known,
            told => told,
        };
        Facts {
            valid,
            expires_at,
            data_access_expires_at: TokenEnd::read(field("data_access_expires_at")),
            token_type: text(field("type")),
            page,
            instagram_account,
            app_id,
            missing_permissions: missing_permissions(answers, debug.as_ref()),
            subscribed: subscription.is_there,
            missing_fields: subscription.missing,
            proof_demanded: proof_demanded(answers),
            usage_percent: usage_percent(answers),
            api_version: api_version(answers),
            features: features(answers),
        }
    }
}

/// Return the facts of `debug_token`, which stand under `data`.
fn debug_data(result: &CallResult) -> Option<Map<String, Value>> {
    let Ok(mut object) = asked(result) else { return None };
    match object.remove("data") {
        Some(Value::Object(data)) => Some(data),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => printable_id(text, MAX_NAME),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Return Page and Instagram account of the token.
fn owners(identity: &Map<String, Value>, login: Login) -> (Option<Owner>, Option<Owner>) {
    let owner = |object: &Map<String, Value>, id: &str, name: &str| {
        Some(Owner { id: text(object.get(id))?, name: text(object.get(name)) })
    };
    match login {
        Login::Facebook => {
            let linked = identity.get("instagram_business_account").and_then(Value::as_object);
            (owner(identity, "id", "name"), linked.and_then(|linked| owner(linked, "id", "username")))
        }
        // `user_id` is the id that webhooks use; `id` is one of the app alone.
        Login::Instagram => (None, owner(identity, "user_id", "username")),
        Login::Unified => (None, owner(identity, "id", "username")),
    }
}

fn missing_permissions(
    answers: &Answers<'_>,
    debug: Option<&Map<String, Value>>,
) -> Option<Vec<&'static str>> {
    let scopes = debug?.get("scopes")?.as_array()?;
    let has = |wanted: &&&str| scopes.iter().take(MAX_ENTRIES).any(|scope| scope.as_str() == Some(**wanted));
    let wanted = wanted_permissions(answers.class, answers.login);
    Some(wanted.iter().filter(|wanted| !has(wanted)).copied().collect())
}

/// The subscription of the line's app.
struct Subscription {
    is_there: Option<bool>,
    missing: Vec<&'static str>,
}

impl Subscription {
    fn read(answers: &Answers<'_>, app_id: Option<&str>) -> Subscription {
        let none = Subscription { is_there: None, missing: Vec::new() };
        let Ok(object) = asked(&answers.subscriptions) else { return none };
        let Some(apps) = object.get("data").and_then(Value::as_array) else { return none };
        let is_ours = |app: &&Value| match (app_id, text(app.get("id"))) {
            (Some(ours), Some(id)) => ours == id,
            // Without ids the only subscription is taken for that of the token's app.
            _ => true,
        };
        if app_id.is_none() && apps.len() > 1 {
            return none;
        }
        let Some(app) = apps.iter().take(MAX_ENTRIES).find(is_ours) else {
            return Subscription { is_there: Some(false), missing: Vec::new() };
        };
        let fields = app.get("subscribed_fields").and_then(Value::as_array);
        let has = |wanted: &&&str| {
            fields.is_some_and(|fields| fields.iter().take(MAX_ENTRIES).any(|field| is_named(field, wanted)))
        };
        let wanted = wanted_fields(answers.class, answers.login);
        let missing = wanted.iter().filter(|wanted| !has(wanted)).copied().collect();
        Subscription { is_there: Some(true), missing }
    }
}

/// Whether a field has this name; newer answers hold objects in place of names.
fn is_named(field: &Value, name: &str) -> bool {
    field.as_str().or_else(|| field.get("name").and_then(Value::as_str)) == Some(name)
}

/// Whether the app demands a proof: it refuses a call without one that it answers with one.
fn proof_demanded(answers: &Answers<'_>) -> Option<bool> {
    let says =
        |result: &CallResult| asked(result).is_err_and(|refusal| refusal.text.contains("appsecret_proof"));
    match &answers.identity_without_proof {
        Some(_) if asked(&answers.identity).is_err() => None,
        Some(bare) => match asked(bare) {
            Ok(_) => Some(false),
            Err(refusal) => Some(refusal.by_graph && !refusal.is_passing()),
        },
        None if asked(&answers.identity).is_ok() => Some(false),
        None => says(&answers.identity).then_some(true),
    }
}

/// Return the highest percentage of the usage headers, of any answer.
fn usage_percent(answers: &Answers<'_>) -> Option<u64> {
    let results = [answers.debug.as_ref(), Some(&answers.identity), Some(&answers.subscriptions)];
    let headers = results.into_iter().flatten().flat_map(|result| match result {
        CallResult::Answer(answer) => [&answer.app_usage, &answer.page_usage, &answer.business_usage],
        _ => [&None, &None, &None],
    });
    let usages = headers.flatten().filter_map(|header| serde_json::from_str::<Value>(header).ok());
    usages.filter_map(|usage| highest(&usage, 0)).max()
}

/// Levels of a usage header that are read; Meta's have three.
const MOST_LEVELS: u8 = 6;

fn highest(usage: &Value, level: u8) -> Option<u64> {
    const PERCENTS: [&str; 4] = ["call_count", "total_cputime", "total_time", "call_volume"];
    if level > MOST_LEVELS {
        return None;
    }
    match usage {
        Value::Object(object) => {
            let own = PERCENTS.iter().filter_map(|name| object.get(*name).and_then(Value::as_u64));
            let inner = object.values().filter_map(|value| highest(value, level + 1));
            own.chain(inner).max()
        }
        Value::Array(list) => {
            list.iter().take(MAX_ENTRIES).filter_map(|value| highest(value, level + 1)).max()
        }
        _ => None,
    }
}

/// Return the version that answered, or that of the path.
fn api_version(answers: &Answers<'_>) -> Option<String> {
    let told = match &answers.identity {
        CallResult::Answer(answer) => answer.api_version.as_deref().map(|version| printable_id(version, 20)),
        _ => None,
    };
    told.filter(|version| !version.is_empty()).or_else(|| answers.path_version.clone())
}

fn features(answers: &Answers<'_>) -> Vec<String> {
    let Some(Ok(object)) = answers.features.as_ref().map(asked) else { return Vec::new() };
    let Some(features) = object.get("data").and_then(Value::as_array) else { return Vec::new() };
    let approved = |feature: &Value| {
        let status = feature.get("status").and_then(Value::as_str).unwrap_or_default();
        let is_approved = status.eq_ignore_ascii_case("approved");
        text(feature.get("feature")).filter(|_| is_approved)
    };
    features.iter().take(MAX_ENTRIES).filter_map(approved).collect()
}
