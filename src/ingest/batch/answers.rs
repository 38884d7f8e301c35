//! The answers to a batch, line by line and as a whole.

use serde_json::json;

use crate::domain::RowId;
use crate::edge::Refused;

/// Return the answer to a refused line.
pub fn refused_line(line: i64, refused: &Refused) -> String {
    let (status, detail) = (json!(refused.status()), json!(refused.detail()));
    format!(
        "{{\"line\":{line},\"status\":{status},\"status_code\":{},\"detail\":{detail}}}\n",
        refused.code()
    )
}

/// Return the answer to a logged line.
pub fn logged_line(line: i64, id: RowId, note: Option<&str>) -> String {
    let detail = note.map(|note| format!(",\"detail\":{}", json!(note))).unwrap_or_default();
    format!("{{\"line\":{line},\"cdls_id\":{}{detail}}}\n", id.0)
}

/// Return the refusal of a batch without a message.
pub fn no_message() -> Refused {
    Refused::malformed(
        "The batch has no message in it: send at least one line, in a CSV below its header row",
    )
}

/// Return the refusal of a body that broke off, or came too slowly.
pub fn body_cut() -> Refused {
    Refused::malformed(
        "The body broke off before its end, or less than 1 KiB of it came within 60 seconds: send the batch again",
    )
}

/// Return a 229 for `class`.
pub fn wrong_class() -> Refused {
    Refused::parameter(
        "class",
        "`class` is `messenger` or `instagram`: give one of them, or none for that of the line",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Refusal;

    #[test]
    fn answers_are_one_json_object_a_line() {
        let refused = refused_line(3, &Refused::because(Refusal::NoDest, "say \"who\""));
        let expected = r#"{"line":3,"status":"No dest","status_code":220,"detail":"say \"who\"."}"#;
        assert_eq!(refused, format!("{expected}\n"));
        assert_eq!(logged_line(1, RowId(7), None), "{\"line\":1,\"cdls_id\":7}\n");
        assert_eq!(logged_line(1, RowId(7), Some("x")), "{\"line\":1,\"cdls_id\":7,\"detail\":\"x\"}\n");
    }
}
