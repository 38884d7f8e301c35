//! The parameters of a request, whichever way they come in.

use super::*;
use crate::edge::Refusal;

const FORM: BodyType = BodyType::Form(Charset::Utf8);
const JSON: BodyType = BodyType::Json(Charset::Utf8);

fn read(query: &str, body_type: BodyType, body: &[u8]) -> Parameters {
    Parameters::read(query, &body_type, body).expect("readable")
}

fn text(parameters: &Parameters, name: &str) -> String {
    match parameters.get(name) {
        Some(ParameterValue::Text(text)) => text.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn query_wins_and_last_of_two_counts() {
    let parameters = read("dest=q&mtype=a&mtype=b", FORM, b"dest=b&mdata=hi&nonsense=1");
    assert_eq!(text(&parameters, "dest"), "q");
    assert_eq!(text(&parameters, "mdata"), "hi");
    assert_eq!(text(&parameters, "mtype"), "b");
    assert_eq!(parameters.get("nonsense"), None);
    let parameters = read("dest=q", JSON, br#"{"dest":"j","app_id":7,"app_id":8}"#);
    assert_eq!(text(&parameters, "dest"), "q");
    assert_eq!(text(&parameters, "app_id"), "8");
}

#[test]
fn last_of_two_counts_in_json_whatever_stands_around_its_name() {
    for (json, dest) in [
        (r#"{"dest":"1"," dest":"2"}"#, "2"),
        (r#"{" dest":"1","dest":"2","x":1}"#, "2"),
        (r#"{"dest":"1"," dest":"2","dest":"3"}"#, "3"),
    ] {
        assert_eq!(text(&read("", JSON, json.as_bytes()), "dest"), dest, "{json}");
    }
    let parameters = read("", JSON, br#"{"dest":"1","dest":null}"#);
    assert_eq!(parameters.get("dest"), None, "null is missing");
}

#[test]
fn alias_means_its_name_everywhere() {
    let app_id = |parameters: &Parameters| text(parameters, "app_id");
    assert_eq!(app_id(&read("v8l_id=4", JSON, br#"{"app_id":1}"#)), "4");
    assert_eq!(app_id(&read("app_id=1", FORM, b"v8l_id=4")), "1");
    assert_eq!(app_id(&read("v8l_id=4&app_id=1", FORM, b"")), "1", "of both the name counts");
    assert_eq!(app_id(&read("v8l_id=4&app_id=", FORM, b"")), "4");
    let defaults = read("app_id=1", FORM, b"");
    let line = Parameters::line_of_json(br#"{"v8l_id":4}"#, Charset::Utf8, &defaults).expect("an object");
    assert_eq!(app_id(&line), "4", "a line of a batch wins over the batch's default");
    let field = Decoded { text: "4".to_owned(), is_guessed: false };
    assert_eq!(app_id(&Parameters::line_of_fields([("v8l_id", field)], &defaults)), "4");
}

#[test]
fn values_of_a_form_are_read_each_in_its_encoding() {
    let form = |body: &[u8]| read("", FORM, body);
    let mdata = |body: &[u8]| text(&form(body), "mdata");
    assert_eq!(mdata(b"mdata=ol%E1"), "olá");
    assert_eq!(mdata(b"mdata=%80"), "€");
    assert_eq!(mdata(b"mdata=%C3%A1&mcaption=%E1"), "á");
    assert_eq!(mdata(b"mdata=Ol%C3%A1+%F0%9F%98"), "Olá ");
    assert_eq!(mdata(b"\xef\xbb\xbfmdata=hi"), "hi", "a byte order mark");
    let latin = BodyType::Form(Charset::Windows1252);
    assert_eq!(text(&read("", latin, b"mdata=%C3%A1"), "mdata"), "Ã¡");
    assert_eq!((form(b"mdata=ol%E1&dest=%E1").guessed(), form(b"agente=Jos%E9").guessed()), (2, 0));
}

#[test]
fn all_but_texts_are_trimmed_and_cleaned() {
    let unseen = "\u{feff}%20\u{200b}x\u{a0}%09\u{85}";
    let form = format!("dest={unseen}&cp_id={unseen}&msg_id={unseen}&tsid={unseen}&mdata={unseen}");
    let form = read("", FORM, form.as_bytes());
    let json = "\u{feff} \u{200b}x\u{a0}\t\u{93}";
    let json = serde_json::json!({"dest": json, "cp_id": json, "msg_id": json, "tsid": json, "mdata": json});
    let json = read("", JSON, json.to_string().as_bytes());
    for parameters in [form, json] {
        for name in ["dest", "cp_id", "msg_id", "tsid"] {
            assert_eq!(text(&parameters, name), "x", "{name}");
        }
        assert_eq!(text(&parameters, "mdata"), "\u{feff} \u{200b}x\u{a0}\t");
    }
}

#[test]
fn only_near_names_are_noted() {
    let told = |query: &str| Parameters::of_query(query).detail();
    let expected = "`sendat` is not a parameter; did you mean `send_at`?";
    assert_eq!(told("sendat=tomorrow&agente=7").as_deref(), Some(expected));
    assert_eq!(told("dest=1&mdata=x&agente=7&lang=pt"), None);
    assert!(
        told("prioriy=high&destt=1").is_some_and(|told| told.contains("priority") && told.contains("dest"))
    );
    let json = read("", JSON, br#"{"valid_fro":7}"#);
    assert!(json.detail().is_some_and(|told| told.contains("valid_for")));
}

#[test]
fn guessed_value_is_noted() {
    let told = Parameters::of_query("mdata=ol%E1").detail().expect("a detail");
    assert!(told.contains("`mdata`") && told.contains("windows-1252") && !told.contains("olá"), "{told}");
}

#[test]
fn json_values_are_texts_integers_or_of_a_wrong_type() {
    let json = |value: &str| read("", JSON, format!(r#"{{"dest":{value}}}"#).as_bytes()).get("dest").cloned();
    let given = |text: &str| Some(ParameterValue::Text(text.into()));
    assert_eq!(json(r#""253""#), given("253"));
    assert_eq!(json("25319273918273981273987129837"), given("25319273918273981273987129837"));
    assert_eq!(json("-7"), given("-7"));
    assert_eq!(json(r#""\u00e1\ud83d\ude00""#), given("á😀"));
    assert_eq!(json("null"), None);
    for wrong in ["1.0", "1e3", "true", "[1]", "{}"] {
        assert!(matches!(json(wrong), Some(ParameterValue::WrongType(_))), "{wrong}");
    }
}

#[test]
fn other_json_than_an_object_is_malformed() {
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(100_000));
    for body in [
        "null",
        "[]",
        "7",
        r#""x""#,
        "{",
        "{} x",
        r#"{"dest":"a}"#,
        r#"{"dest":"\ud800"}"#,
        "{'dest':1}",
        &deep,
    ] {
        let refused = Parameters::read("", &JSON, body.as_bytes()).expect_err("malformed");
        assert_eq!(refused.refusal, Refusal::Malformed, "{}", &body[..body.len().min(40)]);
    }
    assert!(Parameters::read("", &JSON, b"{\"dest\":\"\xff\"}").is_err());
    assert!(Parameters::read("", &BodyType::of("text/plain", ""), b"x").is_err());
}

#[test]
fn empty_body_counts_as_none() {
    for body_type in [FORM, JSON, BodyType::of("text/plain", "")] {
        assert_eq!(text(&read("dest=a", body_type, b""), "dest"), "a");
    }
}

#[test]
fn json_with_a_byte_order_mark_is_read() {
    assert_eq!(text(&read("", JSON, "\u{feff}{\"dest\":\"253\"}".as_bytes()), "dest"), "253");
}

#[test]
fn refused_json_repeats_no_text() {
    let refused = Parameters::read("", &JSON, br#"["secret text"]"#).expect_err("malformed");
    assert!(
        refused.detail().contains("line 1") && !refused.detail().contains("secret"),
        "{}",
        refused.detail()
    );
}
