//! `log resolve` and `log resend`.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, ErrorDetail, ErrorKind, Lane, LineId, RowId, Submission};
use meta_dispatch::store::{Change, ChangeKind, Claim, Record, SharedStore};
use serde_json::json;

use super::program::Program;
use crate::support::insert::Insert;

const HOUR: Duration = Duration::from_secs(3_600);

struct Log {
    program: Program,
    store: SharedStore,
    line: i64,
}

impl Log {
    async fn new() -> Log {
        let program = Program::new();
        let line = program.add_line("EAAtoken");
        let store = program.store().await;
        store.renew_leases("w", HOUR, false).await.expect("leases are kept");
        store.acquire_leases("w", HOUR, 64).await.expect("leases are kept");
        Log { program, store, line }
    }

    async fn pending(&self, text: &str) -> RowId {
        let submission = Submission {
            account: AccountId(1),
            line: LineId(self.line),
            class: Class::MESSENGER,
            dest: "25312345678901234".into(),
            kind: MessageKind::Text,
            mdata: text.into(),
            mcaption: None,
            msg_id: None,
            cp_id: text.strip_prefix("campaign ").map(str::to_owned),
            lane: Lane::High,
            send_at: None,
            valid_for: if text == "old" { Duration::from_millis(400) } else { HOUR },
            waiter: None,
        };
        self.store.insert(&[submission]).await.expect("the row is logged")[0]
    }

    /// Logs a message whose one call ended so.
    async fn after(&self, text: &str, kind: ChangeKind) -> RowId {
        let id = self.pending(text).await;
        let claims = [Claim {
            id,
            line: LineId(self.line),
            fence: 0,
            digest: None,
            in_campaign: false,
            call_deadline: HOUR,
        }];
        let claim_no = id.0;
        let claim = Record {
            worker: "w",
            changes: &[],
            claims: &claims,
            claim_no,
            ended_work: &[],
            ended_claims: &[],
            repeated: false,
        };
        assert_eq!(self.store.record(claim).await.expect("claims are recorded").claimed, [true]);
        let changes = [Change::waiting(id, 1, kind)];
        let end = Record { changes: &changes, claims: &[], ended_claims: &[claim_no], ..claim };
        assert_eq!(self.store.record(end).await.expect("changes are recorded").changed, [true]);
        id
    }

    async fn unknown(&self, text: &str) -> RowId {
        self.after(text, ChangeKind::Unknown { error: ErrorDetail::default() }).await
    }

    async fn failed(&self, text: &str, code: i32) -> RowId {
        let error = ErrorDetail { code: Some(code), ..ErrorDetail::default() };
        self.after(text, ChangeKind::Failed { kind: ErrorKind::Refused, error, ambiguous: false }).await
    }

    async fn sent(&self, text: &str) -> RowId {
        self.after(text, ChangeKind::Sent { http_status: 200, graph_id: "m_1".into() }).await
    }

    fn column(&self, id: impl std::fmt::Display, column: &str) -> serde_json::Value {
        self.program.json(&format!("log show {id}"))[column].clone()
    }
}

#[tokio::test]
async fn resolves_one_message_and_refuses_a_repeat() {
    let log = Log::new().await;
    let id = log.unknown("a").await;
    let answer = log.program.json(&format!("log resolve {id} --as ok --message-id m_7"));
    let expected =
        json!({"cdls_id": id, "status": "OK", "matching": 1, "resolved": 1, "expired": 0, "dry_run": false});
    assert_eq!(answer, expected);
    assert_eq!((log.column(id, "status"), log.column(id, "message_id")), (json!("OK"), json!("m_7")));
    let again = log.program.run(&format!("log resolve {id} --as error"));
    assert!(again.error().contains("is OK") && again.error().contains("UNKNOWN"), "{}", again.stderr);

    let id = log.unknown("b").await;
    assert!(
        log.program
            .run(&format!("log resolve {id} --as error"))
            .stdout
            .contains("1 message resolved as ERROR")
    );
    assert_eq!(log.column(id, "error_kind"), "resolved");
    let id = log.unknown("c").await;
    log.program.json(&format!("log resolve {id} --as retry"));
    assert_eq!(log.column(id, "status"), "RETRY");
    assert!(log.column(id, "next_at").is_string());
    assert!(log.program.run("log resolve 999 --as error").error().contains("999"));
}

#[tokio::test]
async fn resolves_by_filter_and_leaves_others_alone() {
    let log = Log::new().await;
    let (first, second) = (log.unknown("campaign spring").await, log.unknown("b").await);
    let failed = log.failed("campaign spring", 100).await;
    let dry = log.program.json("log resolve --as retry --since 1h --dry-run");
    assert_eq!((&dry["matching"], &dry["resolved"], &dry["dry_run"]), (&json!(2), &json!(0), &json!(true)));
    assert_eq!(log.column(first, "status"), "UNKNOWN");
    let answer = log.program.json("log resolve --as error --cp-id spring --yes");
    assert_eq!((&answer["matching"], &answer["resolved"]), (&json!(1), &json!(1)));
    assert_eq!(
        (log.column(first, "status"), log.column(second, "status")),
        (json!("ERROR"), json!("UNKNOWN"))
    );
    assert_eq!(log.column(failed, "error_kind"), "refused");
    let answer = log.program.json(&format!("log resolve --as retry --line {} --status unknown", log.line));
    assert_eq!(answer["resolved"], 1);
    assert_eq!(log.program.json("log resolve --as retry --since 1h")["resolved"], 0);
}

#[tokio::test]
async fn refuses_empty_filters_and_wrong_states() {
    let log = Log::new().await;
    let failed = log.failed("a", 100).await;
    for command in ["log resolve --as error --yes", "log resend --yes"] {
        assert!(log.program.run(command).error().contains("--line"), "{command}");
    }
    assert!(log.program.run("log resolve --as ok --status ERROR").error().contains("UNKNOWN"));
    assert!(log.program.run("log resend --status UNKNOWN").error().contains("log resolve"));
    assert!(log.program.run("log resend --status PENDING").error().contains("not ended"));
    assert!(
        log.program
            .run(&format!("log resolve {failed} --as error --message-id m"))
            .error()
            .contains("--as ok")
    );
    for wrong in [
        "log resolve 1 --line 2 --as ok",
        "log resolve --line 1",
        "log resend --line 1 --force",
        "log resolve --line 1 --as ok --message-id m",
    ] {
        assert_eq!(log.program.run(wrong).code, 2, "{wrong}");
    }
}

#[tokio::test]
async fn expired_message_is_not_retried_but_explained() {
    let log = Log::new().await;
    let id = log.unknown("old").await;
    crate::support::pipeline::eventually("the message to expire", || async {
        let expires = log.column(id, "expires_at");
        let now = meta_dispatch::text::timestamp(time::OffsetDateTime::now_utc());
        if expires.as_str().is_some_and(|at| at < now.as_str()) { Ok(()) } else { Err(now) }
    })
    .await;
    let refused = log.program.run(&format!("log resolve {id} --as retry"));
    assert!(refused.error().contains("log resend"), "{}", refused.stderr);
    let answer = log.program.json("log resolve --as retry --since 1h");
    assert_eq!((&answer["resolved"], &answer["expired"]), (&json!(0), &json!(1)));
    assert_eq!(log.program.json(&format!("log resolve {id} --as error"))["resolved"], 1);
    let copy = log.program.json(&format!("log resend {id} --valid-for 2h"))["resent_as"].clone();
    assert_eq!(log.column(copy, "status"), "PENDING");
}

#[tokio::test]
async fn resends_one_ended_message_once() {
    let log = Log::new().await;
    let id = log.failed("a", 100).await;
    let answer = log.program.json(&format!("log resend {id}"));
    let copy = answer["resent_as"].as_i64().expect("an id");
    let expected = json!({"cdls_id": id, "resent_as": copy, "matching": 1, "resent": 1, "left_out": 0, "dry_run": false});
    assert_eq!(answer, expected);
    assert_eq!((log.column(copy, "status"), log.column(copy, "mdata")), (json!("PENDING"), json!("a")));
    let again = log.program.run(&format!("log resend {id}"));
    assert!(again.error().contains(&format!("as {copy}")), "{}", again.stderr);
    assert!(log.program.run(&format!("log resend {copy}")).error().contains("PENDING"));
    let unknown = log.unknown("b").await;
    let refused = log.program.run(&format!("log resend {unknown}"));
    assert!(refused.error().contains(&format!("log resolve {unknown} --as retry")), "{}", refused.stderr);
}

#[tokio::test]
async fn sent_message_needs_force_or_name_to_resend() {
    let log = Log::new().await;
    let (first, second) = (log.sent("a").await, log.sent("b").await);
    assert!(log.program.run(&format!("log resend {first}")).error().contains("--force"));
    assert_eq!(log.program.json("log resend --since 1h")["resent"], 0);
    assert_eq!(log.program.json(&format!("log resend {first} --force"))["resent"], 1);
    assert_eq!(log.program.json("log resend --since 1h --status ok")["resent"], 1);
    assert!(log.program.run(&format!("log resend {second} --force")).error().contains("already"));
}

#[tokio::test]
async fn resends_failed_messages_by_filter_once() {
    let log = Log::new().await;
    log.failed("a", 190).await;
    log.failed("campaign spring", 190).await;
    log.failed("c", 100).await;
    let dry = log.program.json("log resend --error-code 190 --dry-run");
    assert_eq!((&dry["matching"], &dry["resent"]), (&json!(2), &json!(0)));
    let text = log.program.run("log resend --error-code 190");
    assert!(text.stdout.contains("2 messages sent again"), "{}", text.everything());
    assert_eq!(log.program.json("log resend --error-code 190")["resent"], 0);
    let rest = log.program.json(&format!("log resend --line {} --into-cp-id again", log.line));
    assert_eq!(rest["resent"], 1);
    let copies = log.program.json("log tail --cp-id again");
    assert_eq!(copies["messages"][0]["mdata"], "c");
}

#[tokio::test]
async fn check_shows_unknown_messages_and_oldest_age() {
    let log = Log::new().await;
    assert_eq!(log.program.json("check")["oldest_unknown_seconds"], json!(null));
    log.unknown("a").await;
    let report = log.program.json("check");
    assert_eq!(report["unknown_rows"], 1);
    assert!(report["oldest_unknown_seconds"].is_u64(), "{report}");
    assert!(log.program.run("check").stdout.contains("UNKNOWN messages: 1, the oldest for "));
}
