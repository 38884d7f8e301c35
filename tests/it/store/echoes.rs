//! Echoes are noted for rows that have not ended, and handed out with their row.

use std::time::Duration;

use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::store::{Change, ChangeKind, NamedEcho, UnnamedEcho, text_digest};
use rstest::rstest;
use rstest_reuse::apply;
use time::macros::datetime;

use super::backends::on_both;
use crate::support::store::{Backend, Fixture, HOUR, failed, retry, sent, text, unknown};

/// The Page of line 1.
const PAGE: &str = "11";

fn echo(row: RowId, dest: &str) -> NamedEcho {
    NamedEcho {
        row,
        fence: 1,
        page_id: PAGE.to_owned(),
        dest: dest.to_owned(),
        message_id: format!("m_{row}"),
    }
}

impl Fixture {
    async fn note(&self, echoes: &[NamedEcho]) {
        self.store.note_echoes(echoes).await.expect("echoes are noted");
    }

    async fn noted(&self) -> Vec<RowId> {
        let noted = self.store.noted_echoes(100).await.expect("echoes can be read");
        noted.iter().map(|echo| echo.row).collect()
    }
}

#[apply(on_both)]
async fn echo_settles_once_its_call_has_ended(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.claimed(text("ana")).await;
    fixture.note(&[echo(id, "ana")]).await;
    let noted = fixture.store.noted_echoes(100).await.expect("echoes can be read");
    assert_eq!((noted.len(), noted[0].row, noted[0].status), (1, id, Status::Pending));
    assert_eq!(noted[0].message_id, format!("m_{id}"));
    assert!(!noted[0].settles() && !noted[0].is_over(), "its call is in flight");
    assert!(fixture.change(id, unknown()).await);
    let noted = fixture.store.noted_echoes(100).await.expect("echoes can be read");
    assert!(noted[0].settles(), "{noted:?}");
    let kind = ChangeKind::Sent { http_status: 200, graph_id: noted[0].message_id.clone() };
    let change = Change { id, fence: noted[0].fence, begun: None, crashed: false, kind };
    assert_eq!(fixture.record("other", &[change], &[]).await.changed, [true]);
    let row = fixture.row(id).await;
    assert_eq!((row.status, row.status_code), (Status::Ok, 200));
    assert_eq!(row.message_id, Some(format!("m_{id}")));
    assert_eq!((row.attempts, row.error_code), (1, None));
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
    let noted = fixture.store.noted_echoes(100).await.expect("echoes can be read");
    assert!(noted[0].is_over());
    fixture.store.forget_echoes(&[id], &[], HOUR).await.expect("echoes are forgotten");
    assert!(fixture.noted().await.is_empty());
}

#[apply(on_both)]
async fn echo_settles_a_row_that_waits_for_another_try(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ana"), retry(HOUR)).await;
    fixture.note(&[echo(id, "ana")]).await;
    let noted = fixture.store.noted_echoes(100).await.expect("echoes can be read");
    assert!(noted[0].settles(), "{noted:?}");
    let change = Change { id, fence: noted[0].fence, begun: None, crashed: false, kind: sent() };
    assert_eq!(fixture.record("other", &[change], &[]).await.changed, [true]);
    assert_eq!(fixture.row(id).await.status, Status::Ok);
    assert_eq!(fixture.rows_of("cdls_open").await, 0);
}

#[apply(on_both)]
async fn only_echoes_of_the_page_and_recipient_are_noted(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ana"), unknown()).await;
    let ended = fixture.called(text("bob"), failed()).await;
    let other_page = NamedEcho { page_id: "12".to_owned(), ..echo(id, "ana") };
    let no_row = RowId(77_000_000_000);
    fixture.note(&[other_page, echo(id, "eve"), echo(ended, "bob"), echo(no_row, "ana")]).await;
    assert!(fixture.noted().await.is_empty());
    fixture.note(&[echo(id, "ana"), echo(id, "ana")]).await;
    fixture.note(&[NamedEcho { message_id: "m_later".to_owned(), ..echo(id, "ana") }]).await;
    let noted = fixture.store.noted_echoes(100).await.expect("echoes can be read");
    assert_eq!((noted.len(), noted[0].message_id.clone()), (1, format!("m_{id}")), "the first one stays");
}

#[apply(on_both)]
async fn old_echoes_are_forgotten(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    let id = fixture.called(text("ana"), unknown()).await;
    fixture.note(&[echo(id, "ana")]).await;
    fixture.store.forget_echoes(&[], &[], HOUR).await.expect("echoes are forgotten");
    assert_eq!(fixture.noted().await, [id]);
    fixture.execute("update echo set noted_at = '2020-01-01T00:00:00.000Z'").await;
    fixture.store.forget_echoes(&[], &[], HOUR).await.expect("echoes are forgotten");
    assert!(fixture.noted().await.is_empty());
}

#[apply(on_both)]
async fn echo_without_a_row_is_handed_out_for_each_line_of_its_account(#[case] backend: Backend) {
    let fixture = Fixture::create(backend).await;
    fixture
        .execute(
            "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_ig_account_id)
             values (5, 1, 'instagram', 'EAA', '17'), (6, 2, 'instagram', 'EAA', '17')",
        )
        .await;
    let heard = |account: &str, id: &str| UnnamedEcho {
        instagram_account_id: account.to_owned(),
        dest: "ana".to_owned(),
        message_id: id.to_owned(),
        text: text_digest("hello"),
        at: datetime!(2026-11-28 12:00:00.5 UTC),
    };
    let echoes = [heard("17", "m_1"), heard("18", "m_2"), heard("17", "m_1")];
    fixture.store.note_unnamed_echoes(&echoes).await.expect("echoes are noted");
    let noted = fixture.store.unnamed_echoes(10).await.expect("echoes can be read");
    let lines: Vec<i64> = noted.iter().map(|echo| echo.line.0).collect();
    assert_eq!(lines, [5, 6], "{noted:?}");
    assert_eq!((noted[0].text, noted[0].at), (text_digest(" hello\n"), echoes[0].at));
    assert!(noted[0].age < Duration::from_secs(60) && noted[0].dest == "ana");
    fixture.store.forget_echoes(&[], &["m_1".to_owned()], HOUR).await.expect("echoes are forgotten");
    assert!(fixture.store.unnamed_echoes(10).await.expect("echoes can be read").is_empty());
}
