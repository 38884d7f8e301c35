//! Allow-lists of accounts, and bans that all processes share.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use meta_dispatch::domain::{AccountId, CountedAddress};
use meta_dispatch::store::{MAX_BANS, NewBan, SharedStore, StoreError};
use rstest::rstest;
use rstest_reuse::apply;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO};

fn ban(address: &str, length: Duration) -> NewBan {
    let address = address.parse().expect("an address");
    NewBan { address, reason: "15 unknown tokens in 10 minutes".into(), length }
}

async fn in_force(store: &SharedStore) -> Vec<String> {
    let bans = store.bans_in_force().await.expect("the store answers");
    let mut addresses: Vec<String> = bans.iter().map(|ban| ban.address.to_string()).collect();
    addresses.sort();
    addresses
}

#[apply(on_both)]
async fn ban_is_in_force_until_its_end_or_lifted(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let bans = [ban("203.0.113.9", HOUR), ban("2001:db8:1:2::3", HOUR), ban("198.51.100.7", HOUR)];
    let stored = store.add_bans(&bans).await.expect("bans can be stored");
    assert_eq!(stored.len(), 3);
    assert_eq!(in_force(store).await, ["198.51.100.7", "2001:db8:1:2::/64", "203.0.113.9"]);
    let left = store.bans_in_force().await.expect("the store answers")[0].left;
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");

    fixture.execute(&format!("update ban set until = {LONG_AGO} where address = '198.51.100.7'")).await;
    assert_eq!(in_force(store).await, ["2001:db8:1:2::/64", "203.0.113.9"]);
    let listed = store.bans().await.expect("the store answers");
    assert_eq!(listed.len(), 2);
    assert!(listed[0].until > listed[0].created_at && listed[0].reason.contains("unknown tokens"));

    let lift = async |address: &str| {
        let address: CountedAddress = address.parse().expect("an address");
        store.lift_bans(Some(address)).await.expect("the store answers")
    };
    assert_eq!(lift("2001:db8:1:2:ffff::").await, ["2001:db8:1:2::/64"]);
    assert!(lift("2001:db8:1:2::/64").await.is_empty() && lift("198.51.100.7").await.is_empty());
    assert_eq!(store.lift_bans(None).await.expect("the store answers"), ["203.0.113.9"]);
    assert!(in_force(store).await.is_empty());
}

#[apply(on_both)]
async fn ban_again_ends_with_the_later_one(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    for length in [HOUR, HOUR / 60, 2 * HOUR] {
        let stored = store.add_bans(&[ban("203.0.113.9", length)]).await.expect("bans can be stored");
        assert_eq!(stored.len(), 1);
    }
    let bans = store.bans_in_force().await.expect("the store answers");
    assert_eq!(bans.len(), 1);
    assert!(bans[0].left > HOUR, "{:?}", bans[0].left);
}

#[apply(on_both)]
async fn bans_are_bounded(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let address = |number: u32| CountedAddress::of(IpAddr::from(number.to_be_bytes()));
    let many: Vec<NewBan> = (0..MAX_BANS + 10)
        .map(|number| NewBan { address: address(number), reason: "test".into(), length: HOUR })
        .collect();
    let stored = store.add_bans(&many).await.expect("bans can be stored");
    assert_eq!(stored.len(), MAX_BANS as usize);
    assert!(store.add_bans(&[ban("203.0.113.9", HOUR)]).await.expect("the store answers").is_empty());
    fixture.execute(&format!("update ban set until = {LONG_AGO}")).await;
    assert_eq!(store.add_bans(&[ban("203.0.113.9", HOUR)]).await.expect("the store answers").len(), 1);
    assert_eq!(in_force(store).await, ["203.0.113.9"], "ended bans are deleted");
}

#[apply(on_both)]
async fn allow_list_of_an_account_is_added_to_and_replaced(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), "abcdefghij", &[7; 32]).await.expect("tokens can be added");
    let networks = |texts: &[&str]| -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    };
    let allow = async |texts: &[&str], replace| {
        let networks = networks(texts);
        store.allow_networks(AccountId(1), &networks, replace).await.expect("networks can be set")
    };
    let of_token = async || {
        let tokens = store.tokens_by_id(&["abcdefghij".to_owned()]).await.expect("the store answers");
        tokens[0].networks.clone()
    };
    assert_eq!(of_token().await, None);
    assert_eq!(allow(&["203.0.113.0/24"], false).await, ["203.0.113.0/24"]);
    assert_eq!(allow(&["2001:db8::/48", "203.0.113.0/24"], false).await, ["2001:db8::/48", "203.0.113.0/24"]);
    let mut known = of_token().await.expect("a list");
    known.sort();
    assert_eq!(known, networks(&["203.0.113.0/24", "2001:db8::/48"]));
    let listed = store.accounts().await.expect("the store answers").remove(0);
    assert_eq!(listed.networks, ["2001:db8::/48", "203.0.113.0/24"]);
    assert_eq!(allow(&["198.51.100.7/32"], true).await, ["198.51.100.7/32"]);
    assert!(allow(&[], true).await.is_empty());
    assert_eq!(of_token().await, None);
    let nobody = store.allow_networks(AccountId(77), &networks(&["203.0.113.0/24"]), false).await;
    assert!(matches!(nobody, Err(StoreError::Invalid(_))), "{nobody:?}");
}

#[apply(on_both)]
async fn unreadable_network_opens_nothing(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.add_token(AccountId(1), "abcdefghij", &[7; 32]).await.expect("tokens can be added");
    fixture.execute("insert into account_network (cdcs_id, network) values (1, 'the office')").await;
    let tokens = store.tokens_by_id(&["abcdefghij".to_owned()]).await.expect("the store answers");
    assert_eq!(tokens[0].networks, Some(Vec::new()));
}
