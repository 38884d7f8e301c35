//! The end of work.

use super::*;

#[test]
fn with_the_end_of_its_last_row() {
    let mut queue = empty();
    let read = work(vec![row(1, "a"), row(2, "b"), row(3, "c")]);
    assert_eq!(queue.read_work(WorkId(1), Some(read)), None);
    take(&mut queue, 9);
    assert_eq!(queue.end(Lane::High, "a", RowId(1)), None);
    assert_eq!(queue.postpone(Lane::High, "c", RowId(3)), None);
    assert_eq!(queue.end(Lane::High, "b", RowId(2)), Some(WorkId(1)));
}

#[test]
fn when_it_is_read_and_no_row_is_ready() {
    let position = Position { first: RowId(1), work: WorkId(1) };
    let read = WorkRead { position, flow: row(1, "a").flow(), rows: Vec::new() };
    assert_eq!(empty().read_work(WorkId(1), Some(read)), Some(WorkId(1)));
}

#[test]
fn not_while_a_row_of_it_was_read_past() {
    let mut queue = empty();
    let rows: Vec<ReadyRow> = (1..=60).map(|id| row(id, "ann")).collect();
    queue.read_work(WorkId(1), Some(work(rows)));
    while let Some(row) = queue.next(Medium::Text) {
        assert_eq!(queue.end(Lane::High, "ann", row.id), None);
    }
    assert!(queue.reads(LINE, |_| 16).iter().any(|read| read.after.is_none()), "it is read again");
}

#[test]
fn not_while_another_process_has_claimed_a_row_of_it() {
    let mut queue = empty();
    queue.claimed_elsewhere(Lane::High, "a", RowId(1), 1);
    queue.read_work(WorkId(1), Some(work(vec![row(1, "a"), row(2, "b")])));
    assert_eq!(take(&mut queue, 9), [2]);
    assert_eq!(queue.end(Lane::High, "b", RowId(2)), None);
    queue.claim_settled(RowId(1));
    queue.read_work(WorkId(1), Some(work(vec![row(1, "a")])));
    assert_eq!(take(&mut queue, 9), [1]);
}

#[test]
fn not_while_the_end_of_a_row_may_be_refused() {
    let mut queue = queue([row(1, "ann")]);
    assert!(queue.doom(Lane::High, "ann", RowId(1), 0));
    assert_eq!(queue.read_work(WorkId(1), Some(work(vec![row(1, "ann")]))), None, "read before it was tried");
    assert_eq!(queue.read_work(WorkId(1), Some(work(vec![ReadyRow { fence: 1, ..row(1, "ann") }]))), None);
    assert_eq!(take(&mut queue, 9), [1], "the log had refused");
}

#[test]
fn not_by_a_row_that_other_work_has_in_a_call() {
    let mut queue = queue([row(1, "ann")]);
    assert_eq!(take(&mut queue, 1), [1]);
    assert_eq!(queue.read_work(WorkId(2), Some(again(1, 2))), None, "a scan finds it again");
    queue.refuse(&row(1, "ann"));
    assert_eq!(queue.read_work(WorkId(1), None), None);
    assert_eq!(queue.read_work(WorkId(2), Some(again(1, 2))), None);
    assert_eq!(take(&mut queue, 1), [1]);
    assert_eq!(queue.end(Lane::High, "ann", RowId(1)), Some(WorkId(2)));
}
