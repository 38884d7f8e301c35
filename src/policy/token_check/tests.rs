//! Answers of Meta about a line, and what is found.

use rstest::rstest;
use serde_json::{Value, json};
use time::macros::datetime;

use super::super::classify::GraphAnswer;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);
const APP: &str = "501";

fn answer(http_status: u16, body: &Value) -> CallResult {
    let body = body.to_string().into_bytes();
    CallResult::Answer(GraphAnswer { http_status, body, ..GraphAnswer::default() })
}

fn refused(code: i64, subcode: i64, message: &str) -> CallResult {
    let error = json!({"code": code, "error_subcode": subcode, "type": "OAuthException", "message": message});
    answer(400, &json!({ "error": error }))
}

fn debug(changed: &Value) -> Option<CallResult> {
    let mut data = json!({
        "app_id": APP, "type": "PAGE", "is_valid": true, "expires_at": 0, "data_access_expires_at": 0,
        "scopes": ["pages_messaging", "pages_manage_metadata"],
    });
    for (name, value) in changed.as_object().expect("an object") {
        data[name] = value.clone();
    }
    Some(answer(200, &json!({ "data": data })))
}

fn subscribed(fields: &[&str]) -> CallResult {
    answer(
        200,
        &json!({"data": [{"id": "7", "subscribed_fields": []}, {"id": APP, "subscribed_fields": fields}]}),
    )
}

/// A Messenger line with which all is well.
fn page() -> Answers<'static> {
    Answers {
        login: Login::Facebook,
        class: Class::MESSENGER,
        page_id: Some("11"),
        instagram_account_id: None,
        app_id: None,
        proves: false,
        known_end: None,
        path_version: Some("v25.0".to_owned()),
        now: NOW,
        debug: debug(&json!({})),
        identity: answer(200, &json!({"id": "11", "name": "Shop"})),
        identity_without_proof: None,
        subscriptions: subscribed(wanted_fields(Class::MESSENGER, Login::Facebook)),
        features: None,
    }
}

/// A line of Instagram Login with which all is well.
fn instagram() -> Answers<'static> {
    let fields = wanted_fields(Class::INSTAGRAM, Login::Instagram);
    Answers {
        login: Login::Instagram,
        class: Class::INSTAGRAM,
        page_id: None,
        instagram_account_id: Some("17"),
        known_end: Some(NOW + time::Duration::days(40)),
        debug: None,
        identity: answer(200, &json!({"id": "9", "user_id": "17", "username": "shop"})),
        subscriptions: answer(200, &json!({"data": [{"subscribed_fields": fields}]})),
        ..page()
    }
}

fn linked(account: &Value) -> Answers<'static> {
    Answers {
        class: Class::INSTAGRAM,
        page_id: None,
        instagram_account_id: Some("17"),
        debug: debug(&json!({"scopes": ["instagram_basic", "instagram_manage_messages"]})),
        identity: answer(200, &json!({"id": "11", "instagram_business_account": account})),
        ..page()
    }
}

fn codes(checked: &Checked) -> Vec<&'static str> {
    checked.findings.iter().map(|finding| finding.code).collect()
}

#[rstest]
#[case::a_page(page())]
#[case::an_instagram_account(instagram())]
#[case::a_linked_account(linked(&json!({"id": "17", "username": "shop"})))]
#[case::a_system_user(Answers {
    login: Login::Unified,
    identity: answer(200, &json!({"id": "17", "username": "shop"})),
    debug: debug(&json!({"type": "SYSTEM_USER", "scopes": ["instagram_basic", "instagram_manage_messages"]})),
    ..instagram()
})]
fn good_line_has_no_finding(#[case] answers: Answers<'static>) {
    let checked = judge(&answers);
    assert!(checked.is_ok() && checked.findings.is_empty(), "{checked:?}");
    assert_eq!((checked.facts.valid, checked.facts.subscribed), (Some(true), Some(true)));
}

fn seconds(after: time::Duration) -> i64 {
    (NOW + after).unix_timestamp()
}

#[rstest]
#[case::revoked(Answers { identity: refused(190, 460, "the password was changed"), ..page() }, "token_invalid", true)]
#[case::revoked_by_its_facts(Answers { debug: debug(&json!({"is_valid": false})), ..page() }, "token_invalid", true)]
#[case::not_reached(
    Answers { identity: CallResult::Cut { reason: "no answer".into() }, debug: None, ..page() }, "not_answered", true
)]
#[case::a_busy_graph(Answers { identity: refused(4, 0, "busy"), debug: None, ..page() }, "not_answered", true)]
#[case::another_object(Answers { identity: refused(100, 33, "no such object"), ..page() }, "identity_refused", true)]
#[case::of_one_hour(
    Answers { debug: debug(&json!({"expires_at": seconds(time::Duration::minutes(55))})), ..page() }, "one_hour_token", true
)]
#[case::in_two_days(
    Answers { debug: debug(&json!({"expires_at": seconds(time::Duration::days(2))})), ..page() }, "token_ends_near", true
)]
#[case::in_ten_days(
    Answers { debug: debug(&json!({"expires_at": seconds(time::Duration::days(10))})), ..page() }, "token_ends_soon", false
)]
#[case::ended(
    Answers { debug: debug(&json!({"expires_at": seconds(-time::Duration::HOUR)})), ..page() }, "token_ended", true
)]
#[case::known_to_end(
    Answers { known_end: Some(NOW + time::Duration::days(2)), ..instagram() }, "token_ends_near", true
)]
#[case::data_access_ends(
    Answers { debug: debug(&json!({"data_access_expires_at": seconds(time::Duration::days(9))})), ..page() },
    "data_access_ends_soon", false
)]
#[case::data_access_has_ended(
    Answers { debug: debug(&json!({"data_access_expires_at": seconds(-time::Duration::DAY)})), ..page() },
    "data_access_ended", true
)]
#[case::of_a_person(Answers { debug: debug(&json!({"type": "USER"})), ..page() }, "user_token", true)]
#[case::of_another_page(Answers { page_id: Some("12"), ..page() }, "other_page", true)]
#[case::of_another_account(Answers { instagram_account_id: Some("18"), ..instagram() }, "other_account", true)]
#[case::not_linked(linked(&Value::Null), "no_linked_account", true)]
#[case::of_another_app(Answers { app_id: Some("502"), ..page() }, "other_app", true)]
#[case::without_a_permission(Answers { debug: debug(&json!({"scopes": []})), ..page() }, "permission_missing", true)]
#[case::without_a_proof(
    Answers { identity: refused(100, 0, "API calls from the server require an appsecret_proof argument"), ..page() },
    "proof_refused", true
)]
#[case::with_a_wrong_proof(
    Answers {
        proves: true,
        identity: refused(100, 0, "Invalid appsecret_proof provided in the API argument"),
        ..page()
    },
    "proof_refused", true
)]
#[case::not_subscribed(Answers { subscriptions: answer(200, &json!({"data": []})), ..page() }, "not_subscribed", false)]
#[case::without_a_field(Answers { subscriptions: subscribed(&["messages"]), ..page() }, "fields_missing", false)]
fn finding_names_its_remedy(#[case] answers: Answers<'static>, #[case] code: &str, #[case] is_error: bool) {
    let checked = judge(&answers);
    assert_eq!((codes(&checked), checked.is_ok()), (vec![code], !is_error), "{checked:?}");
    let finding = &checked.findings[0];
    assert!(!finding.detail.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
}

#[rstest]
#[case::ended("v20.0", Some("version_ended"))]
#[case::ends_soon("v21.0", Some("version_ends_soon"))]
#[case::current("v25.0", None)]
#[case::not_known("v99.0", None)]
fn version_has_an_end(#[case] version: &str, #[case] code: Option<&'static str>) {
    let checked = judge(&Answers { path_version: Some(version.to_owned()), ..page() });
    assert_eq!(codes(&checked), code.into_iter().collect::<Vec<_>>());
    assert_eq!(checked.facts.api_version.as_deref(), Some(version));
}

#[test]
fn gravest_finding_comes_first() {
    let answers = Answers {
        page_id: Some("12"),
        subscriptions: answer(200, &json!({"data": []})),
        path_version: Some("v20.0".to_owned()),
        ..page()
    };
    assert_eq!(codes(&judge(&answers)), ["other_page", "not_subscribed", "version_ended"]);
}

#[rstest]
#[case::demanded(
    Some(refused(100, 0, "API calls from the server require an appsecret_proof argument")),
    Some(true)
)]
#[case::not_demanded(Some(answer(200, &json!({"id": "11"}))), Some(false))]
#[case::not_asked(None, Some(false))]
fn demand_of_a_proof_shows_without_one(#[case] bare: Option<CallResult>, #[case] expected: Option<bool>) {
    let proves = bare.is_some();
    let checked = judge(&Answers { proves, identity_without_proof: bare, ..page() });
    assert_eq!(checked.facts.proof_demanded, expected);
    assert!(checked.is_ok());
}

#[test]
fn headers_tell_version_and_usage() {
    let body = json!({"id": "11", "name": "Shop"}).to_string().into_bytes();
    let identity = CallResult::Answer(GraphAnswer {
        http_status: 200,
        body,
        app_usage: Some(r#"{"call_count":28,"total_time":3}"#.to_owned()),
        business_usage: Some(r#"{"11":[{"type":"messenger","call_count":61,"total_time":7}]}"#.to_owned()),
        api_version: Some("v25.0".to_owned()),
        ..GraphAnswer::default()
    });
    let facts = judge(&Answers { identity, path_version: None, ..page() }).facts;
    assert_eq!((facts.usage_percent, facts.api_version.as_deref()), (Some(61), Some("v25.0")));
}

#[test]
fn broken_answers_are_no_facts() {
    for body in [
        json!({}),
        json!({"data": 7}),
        json!({"data": [7, {"id": []}]}),
        json!({"id": {}, "data": {"scopes": 1}}),
    ] {
        let broken = || answer(200, &body);
        let answers = Answers {
            debug: Some(broken()),
            identity: broken(),
            subscriptions: broken(),
            features: Some(broken()),
            ..page()
        };
        let checked = judge(&answers);
        assert!(checked.facts.page.is_none() && checked.facts.missing_permissions.is_none(), "{checked:?}");
    }
}
