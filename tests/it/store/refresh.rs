//! The life of tokens: which are looked at, and what is written over them.

use std::time::Duration;

use meta_dispatch::channel::Login;
use meta_dispatch::domain::LineId;
use meta_dispatch::store::{AgeingToken, PauseScope, RefreshedToken};
use rstest::rstest;
use rstest_reuse::apply;
use secrecy::ExposeSecret;
use time::OffsetDateTime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, all_partitions};

const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(32 * 86_400);
const LINE: LineId = LineId(10);

/// Add Instagram lines, each with its token, way and end in days from now.
async fn with_lines(backend: Backend, lines: &[(i64, &str, Option<&str>, Option<i64>)]) -> Fixture {
    let fixture = Fixture::create(backend).await;
    for (id, token, graph, days) in lines {
        let graph = graph.map_or("null".to_owned(), |graph| format!("'{graph}'"));
        let statement = format!(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_graph)
             values ({id}, 1, 'instagram', '{token}', {graph})"
        );
        fixture.execute(&statement).await;
        if let Some(days) = days {
            set_end(&fixture, LineId(*id), *days).await;
        }
    }
    fixture
}

async fn set_end(fixture: &Fixture, line: LineId, days: i64) {
    let end = OffsetDateTime::now_utc() + time::Duration::days(days);
    let version = record(fixture, line).await.token_version;
    assert!(fixture.store.note_token_end(line, version, Some(end)).await.expect("the store answers"));
}

async fn record(fixture: &Fixture, line: LineId) -> meta_dispatch::store::LineRecord {
    fixture.store.lines(&[line]).await.expect("the store answers").remove(0)
}

async fn ageing(fixture: &Fixture) -> Vec<AgeingToken> {
    fixture.store.ageing_tokens(&all_partitions(), MONTH, 100).await.expect("the store answers")
}

async fn ageing_ids(fixture: &Fixture) -> Vec<i64> {
    ageing(fixture).await.iter().map(|token| token.line.0).collect()
}

#[apply(on_both)]
async fn tokens_of_instagram_login_are_looked_at(#[case] backend: Backend) {
    let lines = [
        (10, "IGAAsoon", None, Some(20)),
        (11, "IGAAlater", None, Some(50)),
        (12, "EAAunknown", None, None),
        (13, "IGAAchosen", Some("instagram"), Some(2)),
        (14, "EAApage", Some("facebook"), Some(2)),
        (15, "EAAsystem", Some("unified"), Some(2)),
        (16, " ", None, Some(2)),
        (17, "IGAAoff", None, Some(2)),
        (18, "IGAAended", None, Some(-2)),
    ];
    let fixture = with_lines(backend, &lines).await;
    fixture.execute("update cd_v8_line set v8l_active = (1 = 0) where v8l_id = 17").await;
    let found = ageing(&fixture).await;
    let ids: Vec<i64> = found.iter().map(|token| token.line.0).collect();
    assert_eq!(ids, [18, 13, 10, 12], "the first to end first, and those without a known end last");
    assert_eq!((found[0].left, found[3].left, found[3].held), (Some(Duration::ZERO), None, None));
    let left = found[2].left.expect("it is known");
    assert!(left > DAY * 19 && left <= DAY * 20, "{left:?}");
    assert_eq!((found[1].login, found[2].login), (Some(Login::Instagram), None));
    assert_eq!(found[1].text.expose_secret(), "IGAAchosen");
    let others: Vec<_> = all_partitions().into_iter().filter(|partition| partition.0 > 20).collect();
    assert!(fixture.store.ageing_tokens(&others, MONTH, 100).await.expect("the store answers").is_empty());
    assert_eq!(
        fixture.store.ageing_tokens(&all_partitions(), MONTH, 2).await.expect("the store answers").len(),
        2
    );
}

#[apply(on_both)]
async fn one_process_alone_puts_a_try_off(#[case] backend: Backend) {
    let fixture = with_lines(backend, &[(10, "IGAAsoon", None, Some(20))]).await;
    let store = &fixture.store;
    let version = record(&fixture, LINE).await.token_version;
    let put_off = async |version: i64| {
        store.put_off_refresh(LINE, version, HOUR, None).await.expect("the store answers")
    };
    assert!(!put_off(version + 1).await, "another token");
    let both = tokio::join!(put_off(version), put_off(version));
    assert!(both.0 != both.1, "{both:?}");
    assert!(ageing_ids(&fixture).await.is_empty());
    let noted = store.note_refresh_failure(LINE, version, Duration::ZERO, Some("no answer")).await;
    assert!(noted.expect("the store answers"));
    assert_eq!(ageing_ids(&fixture).await, [10]);
    assert_eq!(record(&fixture, LINE).await.token_error.as_deref(), Some("no answer"));
}

#[apply(on_both)]
async fn successor_is_written_over_its_predecessor_alone(#[case] backend: Backend) {
    let fixture = with_lines(backend, &[(10, "IGAAold", None, Some(20))]).await;
    let store = &fixture.store;
    store.pause(PauseScope::Line(LINE), HOUR, "stock-taking").await.expect("lines can be paused");
    let version = record(&fixture, LINE).await.token_version;
    store
        .note_refresh_failure(LINE, version, Duration::ZERO, Some("no answer"))
        .await
        .expect("the store answers");
    let new = RefreshedToken { text: "IGAAnew".into(), valid_for: Some(DAY * 60), next_try: DAY };
    assert!(!store.renew_token(LINE, version + 1, &new).await.expect("the store answers"));
    assert!(store.renew_token(LINE, version, &new).await.expect("the store answers"));
    assert!(!store.renew_token(LINE, version, &new).await.expect("the store answers"), "it was replaced");
    let line = record(&fixture, LINE).await;
    assert_eq!(line.page_token.expect("it is set").expose_secret(), "IGAAnew");
    assert_eq!((line.token_version, line.token_error), (version + 1, None));
    assert_eq!(line.pause_reason.as_deref(), Some("stock-taking"), "a pause goes on");
    let left = line.token_expires_at.expect("it is known") - OffsetDateTime::now_utc();
    assert_eq!(left.whole_days(), 59);
    assert!(ageing_ids(&fixture).await.is_empty());
}

#[apply(on_both)]
async fn replaced_token_has_none_of_the_known_facts(#[case] backend: Backend) {
    let fixture = with_lines(backend, &[(10, "IGAAold", None, Some(20))]).await;
    let store = &fixture.store;
    let facts = async || {
        let line = record(&fixture, LINE).await;
        (line.token_version, line.token_expires_at.is_some(), line.token_error.is_some())
    };
    let again = async |version: i64| {
        set_end(&fixture, LINE, 20).await;
        store.note_refresh_failure(LINE, version, DAY, Some("no answer")).await.expect("the store answers")
    };
    let (version, ..) = facts().await;
    assert!(again(version).await);
    // By another program.
    fixture.execute("update cd_v8_line set v8l_wa_api_key = 'IGAAbySql' where v8l_id = 10").await;
    assert_eq!(facts().await, (version + 1, false, false));
    assert_eq!(ageing_ids(&fixture).await, [10], "it is looked at at once");
    // The same text is no other token.
    assert!(again(version + 1).await);
    fixture.execute("update cd_v8_line set v8l_wa_api_key = 'IGAAbySql' where v8l_id = 10").await;
    assert_eq!(facts().await, (version + 1, true, true));
    // By sealing, which keeps the token.
    let swapped = store.swap_page_token(LINE, &"IGAAbySql".into(), &"enc:v1:sealed".into()).await;
    assert!(swapped.expect("the store answers"));
    assert_eq!(facts().await, (version + 2, true, true));
    // By an operator.
    assert!(store.set_page_token(LINE, &"IGAAnew".into()).await.expect("the store answers"));
    assert_eq!(facts().await, (version + 3, false, false));
    let held = ageing(&fixture).await[0].held.expect("it was set now");
    assert!(held < HOUR, "{held:?}");
}

#[apply(on_both)]
async fn ending_tokens_come_in_the_order_of_their_ends(#[case] backend: Backend) {
    let lines = [
        (10, "IGAAa", None, Some(13)),
        (11, "IGAAb", None, Some(-1)),
        (12, "IGAAc", None, Some(15)),
        (13, "IGAAd", None, None),
        (14, "IGAAe", None, Some(1)),
    ];
    let fixture = with_lines(backend, &lines).await;
    set_end(&fixture, LineId(1), 2).await;
    fixture.execute("update cd_v8_line set v8l_active = (1 = 0) where v8l_id = 14").await;
    let ending = fixture.store.ending_tokens(DAY * 14, 100).await.expect("the store answers");
    let ids: Vec<i64> = ending.iter().map(|token| token.line.0).collect();
    assert_eq!(ids, [11, 1, 10], "of every class");
    assert!(ending[0].left.is_zero() && ending[1].left > DAY, "{ending:?}");
    assert_eq!(fixture.store.ending_tokens(DAY * 14, 1).await.expect("the store answers").len(), 1);
}

#[apply(on_both)]
async fn summary_tells_way_and_end(#[case] backend: Backend) {
    let fixture = with_lines(backend, &[(10, "IGAAa", Some("unified"), Some(5))]).await;
    let summary = fixture.store.line_summaries(&[LINE]).await.expect("the store answers").remove(0);
    assert_eq!((summary.login, summary.lacks_account_id()), (Some(Login::Unified), true));
    assert!(summary.token_expires_at.is_some() && summary.held_up().is_some());
}
