//! The checks, and the order in which they answer.

use serde_json::{Value, json};

use super::*;
use crate::ingest::body::BodyType;
use crate::text::Charset;

fn parameters(body: &[u8]) -> Parameters {
    Parameters::read("", &BodyType::Json(Charset::Utf8), body).expect("readable")
}

fn checked(class: Class, body: &Value) -> Result<CheckedMessage, Refusal> {
    let body = body.to_string();
    check(&parameters(body.as_bytes()), class).map_err(|refused| refused.refusal)
}

/// Check a good Messenger request with some parameters changed.
fn with(changes: Value) -> Result<CheckedMessage, Refusal> {
    with_class(Class::MESSENGER, changes)
}

fn with_class(class: Class, changes: Value) -> Result<CheckedMessage, Refusal> {
    let mut body = json!({"app_id": 7, "dest": "253", "mdata": "hi"});
    for (name, value) in changes.as_object().expect("an object") {
        body[name] = value.clone();
    }
    checked(class, &body)
}

#[test]
fn plain_request_is_a_text_with_high_priority() {
    let checked = with(json!({})).expect("in order");
    assert_eq!((checked.line, checked.kind, checked.lane), (LineId(7), MessageKind::Text, Lane::High));
    assert_eq!((checked.httpdup, checked.send_at, checked.valid_for), (None, None, None));
}

#[test]
fn each_wrong_parameter_has_its_refusal() {
    use Refusal::{InvalidMdata, InvalidMtype, InvalidParameter, NoAppId, NoDest, NoMdata};
    let long = "x".repeat(129);
    for (changes, refusal) in [
        (json!({"app_id": null}), NoAppId),
        (json!({"app_id": ""}), NoAppId),
        (json!({"app_id": "abc"}), NoAppId),
        (json!({"app_id": "1 OR 1=1"}), NoAppId),
        (json!({"app_id": 0}), NoAppId),
        (json!({"app_id": -1}), NoAppId),
        (json!({"app_id": 1.0}), NoAppId),
        (json!({"app_id": "+7"}), NoAppId),
        (json!({"app_id": 9223372036854775808_u64}), NoAppId),
        (json!({"app_id": [1]}), NoAppId),
        (json!({"app_id": {"$gt": 0}}), NoAppId),
        (json!({"dest": null}), NoDest),
        (json!({"dest": " \t\n"}), NoDest),
        (json!({"mdata": "  "}), NoMdata),
        (json!({"mtype": "Text"}), InvalidMtype),
        (json!({"mtype": "sticker"}), InvalidMtype),
        (json!({"mtype": 7}), InvalidMtype),
        (json!({"mtype": ["text"]}), InvalidMtype),
        (json!({"mtype": "image"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "/a.png"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "ftp://e.com/a.png"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "file:///etc/passwd"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https://"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https:///a"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https:e.com/a?u=x://y"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https:\\\\e.com/a?u=x://y"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https://e.com/a b"}), InvalidMdata),
        (json!({"dest": long}), InvalidParameter("dest")),
        (json!({"dest": "a\u{0}b"}), InvalidParameter("dest")),
        (json!({"dest": true}), InvalidParameter("dest")),
        (json!({"mdata": "a\u{0}b"}), InvalidParameter("mdata")),
        (json!({"mdata": {"text": "hi"}}), InvalidParameter("mdata")),
        (json!({"dest": "Ola Ana"}), InvalidParameter("dest")),
        (json!({"dest": "2.53193E+16"}), InvalidParameter("dest")),
        (json!({"dest": 2531927391.5}), InvalidParameter("dest")),
        (json!({"dest": "\u{200b}\u{feff}"}), NoDest),
        (json!({"mdata": "\u{200b}"}), NoMdata),
        (json!({"mtype": "image", "mdata": "https://e.com/a.png\n"}), InvalidMdata),
        (json!({"mtype": "image", "mdata": "https://e.com/a.png\u{200b}"}), InvalidMdata),
        (json!({"cp_id": "a\nb"}), InvalidParameter("cp_id")),
        (json!({"mcaption": "\u{0}"}), InvalidParameter("mcaption")),
        (json!({"mcaption": "x".repeat(2_001)}), InvalidParameter("mcaption")),
        (json!({"msg_id": "\u{0}"}), InvalidParameter("msg_id")),
        (json!({"cp_id": "c".repeat(129)}), InvalidParameter("cp_id")),
        (json!({"priority": "urgent"}), InvalidParameter("priority")),
        (json!({"wait": 31}), InvalidParameter("wait")),
        (json!({"wait": -1}), InvalidParameter("wait")),
        (json!({"wait": "soon"}), InvalidParameter("wait")),
        (json!({"wait": 1.5}), InvalidParameter("wait")),
        (json!({"httpdup": 601}), InvalidParameter("httpdup")),
        (json!({"send_at": "tomorrow"}), InvalidParameter("send_at")),
        (json!({"send_at": 99999999999999_i64}), InvalidParameter("send_at")),
        (json!({"valid_for": 0}), InvalidParameter("valid_for")),
    ] {
        assert_eq!(with(changes.clone()).err(), Some(refusal), "{changes}");
    }
}

#[test]
fn first_failing_check_is_the_answer() {
    let all_wrong = json!({"app_id": 0, "dest": " ", "mdata": "", "mtype": "x", "wait": 99});
    assert_eq!(with(all_wrong).err(), Some(Refusal::NoAppId));
    assert_eq!(with(json!({"dest": "", "mdata": "", "mtype": "x"})).err(), Some(Refusal::NoDest));
    assert_eq!(with(json!({"mdata": "", "mtype": "x"})).err(), Some(Refusal::NoMdata));
    assert_eq!(with(json!({"mtype": "x", "wait": 99})).err(), Some(Refusal::InvalidMtype));
    let long = json!({"mdata": "x".repeat(2_001), "dest": "x".repeat(129)});
    assert_eq!(with(long).err(), Some(Refusal::TextTooLong));
}

#[test]
fn text_limit_unit_depends_on_the_class() {
    let text = |class, text: String| with_class(class, json!({"mdata": text})).err();
    assert_eq!(text(Class::MESSENGER, "😀".repeat(2_000)), None);
    assert_eq!(text(Class::MESSENGER, "😀".repeat(2_001)), Some(Refusal::TextTooLong));
    assert_eq!(text(Class::INSTAGRAM, "á".repeat(500)), None);
    assert_eq!(text(Class::INSTAGRAM, "á".repeat(501)), Some(Refusal::TextTooLong));
}

#[test]
fn kinds_differ_by_class() {
    let kind = |class, mtype: &str| {
        with_class(class, json!({"mtype": mtype, "mdata": "https://e.com/a"})).map(|checked| checked.kind)
    };
    for (mtype, expected) in [
        ("image", MessageKind::Image),
        ("audio", MessageKind::Audio),
        ("video", MessageKind::Video),
        ("file", MessageKind::File),
        ("document", MessageKind::File),
    ] {
        assert_eq!(kind(Class::MESSENGER, mtype), Ok(expected));
    }
    assert_eq!(kind(Class::INSTAGRAM, "image"), Ok(MessageKind::Image));
    assert_eq!(kind(Class::INSTAGRAM, "file"), Err(Refusal::InvalidMtype));
    assert_eq!(kind(Class::INSTAGRAM, "document"), Err(Refusal::InvalidMtype));
}

#[test]
fn line_has_an_alias_and_integers_may_be_texts() {
    let body = json!({"v8l_id": " 12 ", "dest": 12345678901234567890_u64, "mdata": "hi", "wait": "30"});
    let parameters = parameters(body.to_string().as_bytes());
    assert_eq!(wait(&parameters), Some(Duration::from_secs(30)));
    let checked = check(&parameters, Class::MESSENGER).expect("in order");
    assert_eq!(checked.line, LineId(12));
    assert_eq!(checked.dest, "12345678901234567890");
}

#[test]
fn campaigns_are_bulk_by_default() {
    assert_eq!(with(json!({"cp_id": "spring"})).map(|checked| checked.lane), Ok(Lane::Bulk));
    let high = with(json!({"cp_id": "spring", "priority": "high"}));
    assert_eq!(high.map(|checked| checked.lane), Ok(Lane::High));
}

#[test]
fn send_at_is_rfc_3339_or_unix_seconds() {
    let at = |value: Value| with(json!({"send_at": value})).expect("in order").send_at;
    let expected = OffsetDateTime::from_unix_timestamp(1_700_000_000).ok();
    assert_eq!(at(json!(1_700_000_000)), expected);
    assert_eq!(at(json!("1700000000")), expected);
    assert_eq!(at(json!("2023-11-14T22:13:20Z")), expected);
    assert_eq!(at(json!("2023-11-14T19:13:20-03:00")), expected);
    assert_eq!(at(json!("2023-11-15T00:13:20 02:00")), expected, "a plus that a form turned into a blank");
}

#[test]
fn ids_are_trimmed_and_texts_are_not() {
    let padded = "\u{feff} \u{200b}x\u{a0}\n";
    let given = json!({
        "dest": padded, "cp_id": padded, "msg_id": padded, "mcaption": padded, "mdata": padded, "app_id": " 7\u{a0}",
        "mtype": " text ", "priority": "high\n",
    });
    let checked = with(given).expect("in order");
    assert_eq!((checked.dest.as_str(), checked.line), ("x", LineId(7)));
    assert_eq!((checked.cp_id.as_deref(), checked.msg_id.as_deref()), (Some("x"), Some("x")));
    assert_eq!((checked.mdata.as_str(), checked.mcaption.as_deref()), (padded, Some(padded)));
}

#[test]
fn detail_names_value_and_remedy() {
    let detail = |changes: Value| {
        let mut body = json!({"app_id": 7, "dest": "253", "mdata": "secret text"});
        body.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
        let parameters = parameters(body.to_string().as_bytes());
        let refused = check(&parameters, Class::INSTAGRAM).expect_err("refused");
        assert!(!refused.detail().contains("secret"), "{}", refused.detail());
        refused.detail().to_owned()
    };
    for (changes, words) in [
        (json!({"app_id": "1.0"}), &["`1.0`", "digits"][..]),
        (json!({"app_id": 1.0}), &["point", "digits"]),
        (json!({"dest": "2,53193E+15"}), &["spreadsheets"]),
        (json!({"dest": true}), &["a boolean", "text"]),
        (json!({"mtype": "Image"}), &["Instagram", "text, image, audio, video"]),
        (json!({"mdata": "secret ".repeat(200)}), &["1000 bytes"]),
        (json!({"mtype": "image"}), &["absolute http(s) URL"]),
        (json!({"wait": "1.0"}), &["0 to 30", "digits"]),
        (json!({"valid_for": 1.5}), &["seconds"]),
        (json!({"send_at": "2026-12-01 09:00"}), &["2026-12-01T09:00:00-03:00"]),
        (json!({"priority": "HIGH"}), &["`high`", "`bulk`"]),
        (json!({"msg_id": "x".repeat(256)}), &["255"]),
    ] {
        let told = detail(changes.clone());
        assert!(words.iter().all(|word| told.contains(word)), "{changes}: {told}");
    }
}
