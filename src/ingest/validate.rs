//! The checks of the contract ("HTTP: the two send endpoints") that need no look-up, in their order.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::dest::mangled;
use super::parameters::{ParameterValue, Parameters};
use crate::channel::{Class, FILE_ALIAS, MessageKind, TextLimit};
use crate::domain::{Lane, LineId, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS};
use crate::edge::{Refusal, Refused, shown};
use crate::store::LONGEST_HTTPDUP;
use crate::text::trimmed;

pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// How far ahead a message may be scheduled, and how long it may be valid.
pub const LONGEST_SECONDS: i64 = 366 * 86_400;
/// Longest caption, in characters.
pub const MAX_MCAPTION_CHARS: usize = 2_000;

/// A message whose parameters are all in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedMessage {
    pub line: LineId,
    pub dest: String,
    pub kind: MessageKind,
    pub mdata: String,
    pub mcaption: Option<String>,
    pub msg_id: Option<String>,
    pub cp_id: Option<String>,
    pub lane: Lane,
    /// `None` where the check for duplicates is off.
    pub httpdup: Option<Duration>,
    pub send_at: Option<OffsetDateTime>,
    pub valid_for: Option<Duration>,
}

/// Check a request for a line of `class`; the first failing check of the contract's order is the answer.
pub fn check(parameters: &Parameters, class: Class) -> Result<CheckedMessage, Refused> {
    let line = app_id(parameters)?;
    present(parameters, "dest", Refusal::NoDest)?;
    present(parameters, "mdata", Refusal::NoMdata)?;
    let kind = mtype(parameters, class)?;
    if let Some(ParameterValue::Text(mdata)) = parameters.get("mdata") {
        mdata_fits(mdata, kind, class)?;
    }
    let dest = dest(parameters)?;
    let mdata = free_text(parameters, "mdata", usize::MAX)?.unwrap_or_default();
    let mcaption = free_text(parameters, "mcaption", MAX_MCAPTION_CHARS)?;
    let msg_id = free_text(parameters, "msg_id", MAX_MSG_ID_CHARS)?;
    let cp_id = label(parameters)?;
    let lane = priority(parameters)?.unwrap_or(if cp_id.is_some() { Lane::Bulk } else { Lane::High });
    seconds(parameters, "wait", 0, MAX_WAIT.as_secs() as i64)?;
    let httpdup = seconds(parameters, "httpdup", 0, LONGEST_HTTPDUP.as_secs() as i64)?
        .filter(|window| !window.is_zero());
    let send_at = send_at(parameters)?;
    let valid_for = seconds(parameters, "valid_for", 1, LONGEST_SECONDS)?;
    Ok(CheckedMessage { line, dest, kind, mdata, mcaption, msg_id, cp_id, lane, httpdup, send_at, valid_for })
}

/// Return how long the caller waits for the outcome, if the request asks for it and may.
pub fn wait(parameters: &Parameters) -> Option<Duration> {
    seconds(parameters, "wait", 0, MAX_WAIT.as_secs() as i64).ok().flatten()
}

pub fn app_id(parameters: &Parameters) -> Result<LineId, Refused> {
    let given = match parameters.get("app_id") {
        None => return Err(Refusal::NoAppId.into()),
        Some(ParameterValue::WrongType(kind)) => (*kind).to_owned(),
        Some(ParameterValue::Text(text)) => match integer(text) {
            Some(id) if id > 0 => return Ok(LineId(id)),
            _ if trimmed(text).is_empty() => return Err(Refusal::NoAppId.into()),
            _ if is_numeric(text) => format!("`{}`", shown(text)),
            // The value may be a token in the wrong place, and is not repeated.
            _ => "a text".to_owned(),
        },
    };
    let detail = format!(
        "`app_id` is {given}, and not a positive integer: give the line's id in digits, without point or exponent"
    );
    Err(Refused::because(Refusal::NoAppId, detail))
}

/// Whether the text has a form in which programs write numbers.
fn is_numeric(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b',' | b'e' | b'E' | b'+' | b'-'))
}

/// Read decimal digits, with white space around them.
fn integer(text: &str) -> Option<i64> {
    let text = trimmed(text);
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Check that a value is present. A value of the wrong type counts as present; a later check names its fault.
fn present(parameters: &Parameters, name: &'static str, missing: Refusal) -> Result<(), Refusal> {
    match parameters.get(name) {
        Some(ParameterValue::WrongType(_)) => Ok(()),
        _ => parameters.text(name).map(drop).ok_or(missing),
    }
}

fn mtype(parameters: &Parameters, class: Class) -> Result<MessageKind, Refused> {
    let kind = match parameters.get("mtype") {
        None => Some(MessageKind::Text),
        Some(ParameterValue::Text(text)) if text.is_empty() => Some(MessageKind::Text),
        Some(ParameterValue::Text(text)) => MessageKind::read(text),
        Some(ParameterValue::WrongType(_)) => None,
    };
    kind.filter(|kind| class.supports(*kind)).ok_or_else(|| invalid_mtype(class))
}

/// Return the 226, with the types that the channel has.
pub fn invalid_mtype(class: Class) -> Refused {
    let mut kinds: Vec<&str> = class.kinds.iter().map(|kind| kind.as_str()).collect();
    if class.supports(MessageKind::File) {
        kinds.push(FILE_ALIAS);
    }
    let detail = format!("{} has no such `mtype`: give one of {}", class.title, kinds.join(", "));
    Refused::because(Refusal::InvalidMtype, detail)
}

fn mdata_fits(mdata: &str, kind: MessageKind, class: Class) -> Result<(), Refused> {
    if kind == MessageKind::Text {
        return if class.text_limit.fits(mdata) { Ok(()) } else { Err(text_too_long(class)) };
    }
    if trimmed(mdata) != mdata {
        return Err(Refused::because(
            Refusal::InvalidMdata,
            "White space or an invisible character stands around the URL in `mdata`: give the URL alone",
        ));
    }
    if is_public_url(mdata) { Ok(()) } else { Err(Refusal::InvalidMdata.into()) }
}

/// Return the 238, with the channel's limit.
pub fn text_too_long(class: Class) -> Refused {
    let limit: TextLimit = class.text_limit;
    let detail =
        format!("The text is longer than {} takes: {limit} at most; send several messages", class.title);
    Refused::because(Refusal::TextTooLong, detail)
}

/// Whether the text is an http(s) URL. Meta fetches the asset, this program never does: only the form can be
/// checked.
fn is_public_url(text: &str) -> bool {
    let has_blank = text.contains(|character: char| character.is_whitespace() || character.is_control());
    // The parser also reads `https:host` and `https:\\host`, which other readers do not.
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let names_a_host = !authority.starts_with(['/', '\\', '?', '#']) && !authority.is_empty();
    is_http && !has_blank && names_a_host && Url::parse(text).is_ok_and(|url| url.has_host())
}

fn dest(parameters: &Parameters) -> Result<String, Refused> {
    if let Some(ParameterValue::WrongType(kind)) = parameters.get("dest") {
        return Err(Refused::parameter(
            "dest",
            format!("`dest` is {kind}: give the recipient's id as a text, as programs round long numbers"),
        ));
    }
    let dest = free_text(parameters, "dest", MAX_DEST_CHARS)?.unwrap_or_default();
    match mangled(&dest) {
        Some(detail) => Err(Refused::parameter("dest", detail)),
        None => Ok(dest),
    }
}

/// Return a campaign's label. No command can name a label with a control character.
fn label(parameters: &Parameters) -> Result<Option<String>, Refused> {
    let label = free_text(parameters, "cp_id", MAX_CP_ID_CHARS)?;
    match label {
        Some(label) if label.contains(char::is_control) => Err(Refused::parameter(
            "cp_id",
            "`cp_id` holds a control character, such as a line end: give a label of one line",
        )),
        label => Ok(label),
    }
}

/// Return a text without NUL, of an allowed length; blank means missing.
fn free_text(
    parameters: &Parameters,
    name: &'static str,
    most_chars: usize,
) -> Result<Option<String>, Refused> {
    match parameters.get(name) {
        Some(ParameterValue::WrongType(kind)) => {
            Err(Refused::parameter(name, format!("`{name}` is {kind}: give a text")))
        }
        Some(ParameterValue::Text(text)) if text.contains('\0') => {
            Err(Refused::parameter(name, format!("`{name}` holds a NUL character: leave it out")))
        }
        Some(ParameterValue::Text(text)) if text.chars().count() > most_chars => Err(Refused::parameter(
            name,
            format!("`{name}` has more than {most_chars} characters: shorten it"),
        )),
        _ => Ok(parameters.text(name).map(str::to_owned)),
    }
}

fn priority(parameters: &Parameters) -> Result<Option<Lane>, Refused> {
    let invalid =
        || Refused::parameter("priority", "`priority` is `high` or `bulk`: give one of them, or none");
    let Ok(text) = given_text(parameters, "priority") else { return Err(invalid()) };
    text.map(|text| text.parse().map_err(|_| invalid())).transpose()
}

fn seconds(
    parameters: &Parameters,
    name: &'static str,
    least: i64,
    most: i64,
) -> Result<Option<Duration>, Refused> {
    let given = given_text(parameters, name).map(|text| text.map(integer));
    match given {
        Ok(None) => Ok(None),
        Ok(Some(Some(seconds))) if (least..=most).contains(&seconds) => {
            Ok(Some(Duration::from_secs(seconds as u64)))
        }
        _ => Err(out_of_seconds(name, least, most)),
    }
}

/// Return the 229 for a number of seconds.
pub fn out_of_seconds(name: &'static str, least: i64, most: i64) -> Refused {
    Refused::parameter(
        name,
        format!(
            "`{name}` is a number of seconds from {least} to {most}: give it in digits, without point or exponent"
        ),
    )
}

/// Return the 229 for `wait`.
pub fn invalid_wait() -> Refused {
    out_of_seconds("wait", 0, MAX_WAIT.as_secs() as i64)
}

/// Read RFC 3339, or Unix seconds. A blank between the offset's sign and its digits is a `+` that was not
/// escaped.
fn send_at(parameters: &Parameters) -> Result<Option<OffsetDateTime>, Refused> {
    let invalid = || {
        Refused::parameter(
            "send_at",
            "`send_at` is an RFC 3339 time with its offset (2026-12-01T09:00:00-03:00) or Unix seconds, at most 366 \
             days ahead",
        )
    };
    let Ok(given) = given_text(parameters, "send_at") else { return Err(invalid()) };
    let Some(text) = given else { return Ok(None) };
    let at = match integer(text) {
        Some(unix) => OffsetDateTime::from_unix_timestamp(unix).map_err(|_| invalid())?,
        None => OffsetDateTime::parse(&trimmed(text).replace(' ', "+"), &Rfc3339).map_err(|_| invalid())?,
    };
    let latest = OffsetDateTime::now_utc() + Duration::from_secs(LONGEST_SECONDS as u64);
    if at.year() < 1970 || at > latest { Err(invalid()) } else { Ok(Some(at)) }
}

/// Return the text of a parameter, if one is given; `Err` for a value of another type.
fn given_text<'a>(parameters: &'a Parameters, name: &'static str) -> Result<Option<&'a str>, ()> {
    match parameters.get(name) {
        Some(ParameterValue::WrongType(_)) => Err(()),
        _ => Ok(parameters.text(name)),
    }
}

#[cfg(test)]
mod tests;
