//! Every channel against its fixtures: kinds, the longest text, and the body of each kind to the letter.

use std::collections::BTreeSet;
use std::fs;

use serde::Deserialize;

use super::class::Class;
use super::kind::MessageKind;
use super::send_api::Content;

#[derive(Deserialize)]
struct Fixtures {
    kinds: Vec<MessageKind>,
    refused_kinds: Vec<MessageKind>,
    longest_text: LongestText,
    bodies: Vec<SentBody>,
    #[serde(default)]
    bodies_with_metadata: Vec<SentBody>,
}

#[derive(Deserialize)]
struct LongestText {
    character: String,
    count: usize,
}

#[derive(Deserialize)]
struct SentBody {
    kind: MessageKind,
    dest: String,
    mdata: String,
    metadata: Option<String>,
    body: String,
}

fn fixtures(class: Class) -> Fixtures {
    let path = format!("{}/src/channel/testdata/{class}.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn kinds_match_the_fixtures() {
    for class in Class::ALL {
        let Fixtures { kinds, refused_kinds, .. } = fixtures(*class);
        assert_eq!(class.kinds, kinds, "{class}");
        assert!(refused_kinds.iter().all(|kind| !class.supports(*kind)), "{class}");
    }
}

#[test]
fn text_limit_matches_the_fixtures() {
    for class in Class::ALL {
        let LongestText { character, count } = fixtures(*class).longest_text;
        assert!(class.text_limit.fits(&character.repeat(count)), "{class}");
        assert!(!class.text_limit.fits(&character.repeat(count + 1)), "{class}");
    }
}

#[test]
fn bodies_match_to_the_letter() {
    for class in Class::ALL {
        let Fixtures { bodies: sent, bodies_with_metadata, .. } = fixtures(*class);
        for SentBody { kind, dest, mdata, metadata, body } in sent.iter().chain(&bodies_with_metadata) {
            let metadata = metadata.as_deref();
            let content =
                Content { kind: *kind, dest, mdata, attachment_id: None, metadata, appsecret_proof: None };
            let written = String::from_utf8((class.body)(&content)).expect("JSON is UTF-8");
            assert_eq!(&written, body, "{class} {kind}");
        }
        let kinds: Vec<MessageKind> = sent.iter().map(|sent| sent.kind).collect();
        assert_eq!(class.kinds, kinds, "{class}: each kind has a body");
        assert_eq!(class.returns_metadata, !bodies_with_metadata.is_empty(), "{class}");
    }
}

#[test]
fn names_and_endpoints_are_unique() {
    let names: BTreeSet<&str> = Class::ALL.iter().map(|class| class.name).collect();
    let endpoints: BTreeSet<&str> = Class::ALL.iter().map(|class| class.endpoint).collect();
    assert_eq!((names.len(), endpoints.len()), (Class::ALL.len(), Class::ALL.len()));
}

#[test]
fn class_words_are_read_back() {
    for class in Class::ALL {
        assert_eq!(class.as_str().parse::<Class>().ok(), Some(*class));
    }
    assert!("whatsapp".parse::<Class>().is_err());
}
