//! The scopes of API tokens. A scope restricts the token alone, never its account.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::text::{UnknownWord, words};

/// A use of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenScope {
    /// Submit messages, one or a batch, over HTTP or RabbitMQ.
    Send,
    /// Read messages, lines and campaigns.
    Read,
    /// Pause, resume and cancel campaigns; cancel messages.
    Campaigns,
    /// Read and set the callback.
    Callbacks,
}
words!(TokenScope, "scope of a token", {
    Send => "send", Read => "read", Campaigns => "campaigns", Callbacks => "callbacks",
});

/// The scopes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenScopes(u8);

impl TokenScopes {
    pub const ALL: TokenScopes = TokenScopes(u8::MAX);
    const NONE: TokenScopes = TokenScopes(0);

    pub fn contains(self, scope: TokenScope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Read the stored form: words separated by commas; `None` is every scope, also those of later versions. A word
    /// of a later version opens nothing here.
    pub fn stored(text: Option<&str>) -> TokenScopes {
        let Some(text) = text else { return TokenScopes::ALL };
        text.split(',').filter_map(|word| word.trim().parse::<TokenScope>().ok()).collect()
    }

    /// Return the form to be stored.
    pub fn to_stored(self) -> Option<String> {
        (self != TokenScopes::ALL).then(|| self.to_string())
    }

    fn words(self) -> impl Iterator<Item = &'static str> {
        TokenScope::ALL.iter().filter(move |scope| self.contains(**scope)).map(|scope| scope.as_str())
    }
}

fn bit(scope: TokenScope) -> u8 {
    1 << scope as u8
}

impl FromIterator<TokenScope> for TokenScopes {
    fn from_iter<I: IntoIterator<Item = TokenScope>>(scopes: I) -> TokenScopes {
        scopes.into_iter().fold(TokenScopes::NONE, |all, scope| TokenScopes(all.0 | bit(scope)))
    }
}

impl FromStr for TokenScopes {
    type Err = UnknownWord;

    /// Read words separated by commas, all of which must be known.
    fn from_str(text: &str) -> Result<TokenScopes, UnknownWord> {
        text.split(',').map(|word| word.trim().parse::<TokenScope>()).collect()
    }
}

impl fmt::Display for TokenScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words().collect::<Vec<_>>().join(","))
    }
}

impl Serialize for TokenScopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        let scopes: TokenScopes = "read, send".parse().expect("known words");
        assert!(scopes.contains(TokenScope::Send) && !scopes.contains(TokenScope::Campaigns));
        assert_eq!(scopes.to_stored().as_deref(), Some("send,read"));
        assert_eq!(TokenScopes::stored(Some("send,read")), scopes);
        assert_eq!(serde_json::to_string(&scopes).expect("JSON"), r#"["send","read"]"#);
    }

    #[test]
    fn no_stored_text_is_every_scope() {
        assert_eq!((TokenScopes::stored(None), TokenScopes::ALL.to_stored()), (TokenScopes::ALL, None));
        assert!(TokenScope::ALL.iter().all(|scope| TokenScopes::ALL.contains(*scope)));
        assert_eq!(TokenScopes::ALL.to_string(), "send,read,campaigns,callbacks");
    }

    #[test]
    fn unknown_word_opens_nothing() {
        assert_eq!(TokenScopes::stored(Some("read,fly")), "read".parse().expect("a known word"));
        assert_eq!(TokenScopes::stored(Some("")), TokenScopes::NONE);
        assert!("read,fly".parse::<TokenScopes>().is_err() && "".parse::<TokenScopes>().is_err());
    }
}
