use rstest::rstest;
use time::macros::datetime;

use super::*;
use crate::domain::AccountId;
use crate::webhooks::event::{Cause, Object};

const NOW: OffsetDateTime = datetime!(2026-11-23 14:00 UTC);

fn milliseconds(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

fn line(line: i64, class: Class, page: &str) -> LineOfPage {
    LineOfPage { line: LineId(line), account: AccountId(line * 10), class, page: page.into(), app: None }
}

fn lines() -> Vec<LineOfPage> {
    vec![
        line(1, Class::MESSENGER, "p"),
        line(2, Class::MESSENGER, "p"),
        line(3, Class::INSTAGRAM, "p"),
        line(4, Class::MESSENGER, "q"),
    ]
}

fn event(at: OffsetDateTime, kind: EventKind) -> Event {
    Event { object: Object::Page, account: "p".into(), standby: false, at: milliseconds(at), kind, app: None }
}

fn delivery(mids: &[&str], watermark: Option<OffsetDateTime>) -> EventKind {
    let mids = mids.iter().map(|mid| (*mid).to_owned()).collect();
    EventKind::Delivery { dest: "ann".into(), mids, watermark: watermark.map(milliseconds) }
}

fn inbound() -> EventKind {
    EventKind::Inbound { dest: "ann".into(), cause: Cause::Message }
}

const EARLIER: OffsetDateTime = datetime!(2026-11-23 13:59 UTC);

#[test]
fn event_goes_to_each_line_of_its_account() {
    let batch = [event(EARLIER, inbound())];
    let changes = Changes::of(&batch, &lines(), NOW);
    let reached: Vec<LineId> = changes.inbound.iter().map(|inbound| inbound.line).collect();
    assert_eq!(reached, [LineId(1), LineId(2)]);
    assert_eq!(changes.without_line, 0);

    let instagram = [Event { object: Object::Instagram, ..event(EARLIER, inbound()) }];
    assert_eq!(Changes::of(&instagram, &lines(), NOW).inbound[0].line, LineId(3));
    let nobodys = [Event { account: "r".into(), ..event(EARLIER, inbound()) }];
    let changes = Changes::of(&nobodys, &lines(), NOW);
    assert_eq!((changes.inbound.len(), changes.without_line), (0, 1));
}

#[test]
fn event_changes_no_line_of_another_app() {
    let of_app = |app: &str| LineOfPage { app: Some(app.into()), ..lines().remove(0) };
    let lines = [of_app("7"), of_app("8"), lines().remove(1)];
    let reached = |app: Option<&str>| {
        let batch = [Event { app: app.map(str::to_owned), ..event(EARLIER, inbound()) }];
        Changes::of(&batch, &lines, NOW).inbound.len()
    };
    assert_eq!(reached(Some("7")), 2, "its own line, and the one that names no app");
    assert_eq!(reached(Some("9")), 1);
    assert_eq!(reached(None), 3, "the secret of the settings is the operator's");
}

#[test]
fn receipt_is_of_its_ids_or_else_of_its_watermark() {
    let batch = [
        event(EARLIER, delivery(&["m_1", "m_2"], Some(EARLIER))),
        event(EARLIER, delivery(&[], Some(EARLIER))),
        event(EARLIER, delivery(&["m_1"], None)),
    ];
    let changes = Changes::of(&batch, &lines()[3..], NOW);
    assert!(changes.receipts.is_empty(), "another account");
    let changes = Changes::of(&batch, &lines()[..1], NOW);
    let of: Vec<&Receipted> = changes.receipts.iter().map(|receipt| &receipt.of).collect();
    let (first, second) = (Receipted::Message("m_1".into()), Receipted::Message("m_2".into()));
    assert_eq!(of, [&first, &second, &Receipted::UpTo(EARLIER + TOLERANCE)], "repeated receipts are one");
    assert!(changes.receipts.iter().all(|receipt| receipt.account == AccountId(10) && receipt.at == EARLIER));
}

#[rstest]
#[case::missing(0)]
#[case::to_come(milliseconds(datetime!(2036-01-01 0:00 UTC)))]
#[case::beyond_the_calendar(i64::MAX)]
fn time_that_cannot_be_true_is_now(#[case] at: i64) {
    let batch = [Event { at, ..event(NOW, inbound()) }];
    assert_eq!(Changes::of(&batch, &lines(), NOW).inbound[0].at, NOW);
    assert_eq!(time(at, NOW), NOW);
}

#[test]
fn watermark_to_come_ends_now() {
    let batch = [event(NOW, delivery(&[], Some(datetime!(2036-01-01 0:00 UTC))))];
    assert_eq!(Changes::of(&batch, &lines()[..1], NOW).receipts[0].of, Receipted::UpTo(NOW));
}

#[test]
fn block_names_reason_and_remedy() {
    let enforcement = |action, reason: Option<&str>| {
        event(EARLIER, EventKind::Enforcement { action, reason: reason.map(str::to_owned) })
    };
    let batch = [
        enforcement(Action::Warning, Some("Spam")),
        enforcement(Action::Block, Some("Spam\nEAAabcdefghijklmnop")),
        enforcement(Action::Unblock, None),
    ];
    let changes = Changes::of(&batch, &lines()[..1], NOW);
    assert_eq!(changes.warnings, [Warning { line: LineId(1), reason: "Spam".into() }]);
    let [block, unblock] = changes.enforced.as_slice() else { panic!("{:?}", changes.enforced) };
    let pause = block.pause.as_deref().expect("a block pauses");
    assert!(
        pause.starts_with(BLOCKED_PAUSE) && pause.contains("Spam") && pause.contains("line resume"),
        "{pause}"
    );
    assert!(!pause.contains("EAAabc"), "{pause}");
    assert_eq!((unblock.pause.as_deref(), unblock.at), (None, EARLIER));
}

#[test]
fn echoes_are_handed_on_as_they_are() {
    let echo = EventKind::Echo {
        dest: "ann".into(),
        mid: "m_1".into(),
        metadata: Some("md1".into()),
        text: None,
        app_id: None,
    };
    let batch = [event(EARLIER, echo)];
    let changes = Changes::of(&batch, &lines(), NOW);
    assert_eq!(changes.echoes.len(), 1, "once, however many lines the account has");
    assert_eq!((changes.echoes[0].account, changes.echoes[0].metadata), ("p", Some("md1")));
    assert!(Changes::of(&batch, &[], NOW).echoes.is_empty());
}
