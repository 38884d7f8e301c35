//! Page tokens as stored, and the pauses of lines whose token cannot be opened.

use std::time::Duration;

use meta_dispatch::domain::LineId;
use meta_dispatch::store::{PauseScope, UNOPENED_FOR, UNOPENED_PAUSE};
use rstest::rstest;
use rstest_reuse::apply;
use secrecy::ExposeSecret;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture};

const LINE: LineId = LineId(1);
const OTHER: LineId = LineId(2);

#[apply(on_both)]
async fn tokens_are_read_as_stored_page_by_page(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key)
             values (3, 1, 'messenger', null), (4, 1, 'messenger', '  '), (5, 1, 'messenger', ' EAAfive ')",
        )
        .await;
    let store = &fixture.store;
    let mut read = Vec::new();
    let mut after = LineId(0);
    loop {
        let page = store.page_tokens(after, 1).await.expect("the store answers");
        let Some(token) = page.first() else { break };
        assert_eq!(page.len(), 1);
        after = token.line;
        read.push((token.line.0, token.text.expose_secret().to_owned()));
    }
    let expected = [(1_i64, "EAA"), (2, "EAA"), (5, " EAAfive ")].map(|(line, text)| (line, text.to_owned()));
    assert_eq!(read, expected);
}

#[apply(on_both)]
async fn token_is_swapped_only_while_it_is_the_old_one(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    store.pause(PauseScope::Line(LINE), Duration::from_secs(60), "190").await.expect("lines can be paused");
    for (old, is_swapped) in [("EAAwrong", false), ("EAA", true), ("EAA", false)] {
        let swapped = store.swap_page_token(LINE, &old.into(), &"enc:new".into()).await;
        assert_eq!(swapped.expect("the store answers"), is_swapped, "{old}");
    }
    let lines = store.lines(&[LINE, OTHER]).await.expect("the store answers");
    let tokens = lines.iter().map(|line| line.page_token.as_ref().expect("it is set").expose_secret());
    assert_eq!(tokens.collect::<Vec<_>>(), ["enc:new", "EAA"]);
    assert_eq!(lines[0].pause_reason.as_deref(), Some("190"), "the pause goes on");
}

#[apply(on_both)]
async fn pause_ends_only_with_its_own_reason(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let store = &fixture.store;
    let reason = format!("{UNOPENED_PAUSE}: for a test");
    store.pause(PauseScope::Line(LINE), UNOPENED_FOR, &reason).await.expect("lines can be paused");
    store.pause_line(OTHER, None, "by an operator").await.expect("lines can be paused");
    let paused = store.lines_paused_for(UNOPENED_PAUSE).await.expect("the store answers");
    assert_eq!(paused, [LINE]);
    assert!(!store.end_pause(OTHER, &reason).await.expect("the store answers"));
    assert!(store.end_pause(LINE, &reason).await.expect("the store answers"));
    assert!(!store.end_pause(LINE, &reason).await.expect("the store answers"), "it has ended");
    let lines = store.lines(&[LINE, OTHER]).await.expect("the store answers");
    assert_eq!((lines[0].pause_left, lines[0].pause_reason.as_deref()), (None, None));
    assert_eq!(lines[1].pause_reason.as_deref(), Some("by an operator"));
    assert!(store.lines_paused_for(UNOPENED_PAUSE).await.expect("the store answers").is_empty());
}
