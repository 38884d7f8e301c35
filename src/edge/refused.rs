//! A refusal with its reason in words: the contract's `detail`, the same over HTTP, in batches and over
//! RabbitMQ.
//!
//! A detail is one plain sentence: the fault, and the remedy. Never in a detail: a token, or a message's
//! text.

use std::borrow::Cow;

use super::Refusal;
use crate::text::{meant, printable_id};

/// Longest name of the caller's that is repeated.
const MAX_NAME_CHARS: usize = 64;

/// A refusal and its reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    /// A name that the caller made up, and that 229 repeats.
    name: Option<String>,
    detail: Cow<'static, str>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused::because(refusal, refusal.detail())
    }
}

impl Refused {
    /// Create a refusal with a particular reason.
    pub fn because(refusal: Refusal, detail: impl Into<Cow<'static, str>>) -> Refused {
        Refused { refusal, name: None, detail: sentence(detail.into()) }
    }

    /// Create a 400: the body, or a line of a batch, cannot be read.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Refused {
        Refused::because(Refusal::Malformed, detail)
    }

    /// Create a 229 for a parameter's value.
    pub fn parameter(name: &'static str, detail: impl Into<Cow<'static, str>>) -> Refused {
        Refused::because(Refusal::InvalidParameter(name), detail)
    }

    /// Create a 229 for a name of the caller's that is not allowed in its place.
    pub fn name(name: &str, detail: impl FnOnce(&str) -> String) -> Refused {
        let name = shown(name);
        let detail = sentence(detail(&name).into());
        Refused { refusal: Refusal::UnknownParameter, name: Some(name), detail }
    }

    /// Create a 229 for a query parameter that a call does not know.
    pub fn unknown_parameter(name: &str, known: &[&str]) -> Refused {
        Refused::name(name, |shown| match meant(name, known) {
            Some(known) => misspelled(shown, known),
            None => format!("This call has no parameter `{shown}`: leave it out"),
        })
    }

    pub fn http_status(&self) -> u16 {
        self.refusal.http_status()
    }

    /// Return `status_code`.
    pub fn code(&self) -> i32 {
        self.refusal.code()
    }

    /// Return `status`.
    pub fn status(&self) -> String {
        match &self.name {
            Some(name) => format!("{}: {name}", self.refusal.text()),
            None => self.refusal.text(),
        }
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Return the text with a full stop at its end.
fn sentence(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.ends_with(['.', '?']) { text } else { format!("{text}.").into() }
}

/// Return the detail for a name that resembles a known one.
pub fn misspelled(given: &str, known: &str) -> String {
    format!("`{}` is not a parameter; did you mean `{known}`?", shown(given))
}

/// Return a name of the caller's in the form that answers repeat.
pub fn shown(name: &str) -> String {
    printable_id(name, MAX_NAME_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_has_its_own_detail() {
        let refused = Refused::from(Refusal::NoDest);
        assert_eq!((refused.status().as_str(), refused.code(), refused.http_status()), ("No dest", 220, 400));
        assert_eq!(refused.detail(), format!("{}.", Refusal::NoDest.detail()));
    }

    #[test]
    fn unknown_name_is_repeated_with_a_suggestion() {
        let refused = Refused::unknown_parameter("cpid", &["cp_id", "dest"]);
        assert_eq!((refused.status().as_str(), refused.code()), ("Invalid parameter: cpid", 229));
        assert_eq!(refused.detail(), "`cpid` is not a parameter; did you mean `cp_id`?");
        let refused = Refused::unknown_parameter("colour", &["cp_id", "dest"]);
        assert_eq!(refused.detail(), "This call has no parameter `colour`: leave it out.");
    }

    #[test]
    fn repeated_name_is_short_and_printable() {
        let refused = Refused::name(&format!("a\n{}", "x".repeat(1_000)), |name| format!("`{name}`"));
        assert!(refused.status().chars().count() < 100 && !refused.status().contains('\n'));
        assert!(refused.detail().chars().count() < 100 && !refused.detail().contains('\n'));
    }
}
