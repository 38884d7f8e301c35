//! The parameters of a request, merged from query and body: a name in the query wins, and of a name given
//! twice in one place the last counts. Unlisted names are ignored; a name that resembles a listed one is
//! noted.
//!
//! Every way in makes its values here: all are trimmed and cleaned alike.

use std::collections::HashMap;
use std::sync::Arc;

use ring::digest;

use super::body::{self, BodyType};
use crate::channel::Class;
use crate::edge::{Refused, misspelled};
use crate::text::{Charset, Decoded, form_pairs, is_blank, meant, trimmed, utf8_body, without_c1};

/// Longest body of a submission (413 in the contract).
pub const LONGEST_BODY: usize = 64 * 1024;

/// The names of the contract ("HTTP: the two send endpoints"), and `class`, which lines of a batch have.
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

/// Texts for people, kept as they are given; all other values are trimmed.
const UNTRIMMED: [&str; 2] = ["mdata", "mcaption"];
/// Misspelled names that are noted, at most.
const MAX_NOTED: usize = 3;

/// The given value of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterValue {
    /// Shared, because the defaults of a batch are given to each of its lines.
    Text(Arc<str>),
    /// JSON that is no text and no integer; with its type.
    WrongType(&'static str),
}

impl ParameterValue {
    /// The one door: no C1 control character gets in, and no invisible character around an id, a label or a
    /// token.
    fn of_text(name: &str, text: &str) -> ParameterValue {
        let text = without_c1(text);
        let text = if UNTRIMMED.contains(&name) { &*text } else { trimmed(&text) };
        ParameterValue::Text(text.into())
    }

    fn is_blank(&self) -> bool {
        matches!(self, ParameterValue::Text(text) if is_blank(text))
    }
}

/// The listed parameters of a request.
#[derive(Debug, Default, Clone)]
pub struct Parameters {
    given: HashMap<&'static str, ParameterValue>,
    notes: Notes,
}

/// Oddities of a request that may still be accepted.
#[derive(Debug, Default, Clone)]
struct Notes {
    /// Unlisted names, and the listed ones that they resemble.
    misspelled: Vec<(String, &'static str)>,
    /// Parameters whose bytes were not UTF-8.
    guessed: Vec<&'static str>,
    /// A form that begins like JSON: its client forgot the Content-Type.
    looks_like_json: bool,
}

impl Parameters {
    /// Read query and body. An empty body counts as none, whatever its type.
    pub fn read(query: &str, body_type: &BodyType, body: &[u8]) -> Result<Parameters, Refused> {
        let mut parameters = match body_type {
            _ if body.is_empty() => Parameters::default(),
            BodyType::Form(charset) => {
                let (body, charset) = utf8_body(body, *charset);
                let mut parameters = Parameters::of_pairs(form_pairs(&body, charset));
                parameters.notes.looks_like_json = body.trim_ascii_start().starts_with(b"{");
                parameters
            }
            BodyType::Json(charset) => Parameters::of_json(body, *charset)?,
            BodyType::Multipart { boundary, charset } => {
                Parameters::of_pairs(body::multipart_pairs(boundary, *charset, body)?)
            }
            BodyType::Unread(refused) => return Err(refused.clone()),
        };
        parameters.extend(Parameters::of_query(query));
        Ok(parameters)
    }

    pub fn of_query(query: &str) -> Parameters {
        Parameters::of_pairs(form_pairs(query.as_bytes(), Charset::Utf8))
    }

    fn of_pairs(pairs: impl IntoIterator<Item = (String, Decoded)>) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            let Some(name) = parameters.note(&name) else { continue };
            if value.is_guessed {
                parameters.notes.guessed.push(name);
            }
            parameters.given.insert(name, ParameterValue::of_text(name, &value.text));
        }
        parameters.without_alias()
    }

    /// Read a JSON object. Values are read as they are written: an integer of any length keeps its digits.
    pub fn of_json(body: &[u8], charset: Charset) -> Result<Parameters, Refused> {
        let text = body::json_text(body, charset)?;
        let fields = body::json_fields(&text).map_err(|error| body::no_object(&error))?;
        let mut parameters = Parameters::default();
        // In their order: of `"dest"` and `" dest"` the last counts too.
        for (name, value) in fields {
            let Some(name) = parameters.note(&name) else { continue };
            match json_value(name, value.get())? {
                Some(value) => parameters.given.insert(name, value),
                None => parameters.given.remove(name),
            };
        }
        Ok(parameters.without_alias())
    }

    /// Read a line of a batch: a JSON object, over the batch's defaults.
    pub fn line_of_json(line: &[u8], charset: Charset, defaults: &Parameters) -> Result<Parameters, Refused> {
        let given = Parameters::of_json(line, charset)?;
        // A token is given once for the batch: another one in its lines would seem to count.
        if let Some(name) = ["tsid", "sid"].into_iter().find(|name| given.given.contains_key(name)) {
            return Err(Refused::parameter(
                name,
                "A token stands once for the batch, in its header or query: leave it out of the lines",
            ));
        }
        Ok(given.over(defaults))
    }

    /// Read a line of a batch: a text for each column, over the batch's defaults; an empty text counts as not
    /// given.
    pub fn line_of_fields(
        fields: impl IntoIterator<Item = (&'static str, Decoded)>,
        defaults: &Parameters,
    ) -> Parameters {
        let mut line = Parameters::default();
        for (name, field) in fields {
            if field.text.is_empty() {
                continue;
            }
            if field.is_guessed {
                line.notes.guessed.push(name);
            }
            line.given.insert(name, ParameterValue::of_text(name, &field.text));
        }
        line.without_alias().over(defaults)
    }

    /// Return the parameter that a column of a batch may give.
    pub fn column(name: &str) -> Option<&'static str> {
        listed(name).filter(|name| !matches!(*name, "tsid" | "sid"))
    }

    pub fn set_default(&mut self, name: &'static str, text: &str) {
        self.given.entry(name).or_insert_with(|| ParameterValue::Text(text.into()));
    }

    /// Ignore `wait`, on a way in where no caller waits.
    pub fn forget_wait(&mut self) {
        self.given.remove("wait");
    }

    pub fn forget_token(&mut self) {
        self.given.retain(|name, _| !matches!(*name, "tsid" | "sid"));
    }

    pub fn get(&self, name: &str) -> Option<&ParameterValue> {
        self.given.get(name)
    }

    /// Return the text of a parameter; blank and wrongly typed ones count as missing.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some(ParameterValue::Text(text)) if !is_blank(text) => Some(text),
            _ => None,
        }
    }

    /// Return how many values were not UTF-8, and were guessed.
    pub fn guessed(&self) -> usize {
        self.notes.guessed.len()
    }

    pub fn looks_like_json(&self) -> bool {
        self.notes.looks_like_json
    }

    /// Return the note to the sender of an accepted message.
    pub fn detail(&self) -> Option<String> {
        let guessed = self.notes.guessed.first().map(|name| {
            format!(
                "`{name}` is not UTF-8 and was read as windows-1252, or without a last character that was cut: send \
                 UTF-8, or name the encoding in the Content-Type."
            )
        });
        let sentences: Vec<String> = self.misspelled().into_iter().chain(guessed).collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    /// Return the names that resemble listed ones, and therefore had no effect.
    pub fn misspelled(&self) -> Option<String> {
        let near = self.notes.misspelled.iter().map(|(given, known)| misspelled(given, known));
        let sentences: Vec<String> = near.collect();
        (!sentences.is_empty()).then(|| sentences.join(" "))
    }

    /// Return the listed name; note a name that resembles one.
    fn note(&mut self, name: &str) -> Option<&'static str> {
        let found = listed(trimmed(name));
        if found.is_none()
            && self.notes.misspelled.len() < MAX_NOTED
            && let Some(near) = meant(trimmed(name), LISTED)
        {
            self.notes.misspelled.push((name.to_owned(), near));
        }
        found
    }

    /// Return these parameters, completed by the defaults.
    fn over(self, defaults: &Parameters) -> Parameters {
        let mut given = defaults.given.clone();
        given.extend(self.given);
        Parameters { given, notes: self.notes }
    }

    /// Add parameters that take precedence.
    fn extend(&mut self, other: Parameters) {
        self.given.extend(other.given);
        self.notes.misspelled.extend(other.notes.misspelled);
        self.notes.guessed.extend(other.notes.guessed);
    }

    /// Replace an alias by the name that it stands for; the name counts where both are given.
    fn without_alias(mut self) -> Parameters {
        if let Some(line) = self.given.remove("v8l_id")
            && self.given.get("app_id").is_none_or(ParameterValue::is_blank)
        {
            self.given.insert("app_id", line);
        }
        self
    }
}

/// Return the meaning of an idempotency key: a hash of all parameters except the token and the time to wait.
pub fn request_hash(class: Class, parameters: &Parameters) -> Vec<u8> {
    let mut given: Vec<(&str, &ParameterValue)> = parameters
        .given
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
            ParameterValue::Text(text) => part(text.as_bytes()),
            ParameterValue::WrongType(_) => part(&[0]),
        }
    }
    context.finish().as_ref().to_vec()
}

/// Return the name in its listed form, if it is listed.
pub fn listed(name: &str) -> Option<&'static str> {
    LISTED.iter().copied().find(|listed| *listed == name)
}

fn json_value(name: &str, raw: &str) -> Result<Option<ParameterValue>, Refused> {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Ok(Some(match raw.bytes().next() {
        Some(b'n') => return Ok(None),
        Some(b'"') => {
            let text: String = serde_json::from_str(raw).map_err(|error| body::no_object(&error))?;
            ParameterValue::of_text(name, &text)
        }
        _ if is_integer => ParameterValue::Text(raw.into()),
        Some(b't' | b'f') => ParameterValue::WrongType("a boolean"),
        Some(b'[') => ParameterValue::WrongType("an array"),
        Some(b'{') => ParameterValue::WrongType("an object"),
        _ => ParameterValue::WrongType("a number with a point or an exponent"),
    }))
}

#[cfg(test)]
mod tests;
