//! Rows that wait for an asset.

use super::*;
use crate::store::AttachmentKey;

fn asset() -> AttachmentKey {
    AttachmentKey { line: LINE, kind: MessageKind::Image, url: "https://example.com/a.png".into() }
}

fn image(id: i64, dest: &str) -> ReadyRow {
    ReadyRow { kind: MessageKind::Image, ..row(id, dest) }
}

#[test]
fn row_aside_lets_others_go_and_comes_back() {
    let mut queue = queue([image(1, "ann"), image(2, "bob")]);
    let first = queue.next(Medium::Media).expect("a row");
    assert_eq!(first.id, RowId(1));
    queue.set_aside(first, asset());
    assert_eq!(queue.count_aside(), 1);
    assert!(!queue.in_call(RowId(1)));
    assert_eq!(queue.next(Medium::Media).map(|row| row.id), Some(RowId(2)));
    assert!(!queue.has_next(Medium::Media));
    queue.release_aside(&asset());
    assert_eq!(queue.count_aside(), 0);
    assert_eq!(queue.next(Medium::Media).map(|row| row.id), Some(RowId(1)));
}

#[test]
fn recipient_of_a_row_aside_waits_for_it() {
    let mut queue = queue([image(1, "ann"), row(2, "ann")]);
    let first = queue.next(Medium::Media).expect("a row");
    queue.set_aside(first, asset());
    assert!(!queue.has_next(Medium::Text), "the text was logged behind the image");
    queue.release_aside(&asset());
    let first = queue.next(Medium::Media).expect("a row");
    assert!(!queue.has_next(Medium::Text));
    queue.end(first.lane, &first.dest, first.id);
    assert_eq!(queue.next(Medium::Text).map(|row| row.id), Some(RowId(2)));
}

#[test]
fn row_that_ended_aside_frees_its_recipient() {
    let mut queue = queue([image(1, "ann"), row(2, "ann")]);
    let first = queue.next(Medium::Media).expect("a row");
    let (lane, dest, id, fence) = (first.lane, first.dest.clone(), first.id, first.fence);
    queue.set_aside(first, asset());
    assert!(queue.doom(lane, &dest, id, fence));
    assert_eq!(queue.count_aside(), 0);
    assert_eq!(queue.next(Medium::Text).map(|row| row.id), Some(RowId(2)));
    queue.release_aside(&asset());
    assert!(!queue.has_next(Medium::Media));
}
