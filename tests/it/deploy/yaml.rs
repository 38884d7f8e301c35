//! compose.yaml as texts, lists and maps, with its merges (`<<`) resolved as Docker Compose does.

use yaml_rust2::{Yaml as Parsed, YamlLoader};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Yaml {
    /// A text, a number or a word; empty where the file has nothing.
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries of a map; none of anything else.
    pub fn entries(&self) -> &[(String, Yaml)] {
        match self {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Yaml::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// The texts of a list.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Yaml::List(items) => items.iter().map(Yaml::text).collect(),
            other => panic!("no list: {other:?}"),
        }
    }
}

pub fn read(text: &str) -> Yaml {
    let documents = YamlLoader::load_from_str(text).expect("YAML");
    assert_eq!(documents.len(), 1, "one document");
    converted(&documents[0])
}

fn converted(parsed: &Parsed) -> Yaml {
    match parsed {
        Parsed::Array(items) => Yaml::List(items.iter().map(converted).collect()),
        Parsed::Hash(entries) => {
            let entries =
                entries.iter().map(|(key, value)| (converted(key).text().to_owned(), converted(value)));
            let (merges, mut own): (Vec<_>, Vec<_>) = entries.partition(|(key, _)| key == "<<");
            for (key, value) in merges.iter().flat_map(|(_, merged)| merged.entries()) {
                if own.iter().all(|(known, _)| known != key) {
                    own.push((key.clone(), value.clone()));
                }
            }
            Yaml::Map(own)
        }
        Parsed::String(text) | Parsed::Real(text) => Yaml::Text(text.clone()),
        Parsed::Integer(number) => Yaml::Text(number.to_string()),
        Parsed::Boolean(is_true) => Yaml::Text(is_true.to_string()),
        Parsed::Null => Yaml::Text(String::new()),
        Parsed::Alias(_) | Parsed::BadValue => panic!("an alias without an anchor, or no value"),
    }
}

#[test]
fn merges_give_way_to_keys_of_the_map() {
    let read = read(
        "a: &a\n  one: 1\n  two: [x, \"y z\"]\nb:\n  <<: *a\n  # a comment\n  one: 3\n  list:\n    - p:q\nc:\n",
    );
    let b = read.get("b").expect("it is there");
    assert_eq!(b.get("one").map(Yaml::text), Some("3"));
    assert_eq!(b.get("two").map(Yaml::texts), Some(vec!["x", "y z"]));
    assert_eq!(b.get("list").map(Yaml::texts), Some(vec!["p:q"]));
    assert_eq!(read.get("c").map(Yaml::text), Some(""));
}

#[rstest::rstest]
#[case::a_key_twice("a: b\na: c\n")]
#[case::an_unknown_anchor("a:\n  <<: *b\n")]
#[case::indentation_of_nothing("a: b\n   c: d\n")]
#[should_panic(expected = "YAML")]
fn wrong_yaml_is_refused(#[case] text: &str) {
    read(text);
}
