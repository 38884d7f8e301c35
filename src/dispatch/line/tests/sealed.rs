//! Page tokens that are sealed in the record.

use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::dispatch::line::PauseChange;
use crate::dispatch::line::pauses::GRAPH_PAUSE_PREFIX;
use crate::seal::Purpose;
use crate::store::UNOPENED_PAUSE;

fn keys(bytes: &[u8]) -> KeyRing {
    let keys: Vec<[u8; 32]> = bytes.iter().map(|byte| [*byte; 32]).collect();
    KeyRing::new(&keys)
}

/// Return a record whose token is sealed by the key.
fn sealed(token: &str, key: u8) -> LineRecord {
    let purpose = Purpose::PageToken(LineId(7));
    let sealed = keys(&[key]).first().expect("a key").seal(&SecretString::from(token), purpose);
    LineRecord { page_token: Some(sealed), ..record(None) }
}

fn paused(record: LineRecord, reason: &str) -> LineRecord {
    let left = Duration::from_secs(3_600);
    LineRecord { pause_left: Some(left), pause_reason: Some(reason.to_owned()), ..record }
}

fn apply(line: &mut Line, record: &LineRecord, keys: &KeyRing) -> Option<PauseChange> {
    line.configure(record, &limits(), keys, false, Instant::now())
}

fn new_line() -> Line {
    Line::new(LineId(7), RowMemory::of(u64::MAX))
}

#[tokio::test(start_paused = true)]
async fn calls_have_the_opened_token() {
    let mut line = new_line();
    assert_eq!(apply(&mut line, &sealed("EAAsealed", 1), &keys(&[2, 1])), None);
    let sender = line.sender().expect("the line sends");
    assert_eq!(sender.page_token.expose_secret(), "EAAsealed");
}

#[rstest::rstest]
#[case::its_key_is_missing(sealed("EAA", 1), "is not in security.key")]
#[case::a_later_version_sealed_it(
    LineRecord { page_token: Some("enc:v9:0011aabb:AAAA".into()), ..record(None) },
    "does not know its form"
)]
#[case::it_belongs_to_another_line(
    LineRecord { id: LineId(8), ..sealed("EAA", 2) },
    "was sealed for another line"
)]
#[tokio::test(start_paused = true)]
async fn unopened_token_holds_the_line(#[case] record: LineRecord, #[case] reason: &str) {
    let mut line = new_line();
    give(&mut line, row(1, MessageKind::Text));
    let Some(PauseChange::Unopened(shown)) = apply(&mut line, &record, &keys(&[2])) else {
        panic!("the line is to be paused");
    };
    assert!(shown.starts_with(UNOPENED_PAUSE) && shown.contains(reason), "{shown}");
    assert!(line.sender().is_none() && pump(&mut line, 10).claims.is_empty());
    // The pause is written: nothing is left to do, until the token opens.
    assert_eq!(apply(&mut line, &paused(record, &shown), &keys(&[2])), None);
    let opens = paused(sealed("EAA", 2), &shown);
    assert_eq!(apply(&mut line, &opens, &keys(&[2])), Some(PauseChange::Opened(shown)));
    apply(&mut line, &sealed("EAA", 2), &keys(&[2]));
    assert_eq!(pump(&mut line, 10).claims.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unopened_token_leaves_another_pause() {
    let mut line = new_line();
    assert_eq!(apply(&mut line, &paused(sealed("EAA", 1), "by an operator"), &keys(&[])), None);
    let change = apply(&mut line, &sealed("EAA", 1), &keys(&[]));
    assert!(matches!(change, Some(PauseChange::Unopened(_))), "{change:?}");
}

#[tokio::test(start_paused = true)]
async fn inactive_line_is_not_paused() {
    let inactive = LineRecord { active: false, ..sealed("EAA", 1) };
    assert_eq!(apply(&mut new_line(), &inactive, &keys(&[])), None);
}

#[rstest::rstest]
#[case::sealing_keeps_it(sealed("EAA", 2), None)]
#[case::sealing_anew_keeps_it(sealed("EAA", 1), None)]
#[case::replacing_ends_it(sealed("EAAnew", 2), Some(PauseChange::Replaced))]
#[tokio::test(start_paused = true)]
async fn pause_of_a_refused_token(#[case] after: LineRecord, #[case] change: Option<PauseChange>) {
    let reason = format!("{GRAPH_PAUSE_PREFIX}190");
    let keys = keys(&[2, 1]);
    let mut line = new_line();
    apply(&mut line, &paused(record(None), &reason), &keys);
    assert_eq!(apply(&mut line, &paused(after, &reason), &keys), change);
}
