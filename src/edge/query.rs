//! Query parameters of calls under `/api`. A call refuses every name that it does not know: an ignored filter
//! would widen a list, and an ignored option would be missed.

use super::Refused;
use crate::text::{Charset, form_pairs, trimmed};

/// Names that every call knows.
const OF_EVERY_CALL: [&str; 2] = ["tsid", "sid"];

/// Refuse (229, with its name) the first unknown parameter of a query.
pub fn known_only(query: &str, known: &[&str]) -> Result<(), Refused> {
    for (name, _) in form_pairs(query.as_bytes(), Charset::Utf8) {
        let name = trimmed(&name);
        if !known.contains(&name) && !OF_EVERY_CALL.contains(&name) {
            return Err(Refused::unknown_parameter(name, known));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_is_refused_and_repeated() {
        let refused = known_only("limit=5&cpid=spring&colour=red", &["cp_id", "limit"]).expect_err("unknown");
        assert_eq!((refused.status().as_str(), refused.code()), ("Invalid parameter: cpid", 229));
        assert!(refused.detail().contains("`cp_id`"), "{}", refused.detail());
    }

    #[test]
    fn known_names_and_tokens_pass() {
        for query in ["", "limit=5", "tsid=x&sid=y&limit=5", "&&limit"] {
            assert_eq!(known_only(query, &["limit"]), Ok(()), "{query}");
        }
        assert!(known_only("limit=5", &[]).is_err());
    }
}
