//! Users of the broker, and rows read for events, on PostgreSQL and on SQLite.

use meta_dispatch::message::{AccountId, MessageId};
use meta_dispatch::store::{BrokerUser, StoreError};
use rstest::rstest;

use crate::support::store::{Backend, Fixture};

#[rstest]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_broker_sends_for_one_account_until_it_is_unmapped(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), None);
    store.map_broker_user(AccountId(1), "shop").await.expect("users can be mapped");
    let mapped = BrokerUser { account: AccountId(1), account_active: true };
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), Some(mapped));
    assert_eq!(store.broker_user("Shop").await.expect("the store answers"), None);

    let again = store.map_broker_user(AccountId(2), "shop").await;
    assert!(matches!(&again, Err(StoreError::Invalid(why)) if why.contains("shop")), "{again:?}");
    let nobody = store.map_broker_user(AccountId(7), "other").await;
    assert!(matches!(nobody, Err(StoreError::Invalid(_))), "{nobody:?}");

    fixture.execute("update account set cdcs_active = (1 = 0) where cdcs_id = 1").await;
    let inactive = BrokerUser { account_active: false, ..mapped };
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), Some(inactive));

    store.map_broker_user(AccountId(2), "clinic").await.expect("users can be mapped");
    let listed = store.broker_users().await.expect("the store answers");
    let listed: Vec<_> = listed.iter().map(|user| (user.broker_user.as_str(), user.cdcs_id.0)).collect();
    assert_eq!(listed, [("clinic", 2), ("shop", 1)]);
    assert!(store.unmap_broker_user("shop").await.expect("the store answers"));
    assert!(!store.unmap_broker_user("shop").await.expect("the store answers"));
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), None);
}

#[rstest]
#[case::postgres(Backend::Postgres)]
#[case::sqlite(Backend::Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_by_id_and_missing_ones_are_left_out(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute("insert into cdls (cdls_id, cdcs_id, v8l_id, class, dest, mtype, mdata, priority, expires_at) values (7, 1, 1, 'messenger', 'ann', 'text', 'hi', 'high', '2099-01-01T00:00:00.000Z'), (8, 1, 1, 'messenger', 'bob', 'text', 'hi', 'high', '2099-01-01T00:00:00.000Z')")
        .await;
    let ids = [MessageId(8), MessageId(99), MessageId(7)];
    let mut rows = fixture.store.log_rows(&ids).await.expect("the store answers");
    rows.sort_by_key(|row| row.cdls_id);
    let found: Vec<_> = rows.iter().map(|row| (row.cdls_id.0, row.dest.as_str())).collect();
    assert_eq!(found, [(7, "ann"), (8, "bob")]);
    assert!(fixture.store.log_rows(&[]).await.expect("the store answers").is_empty());
}
