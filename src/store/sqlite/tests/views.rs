//! The views for people who look at the queue with SQL.

use super::*;

#[tokio::test]
async fn shows_why_each_message_waits() {
    let fixture = Fixture::with_worker().await;
    fixture
        .sql(
            "insert into account (cdcs_id, cdcs_name) values (1, 'Acme');
             insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key) values (7, 1, 'messenger', 'EAA');
             insert into campaign (cdcs_id, cp_id, state) values (1, 'natal', 'paused')",
        )
        .await;
    let natal = Submission { cp_id: Some("natal".into()), ..text_to("campaign paused") };
    let later = Submission { send_at: Some(in_an_hour()), ..text_to("schedule") };
    insert(&fixture.store, &[text_to("turn"), natal, later]).await.unwrap();
    let retry = ChangeKind::Retry { after: HOUR, error: refusal(), counted: true, ambiguous: false };
    let unknown = ChangeKind::Unknown { error: refusal() };
    let sent = ChangeKind::Sent { http_status: 200, graph_id: "m".into() };
    for (dest, kind) in
        [("call", None), ("retry", Some(retry)), ("operator", Some(unknown)), ("ended", Some(sent))]
    {
        let id = fixture.insert(text_to(dest)).await;
        assert!(fixture.claim(WORKER, id, 0).await);
        if let Some(kind) = kind {
            assert!(fixture.change(id, kind).await);
        }
    }
    type Shown = (String, String, String, i64, Option<String>);
    let shown: Vec<Shown> =
        sqlx::query_as("select dest, waits_for, status, attempts, held_by from cdls_now order by cdls_id")
            .fetch_all(&fixture.store.reader)
            .await
            .unwrap();
    let states = ["PENDING", "PENDING", "PENDING", "SENDING", "RETRY", "UNKNOWN"];
    for ((dest, waits_for, status, attempts, held_by), state) in shown.iter().zip(states) {
        assert_eq!((dest, status.as_str()), (waits_for, state));
        assert_eq!(*attempts, i64::from(state != "PENDING"), "{dest}");
        assert_eq!(held_by.as_deref(), (state == "SENDING").then_some(WORKER));
    }
    assert_eq!(shown.len(), states.len());
    let sending: i64 = sqlx::query_scalar("select count(*) from cdls_sending where worker = 'worker-a'")
        .fetch_one(&fixture.store.reader)
        .await
        .unwrap();
    assert_eq!(sending, 4, "ended claims stand there until their worker removes them");
}
