//! Accounts, their broker users, and lines.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{AccountId, LineId};
use meta_dispatch::store::{BrokerUser, LineChange, NewLine, PauseScope, StoreError};
use meta_dispatch::text::is_unseen;
use rstest::rstest;
use rstest_reuse::apply;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, LONG_AGO};

#[apply(on_both)]
async fn line_inserted_by_sql_has_the_defaults(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute("insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key) values (70, 1, 'instagram', 'EAA')")
        .await;
    let line = fixture.store.lines(&[LineId(70), LineId(71)]).await.expect("the store answers").remove(0);
    assert_eq!((line.id, line.account, line.class), (LineId(70), AccountId(1), Class::INSTAGRAM));
    assert!(line.active && line.account_active && line.page_token.is_some());
    assert_eq!((line.rate_text, line.rate_media, line.paused_until, line.page_id), (None, None, None, None));
}

/// Other programs write the column, and a token of white space and invisible characters is none.
#[apply(on_both)]
async fn summary_tells_whether_there_is_a_token(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let unseen: String = (char::MIN..=char::MAX).filter(|character| is_unseen(*character)).collect();
    let token = |token: String| format!("update cd_v8_line set v8l_wa_api_key = {token} where v8l_id = 1");
    for (given, has_token) in [
        (format!("'{unseen}EAA{unseen}'"), true),
        ("'enc:v1:sealed'".to_owned(), true),
        (format!("'{unseen}'"), false),
        ("''".to_owned(), false),
        ("null".to_owned(), false),
    ] {
        fixture.execute(&token(given.clone())).await;
        let summaries = fixture.store.line_summaries(&[LineId(1), LineId(71)]).await;
        let summary = summaries.expect("the store answers").remove(0);
        assert_eq!((summary.id, summary.has_token), (LineId(1), has_token), "{given:?}");
        let record = fixture.store.lines(&[LineId(1)]).await.expect("the store answers").remove(0);
        assert_eq!(record.page_token.is_some(), has_token, "{given:?}");
    }
}

#[apply(on_both)]
async fn lines_are_added_listed_and_given_tokens(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let new = |id: Option<i64>, account| NewLine {
        id: id.map(LineId),
        account: AccountId(account),
        name: Some("Shop".into()),
        class: Class::MESSENGER,
        page_token: "EAAold".into(),
        page_id: Some("1001".into()),
        instagram_account_id: None,
        login: None,
        rate_text: Some(20),
        rate_media: None,
    };
    assert_eq!(store.add_line(&new(Some(500), 1)).await.expect("lines can be added"), LineId(500));
    let next = store.add_line(&new(None, 1)).await.expect("lines can be added");
    assert!(next > LineId(2), "{next}");
    for (line, what) in [(new(Some(500), 1), "taken"), (new(None, 77), "nobody's")] {
        assert!(matches!(store.add_line(&line).await, Err(StoreError::Invalid(_))), "{what}");
    }
    store.pause(PauseScope::Line(next), Duration::from_secs(60), "190").await.expect("lines can be paused");
    assert!(store.set_page_token(next, &"EAAnew".into()).await.expect("the store answers"));
    let line = store.lines(&[next]).await.expect("the store answers").remove(0);
    assert_eq!((line.paused_until, line.pause_reason, line.rate_text), (None, None, Some(20)));
    assert!(!store.set_page_token(LineId(12_345), &"EAA".into()).await.expect("the store answers"));
    assert!(store.all_lines().await.expect("the store answers").len() >= 4);
}

#[apply(on_both)]
async fn policy_pauses_grow_and_operators_replace_any(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let paused = async |line: i64| {
        let line = store.lines(&[LineId(line)]).await.expect("the store answers").remove(0);
        let until = line.paused_until.map(|until| until - OffsetDateTime::now_utc());
        let off = until.zip(line.pause_left).map(|(until, left)| (until - left).abs());
        assert_eq!(until.is_some(), off.is_some_and(|off| off.whole_seconds() <= 1), "{line:?}");
        (until.map(|until| until.whole_minutes()), line.pause_reason)
    };
    let hour = Duration::from_secs(3_600);
    store.pause(PauseScope::Line(LineId(1)), hour, "first").await.expect("lines can be paused");
    store.pause(PauseScope::App, hour / 2, "app").await.expect("lines can be paused");
    assert_eq!(paused(1).await, (Some(59), Some("first".into())));
    assert_eq!(paused(2).await, (Some(29), Some("app".into())));
    assert!(store.pause_line(LineId(1), Some(hour / 6), "lunch").await.expect("the store answers"));
    assert_eq!(paused(1).await, (Some(9), Some("lunch".into())));
    assert!(store.pause_line(LineId(1), None, "for good").await.expect("the store answers"));
    assert!(paused(1).await.0 > Some(365 * 24 * 60));
    assert!(store.resume_line(LineId(1)).await.expect("the store answers"));
    assert_eq!(paused(1).await, (None, None));
    assert!(!store.resume_line(LineId(12_345)).await.expect("the store answers"));
}

#[apply(on_both)]
async fn broker_user_has_one_account_until_unmapped(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), None);
    store.map_broker_user(AccountId(1), "shop", false).await.expect("users can be mapped");
    let mapped = BrokerUser { account: AccountId(1), account_active: true };
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), Some(mapped));
    assert_eq!(store.broker_user("Shop").await.expect("the store answers"), None);

    for (account, submit_queue) in [(1, false), (2, false), (2, true)] {
        let again = store.map_broker_user(AccountId(account), "shop", submit_queue).await;
        assert!(matches!(&again, Err(StoreError::Invalid(why)) if why.contains("shop")), "{again:?}");
    }
    let nobody = store.map_broker_user(AccountId(7), "other", false).await;
    assert!(matches!(nobody, Err(StoreError::Invalid(_))), "{nobody:?}");

    fixture.execute("update account set cdcs_active = (1 = 0) where cdcs_id = 1").await;
    let inactive = BrokerUser { account_active: false, ..mapped };
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), Some(inactive));

    store.map_broker_user(AccountId(2), "clinic", false).await.expect("users can be mapped");
    let listed = store.broker_users().await.expect("the store answers");
    let listed: Vec<_> = listed.iter().map(|user| (user.broker_user.as_str(), user.cdcs_id.0)).collect();
    assert_eq!(listed, [("clinic", 2), ("shop", 1)]);
    assert!(store.submit_queues().await.expect("the store answers").is_empty());
    store.map_broker_user(AccountId(1), "shop", true).await.expect("a mapped user may be given a queue");
    store.map_broker_user(AccountId(2), "pharmacy", true).await.expect("users can be mapped");
    assert_eq!(store.submit_queues().await.expect("the store answers"), ["pharmacy", "shop"]);
    let twice = store.map_broker_user(AccountId(1), "shop", true).await;
    assert!(matches!(twice, Err(StoreError::Invalid(_))), "{twice:?}");
    assert!(store.unmap_broker_user("shop").await.expect("the store answers"));
    assert!(!store.unmap_broker_user("shop").await.expect("the store answers"));
    assert_eq!(store.broker_user("shop").await.expect("the store answers"), None);
}

#[apply(on_both)]
async fn lines_of_an_account_are_changed_and_removed(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let one = LineId(1);
    let line = async || store.lines(&[one]).await.expect("the store answers").remove(0);
    let set = async |change: LineChange| store.update_line(one, &change).await.expect("lines can be changed");
    let change = LineChange { name: Some("Shop".into()), rate_text: Some(Some(20)), ..LineChange::default() };
    assert!(set(change).await);
    let record = line().await;
    assert_eq!((record.name.as_deref(), record.rate_text, record.active), (Some("Shop"), Some(20), true));
    assert!(set(LineChange { active: Some(false), rate_text: Some(None), ..LineChange::default() }).await);
    let record = line().await;
    assert_eq!((record.name.as_deref(), record.rate_text, record.active), (Some("Shop"), None, false));
    let own = store.account_lines(AccountId(1)).await.expect("the store answers");
    assert!(own.iter().map(|line| line.id).eq([LineId(1), LineId(2)]));
    assert!(store.account_lines(AccountId(2)).await.expect("the store answers").is_empty());
    assert!(store.remove_line(one).await.expect("lines can be removed"));
    assert!(!store.remove_line(one).await.expect("lines can be removed"), "once");
    assert!(!store.update_line(one, &LineChange::default()).await.expect("the store answers"));
    for active in [false, true] {
        assert!(store.set_account_active(AccountId(1), active).await.expect("accounts can be switched"));
        let lines = store.lines(&[LineId(2)]).await.expect("the store answers");
        assert_eq!(lines[0].account_active, active);
    }
    assert!(!store.set_account_active(AccountId(77), true).await.expect("the store answers"));
}

#[apply(on_both)]
async fn stopped_lines_are_paused_or_without_a_token(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    fixture
        .execute("insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id) values (3, 1, 'messenger', ' ', '13')")
        .await;
    let stopped = async || {
        let lines = store.stopped_lines().await.expect("the store answers");
        lines.into_iter().map(|line| (line.id, line.held_up().is_some())).collect::<Vec<_>>()
    };
    assert_eq!(stopped().await, [(LineId(3), true)]);
    let refused = "Graph: cannot send: Graph code 190";
    store.pause(PauseScope::Line(LineId(1)), HOUR, refused).await.expect("lines can be paused");
    store.pause(PauseScope::Line(LineId(2)), HOUR, "Graph: slowed down").await.expect("lines can be paused");
    assert_eq!(stopped().await, [(LineId(1), true), (LineId(2), false), (LineId(3), true)]);
    assert!(store.resume_line(LineId(2)).await.expect("lines can be resumed"));
    fixture.execute(&format!("update cd_v8_line set v8l_paused_until = {LONG_AGO} where v8l_id = 1")).await;
    assert_eq!(stopped().await, [(LineId(3), true)], "a pause that is over is none");
    fixture.execute("update cd_v8_line set v8l_active = false where v8l_id = 3").await;
    assert!(stopped().await.is_empty(), "a line that is switched off is not meant to send");
}
