//! The preparation of texts from outside for storage and logs: no secret, no control character, bounded
//! length.
//!
//! Every text of Graph, a gateway or the transport passes here before it becomes an error text or a pause's
//! reason. The search works on patterns, as a net under the exact rule that tokens are only in the
//! `Authorization` header.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Longest error text that is kept, in characters.
pub const MAX_ERROR_CHARS: usize = 500;

const REDACTED: &str = "[redacted]";

/// The signs of a secret: its name before it (in a URL, a form or JSON), the scheme of an `Authorization`
/// header, several of these in a row (`Bearer Bearer …`), or the prefix of Meta's own tokens (`EAA`; `IGQ` and `IGAA`
/// for Instagram Login).
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i-u)(?P<name>(?:(?:access_token|appsecret_proof|client_secret|app_secret|fb_exchange_token)",
        r#"[\\"' \t]*(?:=|:|%3D)[\\"' \t]*"#,
        r"|\b(?:bearer|basic) +)+)[a-z0-9._~+/|%=-]+",
        r"|(?-iu:EAA|IGQ|IGAA)(?i-u)[a-z0-9_-]{8,}",
    ))
    .expect("the pattern is constant")
});

/// Return the text without secrets and control characters, at most `max_chars` long (the last one then is
/// `…`).
pub fn redact(text: &str, max_chars: usize) -> String {
    let printable = without_controls(text);
    let safe = SECRET.replace_all(&printable, |found: &Captures<'_>| {
        format!("{}{REDACTED}", found.name("name").map_or("", |name| name.as_str()))
    });
    bounded(safe.trim(), max_chars)
}

/// Return an id from outside without control characters, at most `max_chars` long. Ids are random letters,
/// which contain a token's prefix by chance: they are not searched for secrets, or one in some thousand would
/// be damaged.
pub fn printable_id(id: &str, max_chars: usize) -> String {
    bounded(without_controls(id).trim(), max_chars)
}

/// Return the text with control characters replaced: NUL is dropped (PostgreSQL refuses it), others become
/// spaces.
fn without_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    text.chars().filter(|&c| c != '\0').map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn bounded(text: &str, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_none() {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("Malformed access token EAAGm0PX4ZCpsBAKZCx9", "Malformed access token [redacted]")]
    #[case("GET /me?access_token=abc.123&x=1", "GET /me?access_token=[redacted]&x=1")]
    #[case(r#"{"appsecret_proof":"00ff","a":1}"#, r#"{"appsecret_proof":"[redacted]","a":1}"#)]
    #[case(r#"{\"access_token\": \"abc\"}"#, r#"{\"access_token\": \"[redacted]\"}"#)]
    #[case("redirect=access_token%3Dabc%26", "redirect=access_token%3D[redacted]")]
    #[case("Authorization: Bearer abc/def+g==, next", "Authorization: Bearer [redacted], next")]
    #[case("access_token: Bearer abc", "access_token: Bearer [redacted]")]
    #[case("Authorization: Bearer Bearer abc", "Authorization: Bearer Bearer [redacted]")]
    #[case("access_token: client_secret: abc", "access_token: client_secret: [redacted]")]
    #[case(r#"access_token="appsecret_proof":"abc""#, r#"access_token="appsecret_proof":"[redacted]""#)]
    #[case("IGQVJxyz12345 and IGAAxyz12345", "[redacted] and [redacted]")]
    fn removes_only_the_secret(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(redact(text, 500), expected);
    }

    #[rstest]
    #[case("API calls from the server require an appsecret_proof argument")]
    #[case("Error validating access token: Session has expired")]
    #[case("(#10) This message is sent outside of allowed window. Learn more: https://example.com/a?b=c")]
    #[case("Ação inválida — 窗口已关闭")]
    fn keeps_a_text_without_secrets(#[case] text: &str) {
        assert_eq!(redact(text, 500), text);
    }

    #[test]
    fn replaces_control_characters() {
        assert_eq!(redact("a\0b\r\n\u{1b}[31mred\u{7f}", 500), "ab   [31mred");
    }

    #[test]
    fn keeps_token_prefixes_in_an_id() {
        assert_eq!(printable_id(" m_x-EAAGm0PX4ZCpsBAKZCx9\0\n", 100), "m_x-EAAGm0PX4ZCpsBAKZCx9");
        assert_eq!(printable_id("m_12345", 4), "m_1…");
    }

    #[test]
    fn removes_a_token_around_a_nul() {
        assert_eq!(redact("EAAG\0m0PX4ZCpsBAKZCx9", 500), "[redacted]");
    }

    #[test]
    fn cuts_a_long_text_after_redaction() {
        let cut = redact(&"é".repeat(600), 500);
        assert_eq!(cut.chars().count(), 500);
        assert!(cut.ends_with('…'));
        let token_at_the_cut = format!("{}{}", "x ".repeat(247), "EAAGm0PX4ZCpsBAKZCx9");
        assert!(!redact(&token_at_the_cut, 500).contains("EAA"));
    }
}
