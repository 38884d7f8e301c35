use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const PAGE: &[u8] = include_bytes!("testdata/page.json");
const INSTAGRAM: &[u8] = include_bytes!("testdata/instagram.json");

fn kinds(body: &[u8]) -> Vec<EventKind> {
    read(body).expect("the body is readable").into_iter().map(|event| event.kind).collect()
}

fn unknown(name: &str) -> EventKind {
    EventKind::Unknown(name.to_owned())
}

fn inbound(dest: &str, cause: Cause) -> EventKind {
    EventKind::Inbound { dest: dest.into(), cause }
}

/// Return the events of a Page's entry with these members of `messaging`.
fn events(messaging: Value) -> Vec<Event> {
    let body = json!({"object": "page", "entry": [{"id": "1", "time": 1_780_000_000_999_i64, "messaging": messaging}]});
    read(body.to_string().as_bytes()).expect("the body is readable")
}

fn event(item: Value) -> Event {
    events(json!([item])).remove(0)
}

#[test]
fn page_events_are_read() {
    let expected = [
        inbound("5001", Cause::Message),
        inbound("5001", Cause::Postback),
        inbound("5001", Cause::Reaction),
        unknown("reaction_removed"),
        inbound("5001", Cause::Referral),
        EventKind::Delivery {
            dest: "5001".into(),
            mids: vec!["m_1".into(), "m_2".into()],
            watermark: Some(1_780_000_000_006),
        },
        EventKind::Delivery { dest: "5001".into(), mids: vec![], watermark: Some(1_780_000_000_007) },
        EventKind::Read { dest: "5001".into(), mids: vec![], watermark: Some(1_780_000_000_008) },
        EventKind::Echo {
            dest: "5001".into(),
            mid: "m_3".into(),
            metadata: Some("md1.7.1.ab".into()),
            text: Some("hi".into()),
            app_id: Some("1517776481860111".into()),
        },
        EventKind::Enforcement { action: Action::Block, reason: Some("Spam".into()) },
        EventKind::Enforcement { action: Action::Unblock, reason: None },
        unknown("optin"),
        unknown("pass_thread_control"),
        inbound("5002", Cause::Message),
        unknown("feed"),
    ];
    assert_eq!(kinds(PAGE), expected);
    let events = read(PAGE).expect("the body is readable");
    assert!(events.iter().all(|event| event.object == Object::Page && event.account == "1067280970047460"));
    let standby: Vec<bool> = events.iter().map(|event| event.standby).collect();
    assert_eq!(standby.iter().filter(|standby| **standby).count(), 1);
    assert!(standby[13]);
}

#[test]
fn instagram_events_are_read() {
    let echo = EventKind::Echo {
        dest: "6001".into(),
        mid: "aWdf3".into(),
        metadata: None,
        text: Some("olá".into()),
        app_id: None,
    };
    let expected = [
        inbound("6001", Cause::Message),
        EventKind::Read { dest: "6001".into(), mids: vec!["aWdf2".into()], watermark: None },
        echo,
        unknown("message_deleted"),
        unknown("own_message"),
        unknown("message_edit"),
        inbound("6002", Cause::Message),
    ];
    assert_eq!(kinds(INSTAGRAM), expected);
    let events = read(INSTAGRAM).expect("the body is readable");
    assert!(events.iter().all(|event| event.object.class() == Class::INSTAGRAM));
    assert_eq!(events[6].at, 1_780_000_003_000, "seconds as a text");
}

#[test]
fn times_come_from_the_event_its_watermark_or_its_entry() {
    let times: Vec<i64> = read(PAGE).expect("readable").iter().map(|event| event.at).collect();
    assert_eq!(times[0], 1_780_000_000_001);
    assert_eq!(times[1], 1_780_000_000_002, "a text");
    assert_eq!(times[5], 1_780_000_000_006, "the watermark");
    assert_eq!(times[14], 1_780_000_002_000, "the entry's, in seconds");
    let postback = |timestamp: Value| {
        event(
            json!({"sender": {"id": "2"}, "recipient": {"id": "1"}, "timestamp": timestamp, "postback": {}}),
        )
        .at
    };
    for odd in [
        json!(-5),
        json!(0),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!("soon"),
        json!(null),
        json!({}),
    ] {
        assert_eq!(postback(odd.clone()), 1_780_000_000_999, "{odd}");
    }
    assert_eq!(postback(json!(1.780_000_000_001e12)), 1_780_000_000_001);
}

#[rstest]
#[case::no_sender(json!({"recipient": {"id": "1"}, "message": {"mid": "m"}}))]
#[case::blank_sender(json!({"sender": {"id": " "}, "message": {"mid": "m"}}))]
#[case::nul(json!({"sender": {"id": "a\0b"}, "message": {"mid": "m"}}))]
#[case::long_sender(json!({"sender": {"id": "x".repeat(129)}, "message": {"mid": "m"}}))]
#[case::empty_delivery(json!({"sender": {"id": "2"}, "delivery": {}}))]
#[case::delivery_of_nothing(json!({"sender": {"id": "2"}, "delivery": {"mids": [null, {}, ""]}}))]
#[case::echo_without_id(json!({"recipient": {"id": "2"}, "message": {"is_echo": true}}))]
#[case::number(json!(7))]
#[case::list(json!([]))]
#[case::nothing(json!({}))]
fn malformed_event_spoils_no_other(#[case] broken: Value) {
    let good = json!({"sender": {"id": "2"}, "recipient": {"id": "1"}, "postback": {}});
    let read = events(json!([good.clone(), broken, good]));
    let kinds: Vec<&EventKind> = read.iter().map(|event| &event.kind).collect();
    let good = inbound("2", Cause::Postback);
    assert_eq!(kinds, [&good, &unknown(MALFORMED), &good]);
}

#[test]
fn json_that_cannot_be_decoded_spoils_its_part_alone() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let body = format!(
        r#"{{"object":"page","entry":[
            {{"id":"1","messaging":[
                {{"sender":{{"id":"2"}},"message":{{"mid":"m","text":"\ud83d","nested":{deep}}}}},
                {{"sender":{{"id":"\ud83d"}},"message":{{"mid":"m"}}}},
                {{"sender":{{"id":"1"}},"recipient":{{"id":"3"}},"message":{{"is_echo":true,"mid":"m_9","metadata":"\udc00"}}}}]}},
            7,
            {{"id":"1"}}]}}"#
    );
    // The lone surrogates cost their own fields: a text that is not read, a sender, and the metadata of an echo.
    let echo =
        EventKind::Echo { dest: "3".into(), mid: "m_9".into(), metadata: None, text: None, app_id: None };
    let malformed = unknown(MALFORMED);
    let expected = [inbound("2", Cause::Message), malformed.clone(), echo, malformed.clone(), malformed];
    assert_eq!(kinds(body.as_bytes()), expected);
}

#[test]
fn name_of_an_unknown_event_is_a_name() {
    let named = |name: &str| event(json!({"sender": {"id": "2"}, name: {}})).kind;
    assert_eq!(named("messaging_feedback"), unknown("messaging_feedback"));
    for odd in ["", "a b", "x".repeat(65).as_str(), "naïve", "a\nb"] {
        assert_eq!(named(odd), unknown(MALFORMED));
    }
}

#[test]
fn arrays_of_a_thousand_are_read_whole() {
    let receipts: Vec<Value> = (0..1_000)
        .map(|n| json!({"sender": {"id": n.to_string()}, "delivery": {"mids": [format!("m_{n}")], "watermark": 5}}))
        .collect();
    let entries = vec![json!({"id": "1", "messaging": receipts}); 3];
    let body = json!({"object": "page", "entry": entries}).to_string();
    assert_eq!(kinds(body.as_bytes()).len(), 3_000);
    let mids: Vec<String> = (0..1_000).map(|n| format!("m_{n}")).collect();
    let many = event(json!({"sender": {"id": "2"}, "delivery": {"mids": mids.clone()}}));
    assert_eq!(many.kind, EventKind::Delivery { dest: "2".into(), mids, watermark: None });
}

#[rstest]
#[case::empty(b"", Unreadable::NoJson)]
#[case::text(b"hello", Unreadable::NoJson)]
#[case::list(b"[]", Unreadable::NoJson)]
#[case::cut(b"{\"object\":\"page\",\"entry\":[", Unreadable::NoJson)]
#[case::no_utf8(b"\xff\xfe", Unreadable::NoJson)]
#[case::no_object(b"{}", Unreadable::OtherObject)]
#[case::other_object(b"{\"object\":\"user\",\"entry\":[]}", Unreadable::OtherObject)]
fn unreadable_body_is_named(#[case] body: &[u8], #[case] reason: Unreadable) {
    assert_eq!(read(body), Err(reason));
}

#[test]
fn body_without_entries_has_no_events() {
    for entry in ["[]", "null", "7", "{}"] {
        let body = format!(r#"{{"object":"page","entry":{entry}}}"#);
        assert_eq!(read(body.as_bytes()), Ok(vec![]));
    }
}
