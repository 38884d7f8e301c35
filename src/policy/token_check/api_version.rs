//! The versions of Meta's Graph API, and the day on which each ends (Meta, Graph API, "Versions", November 2026).

use time::Date;
use time::macros::date;

/// Ended and announced versions; a later one is not known here.
const ENDS: [(&str, Date); 7] = [
    ("v19.0", date!(2026 - 05 - 21)),
    ("v20.0", date!(2026 - 09 - 24)),
    ("v21.0", date!(2027 - 01 - 21)),
    ("v22.0", date!(2027 - 05 - 20)),
    ("v23.0", date!(2027 - 10 - 08)),
    ("v24.0", date!(2028 - 02 - 18)),
    ("v25.0", date!(2028 - 07 - 29)),
];

/// Return the day on which a version ends, if it is known.
pub fn ends_at(version: &str) -> Option<Date> {
    ENDS.iter().find(|(known, _)| *known == version).map(|(_, end)| *end)
}

/// Return the version in the path of a base URL.
pub fn version_of(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    let digits = last.strip_prefix('v')?;
    let is_version = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_version.then_some(last)
}
