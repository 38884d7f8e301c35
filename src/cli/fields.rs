//! A serialised object's fields in their own order, for showing one per line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of `value`, which serialises as an object, as (name, text). Objects inside it are opened, and their
/// fields named `outer.inner`; texts stand without quotes, `null` as an empty text.
pub fn fields(value: &impl serde::Serialize) -> anyhow::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    open("", &serde_json::to_string(value)?, &mut fields)?;
    Ok(fields)
}

fn open(prefix: &str, json: &str, into: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for (name, raw) in serde_json::from_str::<Ordered>(json)?.0 {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match raw.get() {
            object if object.starts_with('{') => open(&name, object, into)?,
            text if text.starts_with('"') => into.push((name, serde_json::from_str(text)?)),
            "null" => into.push((name, String::new())),
            other => into.push((name, other.to_owned())),
        }
    }
    Ok(())
}

struct Ordered(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Ordered(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize)]
    struct Outer {
        zebra: &'static str,
        apple: Option<i32>,
        inner: Inner,
    }

    #[derive(serde::Serialize)]
    struct Inner {
        yes: bool,
    }

    #[test]
    fn fields_keep_the_order_of_their_declaration() {
        let value = Outer { zebra: "a \"b\"\n", apple: None, inner: Inner { yes: true } };
        let expected = [("zebra", "a \"b\"\n"), ("apple", ""), ("inner.yes", "true")];
        let fields = fields(&value).expect("it serialises");
        assert_eq!(fields, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
