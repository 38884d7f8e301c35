//! Accounts, tokens, lines, pauses; rows written by other programs.

use secrecy::{ExposeSecret, SecretString};
use time::macros::datetime;

use super::*;
use crate::store::{LineRecord, NewLine, PauseScope, StoreError, TokenStore};

fn new_line(id: Option<i64>) -> NewLine {
    NewLine {
        id: id.map(LineId),
        account: ACCOUNT,
        name: Some("Página".into()),
        class: Class::MESSENGER,
        page_token: SecretString::from("PAT"),
        page_id: Some("1234".into()),
        instagram_account_id: None,
        login: None,
        rate_text: Some(20),
        rate_media: None,
    }
}

async fn with_lines() -> Fixture {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.add_account("Acme").await.unwrap(), ACCOUNT);
    for id in [7, 8] {
        fixture.store.add_line(&new_line(Some(id))).await.unwrap();
    }
    fixture
}

async fn line(fixture: &Fixture, id: i64) -> LineRecord {
    fixture.store.lines(&[LineId(id)]).await.unwrap().remove(0)
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result.unwrap_err() {
        StoreError::Invalid(text) => text,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn returns_a_line_as_added() {
    let fixture = with_lines().await;
    let found = line(&fixture, 7).await;
    assert_eq!((found.id, found.account, found.class), (LineId(7), ACCOUNT, Class::MESSENGER));
    assert_eq!((found.name.as_deref(), found.page_id.as_deref()), (Some("Página"), Some("1234")));
    assert_eq!((found.rate_text, found.rate_media), (Some(20), None));
    assert!(found.active && found.account_active && found.paused_until.is_none());
    assert_eq!(found.page_token.unwrap().expose_secret(), "PAT");
    assert_eq!(fixture.store.add_line(&new_line(None)).await.unwrap(), LineId(9));
    assert_eq!(fixture.store.lines(&[LineId(9), LineId(99), LineId(7)]).await.unwrap().len(), 2);
    assert_eq!(fixture.store.all_lines().await.unwrap().len(), 3);
}

#[tokio::test]
async fn names_wrong_additions() {
    let fixture = with_lines().await;
    assert_eq!(invalid(fixture.store.add_line(&new_line(Some(7))).await), "line 7 exists already");
    let other = NewLine { account: AccountId(5), ..new_line(None) };
    assert_eq!(invalid(fixture.store.add_line(&other).await), "account 5 does not exist");
    assert!(invalid(fixture.store.add_line(&new_line(Some(-1))).await).contains("positive"));
    let refused = fixture.store.add_token(AccountId(5), "abcdefghij", b"hash").await;
    assert_eq!(invalid(refused), "account 5 does not exist");
}

#[tokio::test]
async fn finds_a_token_until_revoked() {
    let fixture = with_lines().await;
    let store = &fixture.store;
    store.add_token(ACCOUNT, "abcdefghij", b"hash").await.unwrap();
    assert_eq!(
        invalid(store.add_token(ACCOUNT, "abcdefghij", b"hash").await),
        "token abcdefghij exists already"
    );
    let named = ["abcdefghij".to_owned()];
    let found = store.tokens_by_id(&named).await.unwrap().remove(0);
    assert_eq!((found.account, found.account_active, found.hash.as_slice()), (ACCOUNT, true, &b"hash"[..]));
    fixture.sql("update account set cdcs_active = 0").await;
    assert!(!store.tokens_by_id(&named).await.unwrap()[0].account_active);
    assert!(!line(&fixture, 7).await.account_active);

    assert!(store.revoke_token("abcdefghij").await.unwrap());
    assert!(!store.revoke_token("abcdefghij").await.unwrap());
    assert!(store.tokens_by_id(&named).await.unwrap().is_empty());
    assert!(store.tokens().await.unwrap()[0].revoked_at.is_some());
}

#[tokio::test]
async fn end_of_a_token_is_read_in_other_notations() {
    let fixture = with_lines().await;
    let store = &fixture.store;
    store.add_token(ACCOUNT, "abcdefghij", b"hash").await.unwrap();
    let named = ["abcdefghij".to_owned()];
    for (statement, is_in_force) in [
        ("update account_token set expires_at = '2999-01-01 00:00:00'", true),
        ("update account_token set expires_at = '2999-01-01T00:00:00-03:00'", true),
        ("update account_token set expires_at = '2026-01-01 00:00:00'", false),
        ("update account_token set expires_at = 'soon'", false),
    ] {
        fixture.sql(statement).await;
        assert_eq!(!store.tokens_by_id(&named).await.unwrap().is_empty(), is_in_force, "{statement}");
    }
}

#[tokio::test]
async fn never_shortens_a_pause_of_line_or_app() {
    let fixture = with_lines().await;
    let store = &fixture.store;
    store.pause(PauseScope::Line(LineId(7)), HOUR, "rate").await.unwrap();
    let long = line(&fixture, 7).await;
    assert!(line(&fixture, 8).await.paused_until.is_none());

    store.pause(PauseScope::App, Duration::from_secs(60), "app").await.unwrap();
    let after = line(&fixture, 7).await;
    assert_eq!((after.paused_until, after.pause_reason.as_deref()), (long.paused_until, Some("rate")));
    let other = line(&fixture, 8).await;
    assert!(other.paused_until > Some(OffsetDateTime::now_utc()));
    assert_eq!(other.pause_reason.as_deref(), Some("app"));

    store.pause(PauseScope::Line(LineId(7)), HOUR * 2, "longer").await.unwrap();
    assert!(line(&fixture, 7).await.paused_until > long.paused_until);
}

#[tokio::test]
async fn replaces_a_pause_by_the_operators() {
    let fixture = with_lines().await;
    let store = &fixture.store;
    assert!(store.pause_line(LineId(7), None, "by hand").await.unwrap());
    store.pause(PauseScope::App, Duration::MAX, "app").await.unwrap();
    let paused = line(&fixture, 7).await;
    assert_eq!(paused.paused_until, Some(datetime!(9999-12-31 23:59:59.999 UTC)));
    assert_eq!(paused.pause_reason.as_deref(), Some("by hand"));

    assert!(store.pause_line(LineId(7), Some(HOUR), "shorter").await.unwrap());
    assert!(line(&fixture, 7).await.paused_until < paused.paused_until);
    assert!(store.resume_line(LineId(7)).await.unwrap());
    let resumed = line(&fixture, 7).await;
    assert_eq!((resumed.paused_until, resumed.pause_reason), (None, None));
    assert!(!store.pause_line(LineId(99), None, "by hand").await.unwrap());
    assert!(!store.resume_line(LineId(99)).await.unwrap());
}

#[tokio::test]
async fn ends_the_pause_with_a_new_page_token() {
    let fixture = with_lines().await;
    fixture.store.pause(PauseScope::Line(LineId(7)), HOUR, "token").await.unwrap();
    assert!(fixture.store.set_page_token(LineId(7), &SecretString::from("NEW")).await.unwrap());
    let changed = line(&fixture, 7).await;
    assert_eq!((changed.paused_until, changed.pause_reason), (None, None));
    assert_eq!(changed.page_token.unwrap().expose_secret(), "NEW");
    assert!(!fixture.store.set_page_token(LineId(99), &SecretString::from("NEW")).await.unwrap());
}

#[tokio::test]
async fn gives_defaults_to_a_line_made_by_sql() {
    let fixture = with_lines().await;
    fixture.sql("insert into cd_v8_line (cdcs_id, v8l_class) values (1, 'instagram')").await;
    let found = line(&fixture, 9).await;
    assert!(found.active && found.account_active);
    assert!(found.page_token.is_none() && found.rate_text.is_none() && found.paused_until.is_none());
}

#[tokio::test]
async fn reads_pauses_in_other_notations() {
    let fixture = with_lines().await;
    fixture
        .sql("update cd_v8_line set v8l_paused_until = '2999-01-01T09:00:00-03:00' where v8l_id = 7")
        .await;
    fixture.sql("update cd_v8_line set v8l_paused_until = '2999-01-01 12:00:00' where v8l_id = 8").await;
    fixture.store.pause(PauseScope::App, HOUR, "app").await.unwrap();
    for id in [7, 8] {
        assert_eq!(line(&fixture, id).await.paused_until, Some(datetime!(2999-01-01 12:00 UTC)), "{id}");
    }
}

#[tokio::test]
async fn skips_malformed_lines() {
    let fixture = with_lines().await;
    fixture
        .sql(
            "pragma foreign_keys = off;
             update cd_v8_line set v8l_paused_until = 'tomorrow', v8l_rate_text = 'fast', v8l_rate_media = 2.5,
                 v8l_name = cast(x'50e167696e61' as text), v8l_fb_page_id = x'ff', v8l_wa_api_key = '',
                 v8l_active = 'yes' where v8l_id = 7;
             insert into cd_v8_line (v8l_id, cdcs_id, v8l_class) values (50, 'nobody', 'messenger');
             pragma foreign_keys = on;
             pragma ignore_check_constraints = on;
             insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_rate_text) values (51, 1, 'telegram', 0);
             pragma ignore_check_constraints = off;",
        )
        .await;
    let lines = fixture.store.all_lines().await.unwrap();
    let ids: Vec<i64> = lines.iter().map(|line| line.id.0).collect();
    assert_eq!(ids, [7, 8, 50], "a class of a later version is left out");
    let odd = &lines[0];
    assert_eq!((odd.paused_until, odd.rate_text, odd.rate_media), (None, None, Some(2)));
    assert!(odd.page_token.is_none() && !odd.active);
    assert_eq!(odd.name.as_deref(), Some("P\u{fffd}gina"));
    assert!(!lines[2].account_active);
    fixture.store.pause(PauseScope::App, HOUR, "app").await.unwrap();
    assert!(line(&fixture, 7).await.paused_until.is_some());
}
