//! Meanings of codes that the settings give (`graph.codes`): Meta adds codes faster than this program has versions.
//!
//! Never here: the settings themselves.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::table::{self, Meaning};

/// Entries that are read; a longer list is a mistake.
const MOST: usize = 500;

/// The words of the settings, with their meanings.
const WORDS: [(&str, Meaning); 6] = [
    ("refuse", Meaning::Final),
    ("retry", table::PASSING),
    ("slow-line", Meaning::RateLine),
    ("pause-line", Meaning::LineRefused),
    ("pause-app", Meaning::RateApp),
    ("ambiguous", Meaning::MaybeSent),
];

/// The meanings that the settings give to codes, alone or with a subcode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeOverrides(BTreeMap<(i64, Option<i64>), &'static str>);

/// An entry that cannot be used: the demand, without the key of the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OverrideError(String);

/// An entry: a code, and what the program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeOverride {
    pub code: i64,
    /// `None`: every subcode without an entry of its own.
    pub subcode: Option<i64>,
    /// The word of the setting.
    pub word: &'static str,
}

impl CodeOverrides {
    /// Return the entries, by code.
    pub fn iter(&self) -> impl Iterator<Item = CodeOverride> {
        self.0.iter().map(|(&(code, subcode), &word)| CodeOverride { code, subcode, word })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry is about the code.
    pub fn names(&self, code: i64, subcode: Option<i64>) -> bool {
        self.meaning(code, subcode).is_some()
    }

    pub(super) fn meaning(&self, code: i64, subcode: Option<i64>) -> Option<Meaning> {
        // Mostly there is none, and each refused message asks.
        if self.0.is_empty() {
            return None;
        }
        let word = self.0.get(&(code, subcode)).or_else(|| self.0.get(&(code, None)))?;
        meaning_of(code, word)
    }
}

/// A code 10 ends its message whatever else it does.
fn meaning_of(code: i64, word: &str) -> Option<Meaning> {
    let meaning = WORDS.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)?;
    Some(if code == 10 && meaning == Meaning::LineRefused { Meaning::FinalForLine } else { meaning })
}

impl FromStr for CodeOverrides {
    type Err = OverrideError;

    /// Read `10/1234567=refuse, 4242=pause-line`.
    fn from_str(text: &str) -> Result<CodeOverrides, OverrideError> {
        let mut overrides = BTreeMap::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (codes, word) = entry.split_once('=').ok_or_else(wrong)?;
            let (code, subcode) = match codes.split_once('/') {
                Some((code, subcode)) => (number(code)?, Some(number(subcode)?)),
                None => (number(codes)?, None),
            };
            let word = word.trim();
            let known = WORDS.iter().find(|(known, _)| *known == word).ok_or_else(wrong)?.0;
            may_mean(code, known)?;
            if overrides.insert((code, subcode), known).is_some() {
                return Err(OverrideError(format!("names {} twice", codes.trim())));
            }
        }
        if overrides.len() > MOST {
            return Err(OverrideError(format!("must not have more than {MOST} entries")));
        }
        Ok(CodeOverrides(overrides))
    }
}

/// Check the promises that hold for a code whatever the settings say: 10 and 551 end their message at the first answer,
/// and a call that Graph may have taken (1, 2) is counted as such.
fn may_mean(code: i64, word: &str) -> Result<(), OverrideError> {
    let allowed: &[&str] = match code {
        10 => &["refuse", "pause-line"],
        551 => &["refuse"],
        1 | 2 => &["refuse", "ambiguous"],
        _ => return Ok(()),
    };
    if allowed.contains(&word) {
        return Ok(());
    }
    Err(OverrideError(format!("code {code} may only be {}", allowed.join(" or "))))
}

fn number(text: &str) -> Result<i64, OverrideError> {
    text.trim().parse::<i32>().map(i64::from).map_err(|_| wrong())
}

fn wrong() -> OverrideError {
    let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
    OverrideError(format!(
        "must be a list such as 10/1234567=refuse, 4242=pause-line, with the words {}",
        words.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(text: &str) -> CodeOverrides {
        text.parse().expect("it is well formed")
    }

    #[test]
    fn an_entry_with_its_subcode_goes_first() {
        let overrides = read(" 4242=pause-line, 4242/7 = retry ,10/9=pause-line,10/8=refuse,");
        assert_eq!(overrides.meaning(4242, None), Some(Meaning::LineRefused));
        assert_eq!(overrides.meaning(4242, Some(1)), Some(Meaning::LineRefused));
        assert_eq!(overrides.meaning(4242, Some(7)), Some(table::PASSING));
        assert_eq!(overrides.meaning(10, Some(9)), Some(Meaning::FinalForLine));
        assert_eq!(overrides.meaning(10, Some(8)), Some(Meaning::Final));
        assert_eq!(overrides.meaning(10, None), None);
        assert_eq!(overrides.iter().count(), 4);
    }

    #[test]
    fn nothing_is_overridden_by_default() {
        assert_eq!(read(""), CodeOverrides::default());
        assert!(read(" , ").is_empty());
    }

    #[rstest]
    #[case::no_word("4242")]
    #[case::unknown_word("4242=stop")]
    #[case::no_code("=refuse")]
    #[case::no_number("abc=refuse")]
    #[case::too_large("99999999999=refuse")]
    #[case::two_slashes("1/2/3=refuse")]
    #[case::twice("4242=refuse,4242=retry")]
    #[case::retry_of_10("10/5=retry")]
    #[case::pause_for_551("551=pause-line")]
    #[case::retry_of_a_server_failure("2=retry")]
    fn wrong_entry_is_refused(#[case] text: &str) {
        assert!(text.parse::<CodeOverrides>().is_err(), "{text}");
    }
}
