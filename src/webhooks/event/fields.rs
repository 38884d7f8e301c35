//! The fields of a JSON object, each decoded when it is asked for: one that cannot be decoded counts as missing, and
//! the others are read.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The longest id: a recipient's has at most 128 characters, Graph's of a message about 200.
const MAX_ID_CHARS: usize = 512;

/// The longest text that is read, in characters: more than a message can hold.
const MAX_TEXT_CHARS: usize = 20_000;

/// Times above this are milliseconds, and others seconds: 1973 in milliseconds, and 5138 in seconds.
const MAX_SECONDS: i64 = 100_000_000_000;

/// The last millisecond of the year 9999.
const LAST: i64 = 253_402_300_799_999;

/// An object whose values are not decoded yet.
pub(super) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Read an object; `None` for anything else.
    pub(super) fn read(json: &'a str) -> Option<Fields<'a>> {
        serde_json::from_str(json).ok().map(Fields)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Return an object among the fields.
    pub(super) fn object(&self, name: &str) -> Option<Fields<'a>> {
        Fields::read(self.0.get(name)?.get())
    }

    /// Return the members of a list; none for anything else.
    pub(super) fn list(&self, name: &str) -> Vec<&'a RawValue> {
        self.0.get(name).and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default()
    }

    /// Return a text as it is. A text with NUL counts as missing: PostgreSQL takes none.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let text: String = serde_json::from_str(self.0.get(name)?.get()).ok()?;
        (!text.contains('\0') && text.chars().nth(MAX_TEXT_CHARS).is_none()).then_some(text)
    }

    /// Return a short text without control characters, or a whole number as its digits.
    pub(super) fn id(&self, name: &str) -> Option<String> {
        id(self.0.get(name)?)
    }

    /// Return the ids of a list, or the single one that stands in its place.
    pub(super) fn ids(&self, name: &str) -> Vec<String> {
        match self.id(name) {
            Some(one) => vec![one],
            None => self.list(name).into_iter().filter_map(id).collect(),
        }
    }

    /// Return a word that is compared with known ones.
    pub(super) fn word(&self, name: &str) -> Option<String> {
        self.id(name)
    }

    /// Whether the field is `true`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| matches!(value.get(), "true" | "1" | "\"true\""))
    }

    /// Return a time in milliseconds since 1970, which may be given in seconds; `None` if it cannot be true.
    pub(super) fn milliseconds(&self, name: &str) -> Option<i64> {
        let number = self.0.get(name)?.get().trim_matches('"');
        let whole = number.parse::<i64>().ok().or_else(|| {
            let float = number.parse::<f64>().ok()?;
            (float.is_finite() && float.abs() < LAST as f64).then_some(float as i64)
        })?;
        let milliseconds = if whole < MAX_SECONDS { whole.checked_mul(1_000)? } else { whole };
        (1..=LAST).contains(&milliseconds).then_some(milliseconds)
    }
}

fn id(value: &RawValue) -> Option<String> {
    let json = value.get();
    let text = if json.starts_with('"') {
        serde_json::from_str::<String>(json).ok()?
    } else {
        let is_number = json.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| json.to_owned())?
    };
    let text = text.trim();
    let is_id =
        !text.is_empty() && !text.contains(char::is_control) && text.chars().nth(MAX_ID_CHARS).is_none();
    is_id.then(|| text.to_owned())
}
