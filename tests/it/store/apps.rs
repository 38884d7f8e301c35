//! Meta's apps, and the lines that belong to them or send for a page.

use meta_dispatch::channel::Class;
use meta_dispatch::domain::LineId;
use meta_dispatch::store::{AppField, NewApp, StoreError};
use rstest::rstest;
use rstest_reuse::apply;
use secrecy::{ExposeSecret, SecretString};

use super::backends::on_both;
use crate::support::store::{Backend, Fixture};

fn app(id: &str, name: Option<&str>, secret: &str) -> NewApp {
    NewApp {
        id: id.into(),
        name: name.map(str::to_owned),
        secret: secret.into(),
        verify_token: format!("verify {secret}").into(),
    }
}

#[apply(on_both)]
async fn app_is_added_replaced_and_removed(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    assert!(store.put_app(&app("2", Some("Shop"), "old")).await.expect("apps can be added"));
    assert!(store.put_app(&app("1", None, "first")).await.expect("apps can be added"));
    assert!(!store.put_app(&app("2", None, "new")).await.expect("apps can be replaced"));
    let listed = store.apps().await.expect("the store answers");
    let text =
        |secret: &Option<SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
    let told: Vec<String> = listed
        .iter()
        .map(|app| format!("{} {:?} {:?} {:?}", app.id, app.name, text(&app.secret), text(&app.verify_token)))
        .collect();
    assert_eq!(
        told,
        [r#"1 None Some("first") Some("verify first")"#, r#"2 Some("Shop") Some("new") Some("verify new")"#]
    );
    assert!(store.remove_app("1").await.expect("the store answers"));
    assert!(!store.remove_app("1").await.expect("the store answers"));
}

#[apply(on_both)]
async fn secret_is_swapped_only_where_it_is_the_old_one(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.put_app(&app("1", None, "old")).await.expect("apps can be added");
    let swap = async |field, old: &str, new: &str| {
        store.swap_app_secret("1", field, &old.into(), &new.into()).await.expect("the store answers")
    };
    assert!(!swap(AppField::Secret, "other", "new").await);
    assert!(swap(AppField::Secret, "old", "new").await);
    assert!(swap(AppField::VerifyToken, "verify old", "verify new").await);
    let listed = store.apps().await.expect("the store answers").remove(0);
    assert_eq!(listed.secret.expect("a secret").expose_secret(), "new");
    assert_eq!(listed.verify_token.expect("a token").expose_secret(), "verify new");
}

#[apply(on_both)]
async fn line_belongs_to_an_app_that_exists(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let set = async |line: i64, app: Option<&str>| store.set_line_app(LineId(line), app).await;
    assert!(matches!(set(1, Some("1")).await, Err(StoreError::Invalid(_))));
    store.put_app(&app("1", None, "first")).await.expect("apps can be added");
    assert!(set(1, Some("1")).await.expect("the store answers"));
    assert!(!set(77, Some("1")).await.expect("the store answers"), "there is no such line");
    let refused = store.remove_app("1").await.expect_err("a line belongs to it").to_string();
    assert!(refused.contains("--app none"), "{refused}");
    assert!(set(1, None).await.expect("the store answers"));
    assert!(store.remove_app("1").await.expect("the store answers"));
}

#[apply(on_both)]
async fn lines_are_found_by_their_pages(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    fixture.execute("update cd_v8_line set v8l_fb_page_id = ' 11 ', v8l_ig_account_id = '12'").await;
    fixture.execute("update cd_v8_line set v8l_class = 'instagram' where v8l_id = 2").await;
    let pages = ["11".to_owned(), "12".to_owned(), "13".to_owned()];
    for (class, page) in [(Class::MESSENGER, "11"), (Class::INSTAGRAM, "12")] {
        let found = store.lines_of_pages(class, &pages).await.expect("the store answers");
        assert!(!found.is_empty() && found.iter().all(|(found, _)| found == page), "{class}: {found:?}");
    }
    assert!(store.lines_of_pages(Class::MESSENGER, &[]).await.expect("the store answers").is_empty());
}
