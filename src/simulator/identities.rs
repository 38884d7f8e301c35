//! The identity behind each page token, and the apps: what Graph says about a token, and whose events, budgets
//! and proofs it has.
//!
//! A token without an identity has a made-up one, so that the simulator needs no preparation. Never here: the
//! tokens themselves; an identity is found by its [`token_tag`].

use std::collections::{BTreeMap, HashMap};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::refusal::{ENDED_SESSION, EXPIRED_TOKEN, PlayedError};
use super::request::token_tag;

/// The app of a token whose identity names none.
pub(super) const COMMON_APP: &str = "100000000000001";
/// The age of a token whose identity names no time.
const USUAL_AGE: i64 = 2 * 86_400;
/// The life of an Instagram Login token, in seconds.
pub(super) const LOGIN_LIFE: i64 = 60 * 86_400;

const PAGE_SCOPES: [&str; 6] = [
    "pages_show_list",
    "pages_messaging",
    "pages_manage_metadata",
    "pages_read_engagement",
    "instagram_basic",
    "instagram_manage_messages",
];
const LOGIN_SCOPES: [&str; 2] = ["instagram_business_basic", "instagram_business_manage_messages"];

const PAGE_FIELDS: [&str; 8] = [
    "messages",
    "messaging_postbacks",
    "message_deliveries",
    "message_reads",
    "message_echoes",
    "message_reactions",
    "messaging_referrals",
    "messaging_policy_enforcement",
];
const INSTAGRAM_FIELDS: [&str; 7] = [
    "messages",
    "messaging_postbacks",
    "messaging_seen",
    "message_echoes",
    "message_reactions",
    "messaging_referral",
    "messaging_policy_enforcement",
];

/// The kind of account that messages and events belong to (`object` of a webhook).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    Page,
    Instagram,
}

impl Object {
    /// Return the word in webhooks.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Object::Page => "page",
            Object::Instagram => "instagram",
        }
    }

    /// Return the use case in usage headers.
    pub(super) fn use_case(self) -> &'static str {
        match self {
            Object::Page => "messenger",
            Object::Instagram => "instagram",
        }
    }

    fn fields(self) -> &'static [&'static str] {
        match self {
            Object::Page => &PAGE_FIELDS,
            Object::Instagram => &INSTAGRAM_FIELDS,
        }
    }
}

/// The kind of a token, in the words of `debug_token`; `INSTAGRAM` is ours for Instagram Login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenKind {
    Page,
    Instagram,
    User,
    SystemUser,
}

/// An identity as `PUT /simulator/pages` gives it; what is left out has its default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenIdentity {
    pub page_id: Option<String>,
    pub page_name: Option<String>,
    pub ig_id: Option<String>,
    pub ig_username: Option<String>,
    pub app_id: Option<String>,
    pub object: Option<Object>,
    #[serde(rename = "type")]
    pub kind: Option<TokenKind>,
    pub scopes: Option<Vec<String>>,
    pub valid: Option<bool>,
    pub issued_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub data_access_expires_at: Option<i64>,
    pub subscribed: Option<Vec<String>>,
}

/// The identity behind a token. Times are Unix seconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Identity {
    pub page_id: Option<String>,
    pub page_name: String,
    pub ig_id: Option<String>,
    pub ig_username: String,
    pub app_id: String,
    pub object: Object,
    #[serde(rename = "type")]
    pub kind: TokenKind,
    pub scopes: Vec<String>,
    pub valid: bool,
    pub issued_at: i64,
    /// 0: has no end.
    pub expires_at: i64,
    pub data_access_expires_at: i64,
    pub subscribed: Vec<String>,
    /// Stands for an account without an id.
    #[serde(skip)]
    pub number: String,
}

/// Whether a token is one of Instagram Login.
pub(super) fn is_login(token: &str) -> bool {
    token.starts_with("IGAA")
}

/// Return a number that stands for the account of a token without an identity.
pub(super) fn number_of(tag: &str) -> String {
    let number = u64::from_str_radix(tag, 16).unwrap_or_default();
    (100_000_000_000_000 + number % 100_000_000_000_000).to_string()
}

impl Identity {
    /// Complete what was given for a token; `now` in Unix seconds.
    pub fn complete(given: GivenIdentity, token: &str, now: i64) -> Identity {
        Identity::of_kind(given, is_login(token), number_of(&token_tag(token)), now)
    }

    /// Return the identity of a token that nothing was given for.
    fn made_up(tag: &str, is_login: bool, now: i64) -> Identity {
        Identity::of_kind(GivenIdentity::default(), is_login, number_of(tag), now)
    }

    fn of_kind(given: GivenIdentity, is_login: bool, number: String, now: i64) -> Identity {
        let is_instagram = is_login || (given.ig_id.is_some() && given.page_id.is_none());
        let object = given.object.unwrap_or(if is_instagram { Object::Instagram } else { Object::Page });
        let of_login = |text: &str| is_login.then(|| text.to_owned());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Identity {
            page_id: given.page_id.or_else(|| (!is_instagram).then(|| number.clone())),
            page_name: given.page_name.unwrap_or_else(|| "Simulated page".to_owned()),
            ig_id: given.ig_id.or_else(|| of_login(&number)),
            ig_username: given.ig_username.unwrap_or_else(|| "simulated".to_owned()),
            app_id: given.app_id.unwrap_or_else(|| COMMON_APP.to_owned()),
            object,
            kind: given.kind.unwrap_or(if is_login { TokenKind::Instagram } else { TokenKind::Page }),
            scopes: given
                .scopes
                .unwrap_or_else(|| words(if is_login { &LOGIN_SCOPES } else { &PAGE_SCOPES })),
            valid: given.valid.unwrap_or(true),
            issued_at: given.issued_at.unwrap_or(now - USUAL_AGE),
            expires_at: given.expires_at.unwrap_or(if is_login { now + LOGIN_LIFE } else { 0 }),
            data_access_expires_at: given.data_access_expires_at.unwrap_or(0),
            subscribed: given.subscribed.unwrap_or_else(|| words(object.fields())),
            number,
        }
    }

    /// Return the id of the Page or Instagram account that messages, budgets and events belong to.
    pub fn account(&self) -> &str {
        let of_object = match self.object {
            Object::Page => &self.page_id,
            Object::Instagram => &self.ig_id,
        };
        of_object.as_deref().unwrap_or(&self.number)
    }

    /// Whether a path names this identity.
    pub fn is_named(&self, id: &str) -> bool {
        id == "me" || [&self.page_id, &self.ig_id].into_iter().flatten().any(|known| known == id)
    }

    /// Return the id of the account in the app's scope: what Instagram Login names `id`, and the person or
    /// system user behind other tokens.
    pub fn scoped_id(&self) -> String {
        format!("9{}", &self.number[1..])
    }

    /// Return the reason why no call with this token is answered, if there is one.
    pub fn refusal(&self, now: i64) -> Option<PlayedError> {
        if !self.valid {
            return Some(ENDED_SESSION);
        }
        (self.expires_at != 0 && self.expires_at <= now).then_some(EXPIRED_TOKEN)
    }
}

/// An app, as `PUT /simulator/apps` gives it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlayedApp {
    #[serde(skip_serializing)]
    pub secret: Option<SecretString>,
    pub name: Option<String>,
    /// Whether calls need a proof; `None` is yes.
    pub require_proof: Option<bool>,
}

/// The identities by the tag of their token, and the apps by id.
#[derive(Debug, Default)]
pub(super) struct IdentityBook {
    identities: HashMap<String, Identity>,
    apps: BTreeMap<String, PlayedApp>,
}

impl IdentityBook {
    /// Replace all identities.
    pub fn put(&mut self, given: HashMap<String, GivenIdentity>, now: i64) {
        self.identities = given
            .into_iter()
            .map(|(token, given)| (token_tag(&token), Identity::complete(given, &token, now)))
            .collect();
    }

    /// Add the identity of a token, or replace it.
    pub fn add(&mut self, token: &str, identity: Identity) {
        self.identities.insert(token_tag(token), identity);
    }

    pub fn put_apps(&mut self, apps: BTreeMap<String, PlayedApp>) {
        self.apps = apps;
    }

    /// Return the identity of a token, made up if none was given.
    pub fn of_token(&self, token: &str, now: i64) -> Identity {
        let tag = token_tag(token);
        let known = self.identities.get(&tag).cloned();
        let mut identity = known.unwrap_or_else(|| Identity::made_up(&tag, is_login(token), now));
        if token.starts_with("EXPIRED") {
            identity.expires_at = now - 1;
        }
        identity
    }

    /// Return the account of the token with this tag.
    pub fn account_of(&self, tag: &str) -> String {
        self.identities.get(tag).map_or_else(|| number_of(tag), |identity| identity.account().to_owned())
    }

    /// Return the identity of an account that events come from, if one was given.
    pub fn of_account(&self, object: Object, account: &str) -> Option<&Identity> {
        let is_it = |identity: &&Identity| identity.object == object && identity.account() == account;
        self.identities.values().find(is_it)
    }

    /// Change the identity of a token; a made-up one is kept from now on.
    pub fn change(&mut self, token: &str, now: i64, change: impl FnOnce(&mut Identity)) {
        let mut identity = self.of_token(token, now);
        change(&mut identity);
        self.add(token, identity);
    }

    pub fn app(&self, id: &str) -> Option<&PlayedApp> {
        self.apps.get(id)
    }

    /// Return the identities by the tags of their tokens.
    pub fn identities(&self) -> BTreeMap<&str, &Identity> {
        self.identities.iter().map(|(tag, identity)| (tag.as_str(), identity)).collect()
    }

    pub fn apps(&self) -> &BTreeMap<String, PlayedApp> {
        &self.apps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn identity(token: &str, given: GivenIdentity) -> Identity {
        Identity::complete(given, token, NOW)
    }

    #[test]
    fn object_follows_token_and_ids() {
        let text = |text: &str| Some(text.to_owned());
        let page = identity("EAA1", GivenIdentity { page_id: text("1001"), ..GivenIdentity::default() });
        assert_eq!((page.object, page.account()), (Object::Page, "1001"));
        let linked = GivenIdentity { page_id: text("1001"), ig_id: text("1784"), ..GivenIdentity::default() };
        assert_eq!(identity("EAA1", linked.clone()).account(), "1001");
        let chosen = GivenIdentity { object: Some(Object::Instagram), ..linked };
        assert_eq!(identity("EAA1", chosen).account(), "1784");
        let alone = identity("EAA1", GivenIdentity { ig_id: text("1784"), ..GivenIdentity::default() });
        assert_eq!((alone.object, alone.page_id), (Object::Instagram, None));
        let login = identity("IGAA1", GivenIdentity::default());
        assert_eq!((login.object, login.kind), (Object::Instagram, TokenKind::Instagram));
        assert_eq!(login.expires_at, NOW + LOGIN_LIFE);
    }

    #[test]
    fn token_without_identity_has_a_stable_one() {
        let book = IdentityBook::default();
        let first = book.of_token("PAT-1", NOW);
        assert_eq!(first.account(), book.of_token("PAT-1", NOW).account());
        assert_ne!(first.account(), book.of_token("PAT-2", NOW).account());
        assert_eq!(first.account(), book.account_of(&token_tag("PAT-1")));
        assert_eq!(first.refusal(NOW), None);
    }

    #[test]
    fn ended_and_invalid_tokens_are_refused() {
        let ended = identity("EAA1", GivenIdentity { expires_at: Some(NOW), ..GivenIdentity::default() });
        assert_eq!(ended.refusal(NOW), Some(EXPIRED_TOKEN));
        assert_eq!(ended.refusal(NOW - 1), None);
        let invalid = identity("EAA1", GivenIdentity { valid: Some(false), ..GivenIdentity::default() });
        assert_eq!(invalid.refusal(NOW), Some(ENDED_SESSION));
    }

    #[test]
    fn listing_holds_no_token_and_no_secret() {
        let mut book = IdentityBook::default();
        book.put(HashMap::from([("EAA-planted".to_owned(), GivenIdentity::default())]), NOW);
        let app = PlayedApp { secret: Some("planted secret".into()), ..PlayedApp::default() };
        book.put_apps(BTreeMap::from([("7".to_owned(), app)]));
        let listed = serde_json::to_string(&(book.identities(), book.apps())).expect("it serialises");
        assert!(!listed.contains("planted"), "{listed}");
    }
}
