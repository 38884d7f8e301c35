//! The declared type of a body, and its conversion into names and values: a form, JSON, or multipart.
//!
//! The refusal names the part that cannot be read. Never here: the meaning of a name.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::edge::http::{charset, essence};
use crate::edge::{Refused, shown};
use crate::text::{CHARSETS, Charset, Decoded, decoded, utf8_body};

pub const FORM: &str = "application/x-www-form-urlencoded";
pub const MULTIPART: &str = "multipart/form-data";
pub const JSON: &str = "application/json";

/// The way to read a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyType {
    Form(Charset),
    Json(Charset),
    Multipart {
        boundary: String,
        charset: Charset,
    },
    /// Readable only when empty; with the reason.
    Unread(Refused),
}

impl BodyType {
    /// Return the type by the `Content-Type` and the `Content-Encoding` of a request; a missing type is a
    /// form.
    pub fn of(content_type: &str, content_encoding: &str) -> BodyType {
        uncoded(content_encoding).and_then(|()| body_type(content_type)).unwrap_or_else(BodyType::Unread)
    }
}

/// Refuse a body that is compressed or otherwise coded.
pub fn uncoded(content_encoding: &str) -> Result<(), Refused> {
    match content_encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(()),
        coding => Err(Refused::malformed(format!(
            "The Content-Encoding {} is not read: send the body as it is",
            shown(coding)
        ))),
    }
}

fn body_type(content_type: &str) -> Result<BodyType, Refused> {
    match essence(content_type).as_str() {
        "" | FORM => Ok(BodyType::Form(charset(content_type)?)),
        MULTIPART => {
            let boundary = multer::parse_boundary(content_type).map_err(|_| {
                Refused::malformed(
                    "The Content-Type multipart/form-data names no boundary: let the client write it",
                )
            })?;
            Ok(BodyType::Multipart { boundary, charset: charset(content_type)? })
        }
        json if is_json(json) => Ok(BodyType::Json(charset(content_type)?)),
        other => Err(Refused::malformed(format!(
            "The Content-Type {} is not read: send {JSON}, {FORM} or {MULTIPART}",
            shown(other)
        ))),
    }
}

/// Whether the type is `application/json` or one of its relatives.
fn is_json(essence: &str) -> bool {
    let is_relative = || essence.starts_with("application/") && essence.ends_with("+json");
    matches!(essence, JSON | "text/json" | "application/x-json") || is_relative()
}

/// Return the encoding of a submission over RabbitMQ, which is JSON. Many clients name UTF-8 as the
/// `content_encoding` of their messages.
pub fn submission_charset(content_type: &str, content_encoding: &str) -> Result<Charset, Refused> {
    let essence = essence(content_type);
    if !essence.is_empty() && !is_json(&essence) {
        return Err(Refused::malformed(format!(
            "The content_type {} is not read: publish JSON as {JSON}",
            shown(&essence)
        )));
    }
    let of_type = charset(content_type)?;
    let label = content_encoding.split(';').next().unwrap_or_default().trim();
    let of_encoding = match label.to_ascii_lowercase().as_str() {
        "" | "identity" => Charset::default(),
        label => Charset::of_label(label).ok_or_else(|| {
            Refused::malformed(format!(
                "The content_encoding {} is not read: publish the body as it is, in {CHARSETS}",
                shown(label)
            ))
        })?,
    };
    Ok(if of_type == Charset::default() { of_encoding } else { of_type })
}

/// Return JSON as a text, without a byte order mark.
pub fn json_text(body: &[u8], charset: Charset) -> Result<Cow<'_, str>, Refused> {
    let (body, charset) = utf8_body(body, charset);
    if charset == Charset::Windows1252 {
        return Ok(decoded(&body, charset).text.into());
    }
    let text = match body {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed).ok(),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
    };
    text.ok_or_else(|| {
        Refused::malformed(
            "The JSON is not UTF-8: send UTF-8, or name the encoding in the Content-Type (charset=windows-1252)",
        )
    })
}

/// A name of a JSON object, and its value as it is written.
pub type JsonField<'a> = (String, &'a RawValue);

/// Return the fields of one JSON object in their order: a name may stand several times, or with white space around it.
pub fn json_fields(text: &str) -> Result<Vec<JsonField<'_>>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(Fields)?;
    json.end()?;
    Ok(fields)
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<JsonField<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

/// Return the refusal of JSON that is not one object; the parser's own words could repeat a text.
pub fn no_object(error: &serde_json::Error) -> Refused {
    Refused::malformed(format!(
        "The JSON is not one object of names and values: it breaks at line {}, column {}",
        error.line(),
        error.column()
    ))
}

/// Return the fields of a `multipart/form-data` body, in their order: texts only.
pub fn multipart_pairs(
    boundary: &str,
    charset: Charset,
    body: &[u8],
) -> Result<Vec<(String, Decoded)>, Refused> {
    let whole = Ok::<Bytes, Infallible>(Bytes::copy_from_slice(body));
    let parts = multer::Multipart::new(stream::once(std::future::ready(whole)), boundary);
    // The whole body is in memory: there is nothing to wait for.
    fields(parts, charset).now_or_never().unwrap_or_else(|| Err(broken_multipart()))
}

async fn fields(
    mut parts: multer::Multipart<'_>,
    charset: Charset,
) -> Result<Vec<(String, Decoded)>, Refused> {
    let mut pairs = Vec::new();
    while let Some(field) = parts.next_field().await.map_err(|_| broken_multipart())? {
        let Some(name) = field.name().map(str::to_owned) else {
            return Err(Refused::malformed("A part of the multipart body has no name: name each parameter"));
        };
        if field.file_name().is_some() {
            return Err(Refused::malformed(format!(
                "The part `{}` is a file: send texts only; the URL of an asset goes into `mdata`",
                shown(&name)
            )));
        }
        let of_part = field.headers().get("content-type").and_then(|value| value.to_str().ok());
        let of_part = of_part.filter(|content_type| content_type.contains("charset")).map(self::charset);
        let charset = of_part.transpose()?.unwrap_or(charset);
        let bytes = field.bytes().await.map_err(|_| broken_multipart())?;
        let (bytes, charset) = utf8_body(&bytes, charset);
        pairs.push((name, decoded(&bytes, charset)));
    }
    // Without a pair, the parser took the whole body for the text before the first part.
    if pairs.is_empty() { Err(broken_multipart()) } else { Ok(pairs) }
}

fn broken_multipart() -> Refused {
    Refused::malformed("The multipart body does not end with its boundary, or a part of it has no header")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none("", BodyType::Form(Charset::Utf8))]
    #[case::form(
        "Application/X-WWW-Form-Urlencoded; charset=ISO-8859-1",
        BodyType::Form(Charset::Windows1252)
    )]
    #[case::json("Application/JSON;charset=utf-8", BodyType::Json(Charset::Utf8))]
    #[case::text_json("text/json", BodyType::Json(Charset::Utf8))]
    #[case::relative("application/vnd.api+json; version=1", BodyType::Json(Charset::Utf8))]
    #[case::multipart(
        "multipart/form-data; boundary=\"a b\"",
        BodyType::Multipart { boundary: "a b".to_owned(), charset: Charset::Utf8 }
    )]
    fn body_type_follows_the_content_type(#[case] content_type: &str, #[case] expected: BodyType) {
        assert_eq!(BodyType::of(content_type, ""), expected);
        assert_eq!(BodyType::of(content_type, "Identity"), expected);
    }

    #[rstest]
    #[case("text/plain; charset=utf-8", "", "text/plain")]
    #[case("*/*", "", "*/*")]
    #[case("text/csv", "", "text/csv")]
    #[case("image/svg+json", "", "image/svg+json")]
    #[case("application/json", "gzip", "gzip")]
    #[case("application/json; charset=klingon", "", "klingon")]
    #[case("multipart/form-data", "", "boundary")]
    fn unread_body_names_the_cause(#[case] content_type: &str, #[case] coding: &str, #[case] named: &str) {
        match BodyType::of(content_type, coding) {
            BodyType::Unread(refused) => {
                assert_eq!((refused.code(), refused.status().as_str()), (400, "Malformed request"));
                assert!(refused.detail().contains(named), "{}", refused.detail());
            }
            read => panic!("{read:?}"),
        }
    }

    #[rstest]
    #[case("", "", Ok(Charset::Utf8))]
    #[case("application/json", "UTF-8", Ok(Charset::Utf8))]
    #[case("text/json; charset=utf-8", "identity", Ok(Charset::Utf8))]
    #[case("application/cloudevents+json", "", Ok(Charset::Utf8))]
    #[case("application/json", "iso-8859-1", Ok(Charset::Windows1252))]
    #[case("text/plain", "UTF-8", Err("text/plain"))]
    #[case("application/json", "gzip", Err("gzip"))]
    #[case("application/json;charset=klingon", "", Err("klingon"))]
    fn submission_must_be_json(
        #[case] content_type: &str,
        #[case] coding: &str,
        #[case] expected: Result<Charset, &str>,
    ) {
        match (submission_charset(content_type, coding), expected) {
            (Err(refused), Err(named)) => assert!(refused.detail().contains(named), "{}", refused.detail()),
            (read, expected) => assert_eq!(read.ok(), expected.ok()),
        }
    }

    fn multipart(parts: &str) -> Result<Vec<(String, String)>, Refused> {
        let body = format!("{}--x--\r\n", parts.replace('\n', "\r\n"));
        let pairs = multipart_pairs("x", Charset::Utf8, body.as_bytes())?;
        Ok(pairs.into_iter().map(|(name, value)| (name, value.text)).collect())
    }

    #[test]
    fn multipart_fields_are_names_and_texts() {
        let read = multipart(
            "--x\nContent-Disposition: form-data; name=\"dest\"\n\n253\n\
             --x\nContent-Disposition: form-data; name=\"mdata\"\nContent-Type: text/plain; charset=UTF-8\n\nOlá\n--&\n",
        );
        let expected = [("dest", "253"), ("mdata", "Olá\r\n--&")];
        assert_eq!(read, Ok(expected.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec()));
    }

    #[test]
    fn multipart_value_is_read_in_the_charset_of_its_part() {
        let head = "--x\r\nContent-Disposition: form-data; name=\"mdata\"\r\n";
        let body =
            [head.as_bytes(), b"Content-Type: text/plain; charset=ISO-8859-1\r\n\r\n\xc3\xa1\r\n--x--\r\n"];
        let read = multipart_pairs("x", Charset::Utf8, &body.concat()).expect("readable");
        assert_eq!(read[0].1, Decoded { text: "Ã¡".to_owned(), is_guessed: false });
        let body = [head.as_bytes(), b"\r\nol\xe1\r\n--x--\r\n"];
        let read = multipart_pairs("x", Charset::Utf8, &body.concat()).expect("readable");
        assert_eq!(read[0].1, Decoded { text: "olá".to_owned(), is_guessed: true });
    }

    #[rstest]
    #[case::a_file(
        "--x\nContent-Disposition: form-data; name=\"a\"; filename=\"a.png\"\n\nx\n",
        "`a` is a file"
    )]
    #[case::an_empty_file(
        "--x\nContent-Disposition: form-data; name=\"a\"; filename=\"\"\n\n\n",
        "`a` is a file"
    )]
    #[case::no_name("--x\nContent-Disposition: form-data\n\nx\n", "no name")]
    #[case::no_header("--x\n", "boundary")]
    #[case::another_boundary("--y\nContent-Disposition: form-data; name=\"a\"\n\nx\n--y--\n", "boundary")]
    fn unreadable_multipart_names_the_cause(#[case] parts: &str, #[case] named: &str) {
        let refused = multipart(parts).expect_err("malformed");
        assert_eq!(refused.code(), 400);
        assert!(refused.detail().contains(named), "{}", refused.detail());
    }

    #[test]
    fn cut_multipart_is_malformed() {
        let cut = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhello";
        for length in 0..cut.len() {
            assert!(multipart_pairs("x", Charset::Utf8, &cut[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn json_loses_its_byte_order_mark_and_may_be_utf_16() {
        let json = "{\"a\":\"á\"}";
        let utf16: Vec<u8> = format!("\u{feff}{json}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let latin = b"{\"a\":\"\xe1\"}";
        assert_eq!(json_text(format!("\u{feff}{json}").as_bytes(), Charset::Utf8).as_deref(), Ok(json));
        assert_eq!(json_text(&utf16, Charset::Utf8).as_deref(), Ok(json));
        assert_eq!(json_text(latin, Charset::Windows1252).as_deref(), Ok(json));
        assert!(json_text(latin, Charset::Utf8).is_err_and(|refused| refused.detail().contains("UTF-8")));
    }
}
