//! As much of YAML as compose.yaml has: maps and lists by indentation, texts on one line, lists in brackets, anchors and
//! merges. Everything else fails the test that reads it, so that nothing is read as something else.

use std::collections::BTreeMap;

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

struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    /// The next line.
    at: usize,
    anchors: BTreeMap<String, Yaml>,
}

pub fn read(text: &str) -> Yaml {
    let lines = text.lines().enumerate().filter_map(|(at, line)| {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let is_empty = text.is_empty() || text.starts_with('#');
        (!is_empty).then(|| Line { number: at + 1, indent, text: text.trim_end() })
    });
    let mut reader = Reader { lines: lines.collect(), at: 0, anchors: BTreeMap::new() };
    let read = reader.block(0);
    assert_eq!(reader.at, reader.lines.len(), "line {}: wrong indentation", reader.number());
    read
}

impl<'a> Reader<'a> {
    /// The number of the next line.
    fn number(&self) -> usize {
        self.lines.get(self.at).map_or(0, |line| line.number)
    }

    /// The next line of a block, with its number; `None` at the end of the block.
    fn take(&mut self, indent: usize) -> Option<(usize, &'a str)> {
        let line = self.lines.get(self.at)?;
        assert!(line.indent <= indent, "line {}: wrong indentation", line.number);
        let taken = (line.indent == indent).then_some((line.number, line.text))?;
        self.at += 1;
        Some(taken)
    }

    fn block(&mut self, indent: usize) -> Yaml {
        match self.lines.get(self.at) {
            Some(line) if line.text.starts_with("- ") => self.list(indent),
            _ => self.map(indent),
        }
    }

    fn list(&mut self, indent: usize) -> Yaml {
        let mut items = Vec::new();
        while let Some((number, text)) = self.take(indent) {
            let item = text.strip_prefix("- ").unwrap_or_else(|| panic!("line {number}: no item of a list"));
            items.push(Yaml::Text(text_of(item, number)));
        }
        Yaml::List(items)
    }

    fn map(&mut self, indent: usize) -> Yaml {
        let mut entries: Vec<(String, Yaml)> = Vec::new();
        let mut merged: Vec<(String, Yaml)> = Vec::new();
        while let Some((number, line)) = self.take(indent) {
            let (key, rest) = line.split_once(':').unwrap_or_else(|| panic!("line {number}: no key"));
            let is_name = key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.<".contains(letter));
            assert!(is_name && (rest.is_empty() || rest.starts_with(' ')), "line {number}: no key");
            let rest = rest.trim_start();
            if key == "<<" {
                let name = rest.strip_prefix('*').unwrap_or_else(|| panic!("line {number}: no anchor"));
                let anchor =
                    self.anchors.get(name).unwrap_or_else(|| panic!("line {number}: no anchor {name}"));
                merged.extend_from_slice(anchor.entries());
                continue;
            }
            let value = match rest.strip_prefix('&') {
                Some(name) => {
                    let value = self.nested(indent);
                    self.anchors.insert(name.to_owned(), value.clone());
                    value
                }
                None if rest.is_empty() => self.nested(indent),
                None => value_of(rest, number),
            };
            assert!(entries.iter().all(|(known, _)| known != key), "line {number}: {key} is there twice");
            entries.push((key.to_owned(), value));
        }
        for (key, value) in merged {
            if entries.iter().all(|(known, _)| *known != key) {
                entries.push((key, value));
            }
        }
        Yaml::Map(entries)
    }

    /// The block below a key; an empty text where there is none.
    fn nested(&mut self, indent: usize) -> Yaml {
        match self.lines.get(self.at).map(|line| line.indent) {
            Some(deeper) if deeper > indent => self.block(deeper),
            _ => Yaml::Text(String::new()),
        }
    }
}

fn value_of(text: &str, number: usize) -> Yaml {
    let Some(items) = text.strip_prefix('[') else { return Yaml::Text(text_of(text, number)) };
    let items = items.strip_suffix(']').unwrap_or_else(|| panic!("line {number}: a list ends on its line"));
    Yaml::List(items.split(',').map(|item| Yaml::Text(text_of(item.trim(), number))).collect())
}

fn text_of(text: &str, number: usize) -> String {
    if let Some(quoted) = text.strip_prefix('"') {
        let inner = quoted.strip_suffix('"').unwrap_or_else(|| panic!("line {number}: no end of a text"));
        assert!(!inner.contains(['"', '\\']), "line {number}: a text with quotes in it");
        return inner.to_owned();
    }
    let has_a_meaning = text.is_empty()
        || text.starts_with(['\'', '&', '*', '!', '|', '>', '%', '@', '`', '{', '}', '[', ']'])
        || text.starts_with("- ")
        || text.ends_with(':')
        || text.contains(": ")
        || text.contains(" #");
    assert!(!has_a_meaning, "line {number}: more than a text: {text}");
    text.to_owned()
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
#[case::a_list_of_maps("a:\n  - b: c\n")]
#[case::a_long_text("a: |\n  b\n")]
#[case::a_map_on_a_line("a: {}\n")]
#[case::a_comment_behind_a_value("a: b # c\n")]
#[case::a_key_twice("a: b\na: c\n")]
#[case::an_unknown_anchor("a:\n  <<: *b\n")]
#[case::indentation_of_nothing("a: b\n   c: d\n")]
#[should_panic(expected = "line ")]
fn other_yaml_is_refused(#[case] text: &str) {
    read(text);
}
