//! The order in which rows go.

use super::*;

#[test]
fn follows_the_ids_of_rows() {
    let mut queue = queue([row(3, "c"), row(1, "a"), row(2, "b")]);
    assert_eq!(take(&mut queue, 9), [1, 2, 3]);
}

#[test]
fn another_row_goes_once_before_a_refused_one() {
    let mut queue = queue([row(1, "a"), row(2, "b"), row(3, "c")]);
    let first = queue.next(Medium::Text).expect("three wait");
    queue.hold(first.lane, &first.dest, first.id);
    queue.avoid(first.id);
    queue.give_back(first);
    assert_eq!(take(&mut queue, 9), [2, 1, 3]);
}

#[test]
fn refused_row_goes_first_if_no_other_waits() {
    let mut queue = queue([row(1, "a")]);
    queue.avoid(RowId(1));
    assert_eq!(take(&mut queue, 9), [1]);
}

#[test]
fn high_first_and_bulk_one_in_ten() {
    let highs = (1..=20).map(|id| row(id, &format!("h{id}")));
    let bulks = (101..=120).map(|id| bulk(id, &format!("b{id}"), ""));
    let mut queue = queue(highs.chain(bulks));
    let order = take(&mut queue, 20);
    assert_eq!(order.iter().filter(|id| **id > 100).count(), 2);
    assert_eq!(order[..10], [1, 2, 3, 4, 5, 6, 7, 8, 9, 101]);
}

#[test]
fn campaigns_take_turns() {
    let spring = (1..=3).map(|id| bulk(id, &format!("s{id}"), "spring"));
    let autumn = (11..=13).map(|id| bulk(id, &format!("a{id}"), "autumn"));
    let mut queue = queue(spring.chain(autumn));
    assert_eq!(take(&mut queue, 9), [11, 1, 12, 2, 13, 3]);
}

#[test]
fn text_and_media_apart() {
    let image = ReadyRow { kind: MessageKind::Image, ..row(1, "ann") };
    let mut queue = queue([image, row(2, "bob")]);
    assert_eq!(take(&mut queue, 9), [2]);
    assert_eq!(queue.next(Medium::Media).map(|row| row.id.0), Some(1));
}
