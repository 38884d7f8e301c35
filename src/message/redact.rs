//! Takes secrets out of texts that come from outside, before they reach the log or a log line.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)EAA[a-z0-9_-]{8,}|(access_token|appsecret_proof|client_secret|tsid|sid)(=|"\s*:\s*")[^&\s"',}]+|bearer\s+[^\s"',]+"#,
    )
    .expect("a constant expression")
});

/// The text with `[redacted]` for everything that looks like an access token or its proof.
pub fn redact(text: &str) -> Cow<'_, str> {
    SECRETS.replace_all(text, "[redacted]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_taken_out() {
        for (given, kept) in [
            ("token EAAGm0PX4ZCpsBAA is bad", "token [redacted] is bad"),
            ("https://g/me?access_token=abc123&x=1", "https://g/me?[redacted]&x=1"),
            (r#"{"appsecret_proof":"abc"}"#, r#"{"[redacted]"}"#),
            ("Authorization: Bearer xyz", "Authorization: [redacted]"),
            ("(#10) outside of allowed window", "(#10) outside of allowed window"),
        ] {
            assert_eq!(redact(given), kept);
        }
    }
}
