//! The section `limits`: a flag, and a section for each class.
//!
//! Read without `serde(flatten)`, which reads values before their types are known: a number from the
//! environment would be a text, and an error would no longer name its key.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::LimitSettings;

impl<'de> Deserialize<'de> for LimitSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LimitSettings, D::Error> {
        deserializer.deserialize_map(Section)
    }
}

struct Section;

impl<'de> Visitor<'de> for Section {
    type Value = LimitSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section with `enforce_ceilings` and a section for each class")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LimitSettings, A::Error> {
        let mut enforce_ceilings = None;
        let mut classes = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "enforce_ceilings" {
                enforce_ceilings = Some(map.next_value()?);
            } else {
                classes.insert(key.parse().map_err(A::Error::custom)?, map.next_value()?);
            }
        }
        let enforce_ceilings = enforce_ceilings.ok_or_else(|| A::Error::missing_field("enforce_ceilings"))?;
        Ok(LimitSettings { enforce_ceilings, classes })
    }
}
