//! Durations in settings: `250ms`, `30s`, `5m`, `24h`. For `serde(with)`.

use std::time::Duration;

use serde::Serializer;

pub(super) use humantime_serde::deserialize;

/// Serialise in the largest unit that holds the duration whole, as people write it in the file.
pub(super) fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*length))
}

fn written(length: Duration) -> String {
    let milliseconds = length.as_millis();
    let unit = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find(|(_, unit)| milliseconds.is_multiple_of(*unit));
    match unit {
        _ if milliseconds == 0 => "0s".to_owned(),
        Some((name, unit)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_written_in_its_largest_unit() {
        for text in ["0s", "250ms", "1500ms", "95s", "5m", "24h", "3650m"] {
            assert_eq!(written(humantime::parse_duration(text).expect("a duration")), text);
        }
    }
}
