//! The parameters of a request, merged from query and body: a name in the query wins, and of a name given twice in
//! one place the last counts. Names that are not listed are ignored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use percent_encoding::percent_decode;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::message::Class;

/// The names of contract 2, and `class`, which lines of a batch have.
pub const LISTED: &[&str] = &[
    "tsid",
    "sid",
    "app_id",
    "v8l_id",
    "dest",
    "mtype",
    "mdata",
    "mcaption",
    "msg_id",
    "cp_id",
    "priority",
    "wait",
    "httpdup",
    "send_at",
    "valid_for",
    "class",
];

/// What was given for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Shared, as the defaults of a batch are given to each of its lines.
    Text(Arc<str>),
    /// JSON of a type that is no text and no integer: a fraction, a boolean, an array, an object.
    WrongType,
}

/// The listed parameters of a request.
#[derive(Debug, Default, Clone)]
pub struct Parameters(HashMap<&'static str, Given>);

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyType {
    Form,
    Json,
    /// Any other Content-Type, or a Content-Encoding: readable only when empty.
    Other,
}

impl Parameters {
    /// Reads query and body. An empty body is none, whatever its type.
    pub fn read(query: &str, body_type: BodyType, body: &[u8]) -> Result<Parameters, Refusal> {
        let mut given = match body_type {
            _ if body.is_empty() => HashMap::new(),
            BodyType::Form => form(body),
            BodyType::Json => json(body)?,
            BodyType::Other => return Err(Refusal::Malformed),
        };
        given.extend(form(query.as_bytes()));
        Ok(Parameters(given))
    }

    /// A line of a batch: a JSON object, over the batch's defaults.
    pub fn line_of_json(line: &[u8], defaults: &Parameters) -> Result<Parameters, Refusal> {
        let given = json(line)?;
        // A token is given once for the batch: another in its lines would seem to count.
        if let Some(name) = ["tsid", "sid"].into_iter().find(|name| given.contains_key(name)) {
            return Err(Refusal::InvalidParameter(name));
        }
        let mut parameters = defaults.clone();
        parameters.0.extend(given);
        Ok(parameters)
    }

    /// A line of a batch: a text for each column, over the batch's defaults; an empty one is not given.
    pub fn line_of_fields(
        columns: &[&'static str],
        fields: Vec<String>,
        defaults: &Parameters,
    ) -> Parameters {
        let mut parameters = defaults.clone();
        let given = columns.iter().zip(fields).filter(|(_, field)| !field.is_empty());
        let given = given.map(|(column, field)| (*column, Given::Text(field.into()))).collect();
        parameters.0.extend(without_alias(given));
        parameters
    }

    /// The parameter that a column of a batch may give.
    pub fn column(name: &str) -> Option<&'static str> {
        listed(name).filter(|name| !matches!(*name, "tsid" | "sid"))
    }

    pub fn set_default(&mut self, name: &'static str, text: &str) {
        self.0.entry(name).or_insert_with(|| Given::Text(text.into()));
    }

    /// Where nobody waits, what is said of it is ignored.
    pub fn forget_wait(&mut self) {
        self.0.remove("wait");
    }

    pub fn forget_token(&mut self) {
        self.0.retain(|name, _| !matches!(*name, "tsid" | "sid"));
    }

    pub fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    /// The text of a parameter; blank and wrongly typed ones count as missing.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Given::Text(text)) if !text.trim().is_empty() => Some(text),
            _ => None,
        }
    }
}

/// What an idempotency key stands for: a hash of all parameters but those that say who asks and how long they wait.
pub fn request_hash(class: Class, parameters: &Parameters) -> Vec<u8> {
    let mut given: Vec<(&str, &Given)> = parameters
        .0
        .iter()
        .filter(|(name, _)| !matches!(**name, "tsid" | "sid" | "wait" | "class"))
        .map(|(name, given)| (*name, given))
        .collect();
    given.sort_unstable_by_key(|(name, _)| *name);
    let mut context = digest::Context::new(&digest::SHA256);
    let mut part = |bytes: &[u8]| {
        // Lengths keep one part from running into the next.
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    part(class.as_str().as_bytes());
    for (name, given) in given {
        part(name.as_bytes());
        match given {
            Given::Text(text) => part(text.as_bytes()),
            Given::WrongType => part(&[0]),
        }
    }
    context.finish().as_ref().to_vec()
}

/// What was given in one place, its alias under the name it stands for; the name counts where both are given.
fn without_alias(mut given: HashMap<&'static str, Given>) -> HashMap<&'static str, Given> {
    if let Some(line) = given.remove("v8l_id") {
        let is_blank = match given.get("app_id") {
            Some(Given::Text(text)) => text.trim().is_empty(),
            Some(Given::WrongType) => false,
            None => true,
        };
        if is_blank {
            given.insert("app_id", line);
        }
    }
    given
}

/// The name as it is listed, if it is.
pub fn listed(name: &str) -> Option<&'static str> {
    LISTED.iter().copied().find(|listed| *listed == name)
}

/// `application/x-www-form-urlencoded`: UTF-8, or as a whole ISO-8859-1 where it is not.
fn form(bytes: &[u8]) -> HashMap<&'static str, Given> {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = bytes
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let split = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = split.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            (decode(name), decode(value))
        })
        .collect();
    let is_utf8 =
        pairs.iter().all(|(name, value)| str::from_utf8(name).is_ok() && str::from_utf8(value).is_ok());
    let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) if is_utf8 => text,
        Ok(text) => text.into_bytes().into_iter().map(char::from).collect(),
        Err(error) => error.into_bytes().into_iter().map(char::from).collect(),
    };
    let given = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((listed(&text(name))?, Given::Text(text(value).into()))))
        .collect();
    without_alias(given)
}

/// `+` is a blank, `%XX` a byte; a broken escape stands for itself.
fn decode(bytes: &[u8]) -> Vec<u8> {
    let blanks: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&blanks).collect()
}

/// A JSON object. Values are looked at as they stand, so that an integer of any length keeps its digits.
fn json(body: &[u8]) -> Result<HashMap<&'static str, Given>, Refusal> {
    let text = str::from_utf8(body).map_err(|_| Refusal::Malformed)?;
    let fields: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(text).map_err(|_| Refusal::Malformed)?;
    let mut given = HashMap::new();
    for (name, value) in fields {
        if let Some(name) = listed(&name)
            && let Some(value) = json_value(value.get())?
        {
            given.insert(name, value);
        }
    }
    Ok(without_alias(given))
}

fn json_value(raw: &str) -> Result<Option<Given>, Refusal> {
    if raw == "null" {
        return Ok(None);
    }
    if raw.starts_with('"') {
        return serde_json::from_str(raw)
            .map(|text: String| Some(Given::Text(text.into())))
            .map_err(|_| Refusal::Malformed);
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Ok(Some(if is_integer { Given::Text(raw.into()) } else { Given::WrongType }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, body_type: BodyType, body: &[u8]) -> Parameters {
        Parameters::read(query, body_type, body).expect("readable")
    }

    fn text(parameters: &Parameters, name: &str) -> String {
        match parameters.get(name) {
            Some(Given::Text(text)) => text.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_name_in_the_query_wins_over_the_body_and_the_last_of_two_counts() {
        let parameters = read("dest=q&mtype=a&mtype=b", BodyType::Form, b"dest=b&mdata=hi&nonsense=1");
        assert_eq!(text(&parameters, "dest"), "q");
        assert_eq!(text(&parameters, "mdata"), "hi");
        assert_eq!(text(&parameters, "mtype"), "b");
        assert_eq!(parameters.get("nonsense"), None);
        let parameters = read("dest=q", BodyType::Json, br#"{"dest":"j","app_id":7,"app_id":8}"#);
        assert_eq!(text(&parameters, "dest"), "q");
        assert_eq!(text(&parameters, "app_id"), "8");
    }

    #[test]
    fn the_alias_of_a_name_means_that_name_wherever_it_is_given() {
        let app_id = |parameters: &Parameters| text(parameters, "app_id");
        assert_eq!(app_id(&read("v8l_id=4", BodyType::Json, br#"{"app_id":1}"#)), "4");
        assert_eq!(app_id(&read("app_id=1", BodyType::Form, b"v8l_id=4")), "1");
        assert_eq!(app_id(&read("v8l_id=4&app_id=1", BodyType::Form, b"")), "1", "of both the name counts");
        assert_eq!(app_id(&read("v8l_id=4&app_id=", BodyType::Form, b"")), "4");
        let defaults = read("app_id=1", BodyType::Form, b"");
        let line = Parameters::line_of_json(br#"{"v8l_id":4}"#, &defaults).expect("an object");
        assert_eq!(app_id(&line), "4", "a line of a batch wins over the batch's default");
        assert_eq!(app_id(&Parameters::line_of_fields(&["v8l_id"], vec!["4".into()], &defaults)), "4");
    }

    #[test]
    fn forms_are_decoded_and_read_as_latin_1_where_they_are_not_utf_8() {
        let form = |body: &[u8]| text(&read("", BodyType::Form, body), "mdata");
        assert_eq!(form(b"mdata=a+b%20c%26d"), "a b c&d");
        assert_eq!(form(b"mdata=ol%C3%A1"), "olá");
        assert_eq!(form(b"mdata=ol%E1"), "olá");
        assert_eq!(form(b"mdata=ol\xe1"), "olá");
        assert_eq!(form(b"mdata=%80"), "\u{80}", "ISO-8859-1, not windows-1252");
        assert_eq!(form(b"mdata=100%&x=%zz"), "100%");
        assert_eq!(form(b"mdata=%C3%A1&mcaption=%E1"), "Ã¡", "the whole body is read one way");
        assert_eq!(form(b"mdata"), "");
        assert_eq!(form(b"&&mdata=a=b&"), "a=b");
    }

    #[test]
    fn json_values_are_texts_integers_or_of_a_wrong_type() {
        let json = |value: &str| {
            read("", BodyType::Json, format!(r#"{{"dest":{value}}}"#).as_bytes()).get("dest").cloned()
        };
        let given = |text: &str| Some(Given::Text(text.into()));
        assert_eq!(json(r#""253""#), given("253"));
        assert_eq!(json("25319273918273981273987129837"), given("25319273918273981273987129837"));
        assert_eq!(json("-7"), given("-7"));
        assert_eq!(json(r#""\u00e1\ud83d\ude00""#), given("á😀"));
        assert_eq!(json("null"), None);
        for wrong in ["1.0", "1e3", "true", "[1]", "{}"] {
            assert_eq!(json(wrong), Some(Given::WrongType), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_malformed() {
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
            "\u{feff}{}",
        ] {
            let read = Parameters::read("", BodyType::Json, body.as_bytes());
            assert_eq!(read.err(), Some(Refusal::Malformed), "{}", &body[..body.len().min(40)]);
        }
        assert!(Parameters::read("", BodyType::Json, b"{\"dest\":\"\xff\"}").is_err());
        assert!(Parameters::read("", BodyType::Other, b"x").is_err());
    }

    #[test]
    fn an_empty_body_is_none() {
        for body_type in [BodyType::Form, BodyType::Json, BodyType::Other] {
            assert_eq!(text(&read("dest=a", body_type, b""), "dest"), "a");
        }
    }
}
