//! API tokens: found while they are in force, with their scopes, and the time of their last use.

use meta_dispatch::domain::{AccountId, TokenScope, TokenScopes};
use meta_dispatch::store::{NewToken, SharedStore, StoreError, TokenRecord, TokenRow};
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;
use time::macros::datetime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, LONG_AGO};

const NAME: &str = "abcdefghij";

async fn found(store: &SharedStore) -> Vec<TokenRecord> {
    store.tokens_by_id(&["0000000000".to_owned(), NAME.to_owned()]).await.expect("the store answers")
}

async fn listed(store: &SharedStore) -> TokenRow {
    store.tokens().await.expect("the store answers").remove(0)
}

#[apply(on_both)]
async fn token_shows_its_account_until_revoked(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), NAME, &[7; 32]).await.expect("tokens can be added");
    let token = found(store).await.remove(0);
    assert_eq!((token.account, token.account_active, token.hash), (AccountId(1), true, vec![7; 32]));
    assert_eq!((token.key_id, token.scopes, token.networks), (None, TokenScopes::ALL, None));
    fixture.execute("update account set cdcs_active = false where cdcs_id = 1").await;
    assert!(!found(store).await[0].account_active);
    assert!(store.revoke_token(NAME).await.expect("the store answers"));
    assert!(!store.revoke_token(NAME).await.expect("the store answers"), "it was revoked already");
    assert!(found(store).await.is_empty());
    assert!(listed(store).await.revoked_at.is_some());
    let taken = store.add_token(AccountId(1), NAME, &[8; 32]).await;
    assert!(matches!(taken, Err(StoreError::Invalid(_))), "{taken:?}");
    let nobody = store.add_token(AccountId(77), "0123456789", &[8; 32]).await;
    assert!(matches!(nobody, Err(StoreError::Invalid(_))), "{nobody:?}");
}

#[apply(on_both)]
async fn terms_of_a_token_are_kept(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let token = NewToken {
        account: AccountId(1),
        token_id: NAME.into(),
        hash: vec![7; 32],
        key_id: Some("00112233".into()),
        name: Some("shop".into()),
        scopes: "send,read".parse().expect("known words"),
        expires_at: Some(datetime!(2999-01-01 00:00 UTC)),
    };
    store.insert_token(&token).await.expect("tokens can be added");
    let record = found(store).await.remove(0);
    assert_eq!(record.key_id, token.key_id);
    assert!(record.scopes.contains(TokenScope::Send) && !record.scopes.contains(TokenScope::Campaigns));
    let row = listed(store).await;
    assert_eq!((row.token_id, row.cdcs_id, row.name), (NAME.into(), AccountId(1), token.name));
    assert_eq!((row.scopes, row.expires_at, row.last_used_at), (token.scopes, token.expires_at, None));
}

#[apply(on_both)]
async fn expired_token_is_not_found(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), NAME, &[7; 32]).await.expect("tokens can be added");
    assert_eq!(found(store).await.len(), 1);
    fixture.execute(&format!("update account_token set expires_at = {LONG_AGO}")).await;
    assert!(found(store).await.is_empty());
    assert_eq!(listed(store).await.token_id, NAME, "it is listed all the same");
}

#[apply(on_both)]
async fn last_use_is_noted_once_a_minute(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), NAME, &[7; 32]).await.expect("tokens can be added");
    let names = [NAME.to_owned(), "0000000000".to_owned()];
    let note = async || {
        store.note_token_uses(&names).await.expect("uses can be noted");
        listed(store).await.last_used_at.expect("it is noted")
    };
    let first = note().await;
    assert!((OffsetDateTime::now_utc() - first).abs() < time::Duration::minutes(5), "{first}");
    assert_eq!(note().await, first, "it is less than a minute old");
    fixture.execute(&format!("update account_token set last_used_at = {LONG_AGO}")).await;
    assert!(note().await >= first);
}
