//! Rows that go first because a window closes, and rows of recipients that cannot be reached.

use std::time::{Duration, Instant};

use super::*;
use crate::store::{ClosingRow, ClosingRows, FlowRead};

const SIZE: usize = 2;

/// Build a queue whose flow has been read up to row 2.
fn campaign() -> LineQueue {
    let mut queue = empty();
    let first = work(vec![bulk(1, "a", "spring")]);
    queue.found(&first.flow, first.position, true);
    read_on(&mut queue, vec![first, work(vec![bulk(2, "b", "spring")])], true);
    queue
}

fn read_on(queue: &mut LineQueue, work: Vec<WorkRead>, more: bool) {
    let reads: Vec<FlowRead> = queue.reads(LINE, |_| SIZE);
    queue.read_flow(reads.first().expect("the flow has unread work"), page(work, more));
}

fn closing(rows: &[(i64, &str, u64)], now: Instant) -> ClosingRows {
    let row = |(id, dest, seconds): &(i64, &str, u64)| ClosingRow {
        row: bulk(*id, dest, "spring"),
        closes: now + Duration::from_secs(*seconds),
    };
    ClosingRows { rows: rows.iter().map(row).collect(), reached: None }
}

#[test]
fn row_goes_first_by_the_end_of_its_window() {
    let mut queue = campaign();
    let (_, after, from) = queue.closing_look(LINE, |_| SIZE).expect("work is unread");
    assert_eq!((after, from), (RowId(0), None), "rows in hand are looked at too");
    assert!(queue.closing_look(LINE, |_| SIZE).is_none(), "one look at a time");
    queue.closing_found(closing(&[(90, "x", 60), (80, "y", 30), (2, "b", 90)], Instant::now()));
    assert_eq!(take(&mut queue, 9), [80, 90, 2, 1]);
    assert!(queue.closing_look(LINE, |_| SIZE).is_some());
}

#[test]
fn later_row_of_the_recipient_waits_for_the_first() {
    let mut queue = campaign();
    queue.closing_found(closing(&[(90, "x", 60), (95, "x", 60)], Instant::now()));
    assert_eq!(take(&mut queue, 1), [90]);
    assert_eq!(take(&mut queue, 9), [1, 2]);
    queue.end(Lane::Bulk, "x", RowId(90));
    assert_eq!(take(&mut queue, 9), [95]);
}

#[test]
fn work_is_read_again_without_the_row_that_has_gone() {
    let mut queue = campaign();
    queue.closing_found(closing(&[(90, "x", 60)], Instant::now()));
    assert_eq!(take(&mut queue, 3), [90, 1, 2]);
    assert_eq!(queue.end(Lane::Bulk, "x", RowId(90)), None, "its work is not known whole");
    let mut last = work(vec![bulk(90, "x", "spring"), bulk(91, "z", "spring")]);
    last.rows.remove(0);
    read_on(&mut queue, vec![last], false);
    assert_eq!(take(&mut queue, 9), [91]);
    assert_eq!(queue.end(Lane::Bulk, "z", RowId(91)), Some(WorkId(90)));
}

#[test]
fn refused_row_goes_back_to_its_place() {
    let mut queue = campaign();
    queue.closing_found(closing(&[(90, "x", 60)], Instant::now()));
    let row = queue.next(Medium::Text).expect("three wait");
    queue.refuse(&row);
    assert!(queue.refused_work().is_empty());
    assert_eq!(take(&mut queue, 9), [1, 2]);
    read_on(&mut queue, vec![work(vec![bulk(90, "x", "spring")])], false);
    assert_eq!(take(&mut queue, 9), [90]);
}

#[test]
fn high_lane_is_not_looked_at() {
    let mut queue = empty();
    let first = work(vec![row(1, "a")]);
    queue.found(&first.flow, first.position, true);
    assert!(queue.closing_look(LINE, |_| SIZE).is_none());
}

#[test]
fn rows_behind_a_refusal_of_their_recipient_know_of_it() {
    let mut queue = queue([row(1, "ann"), row(2, "ann"), row(3, "bob")]);
    let first = queue.next(Medium::Text).expect("three wait");
    queue.end(first.lane, &first.dest, first.id);
    queue.cannot_reach("ann");
    give(&mut queue, row(4, "ann"));
    let known: Vec<(i64, bool)> = std::iter::from_fn(|| queue.next(Medium::Text))
        .map(|row| (row.id.0, row.contact.is_unreachable))
        .collect();
    assert_eq!(known, [(2, true), (3, false)]);
    queue.end(Lane::High, "ann", RowId(2));
    assert!(queue.next(Medium::Text).expect("one waits").contact.is_unreachable);
}
