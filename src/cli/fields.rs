//! The fields of a serialised object in their own order, to show one per line.

use serde_json::Value;

/// Return the fields of `value`, which serialises as an object, as (name, text). Objects inside it are
/// opened, and their fields named `outer.inner`; texts have no quotes, and `null` is an empty text.
pub fn fields(value: &impl serde::Serialize) -> anyhow::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    open("", serde_json::to_value(value)?, &mut fields);
    Ok(fields)
}

fn open(name: &str, value: Value, into: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(object) => {
            for (inner, value) in object {
                open(&if name.is_empty() { inner } else { format!("{name}.{inner}") }, value, into);
            }
            return;
        }
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    };
    into.push((name.to_owned(), text));
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
