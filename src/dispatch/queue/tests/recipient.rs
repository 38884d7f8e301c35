//! A recipient's rows, one call at a time.

use super::*;
use crate::dispatch::queue::recipient::MAX_BEHIND;

#[test]
fn second_message_waits_for_the_first() {
    let mut queue = queue([row(1, "ann"), row(2, "ann"), row(3, "bob")]);
    assert_eq!(take(&mut queue, 9), [1, 3]);
    queue.end(Lane::High, "ann", RowId(1));
    assert_eq!(take(&mut queue, 9), [2]);
}

#[test]
fn lower_id_that_came_later_goes_first() {
    let mut queue = queue([row(5, "ann")]);
    give(&mut queue, row(4, "ann"));
    assert_eq!(take(&mut queue, 9), [4]);
    queue.end(Lane::High, "ann", RowId(4));
    assert_eq!(take(&mut queue, 9), [5]);
}

#[test]
fn one_call_in_each_lane() {
    let mut queue = queue([row(1, "ann"), bulk(2, "ann", "spring")]);
    assert_eq!(take(&mut queue, 9), [1, 2]);
}

#[test]
fn waits_for_a_retry_that_comes_back_in_other_work() {
    let mut queue = queue([row(1, "ann"), row(2, "ann")]);
    assert_eq!(take(&mut queue, 9), [1]);
    assert_eq!(queue.postpone(Lane::High, "ann", RowId(1)), Some(WorkId(1)));
    give(&mut queue, row(3, "ann"));
    assert_eq!(take(&mut queue, 9), [0; 0]);
    let again = Position { first: RowId(1), work: WorkId(50) };
    let rows = vec![ReadyRow { work: again.work, ..row(1, "ann") }];
    queue.read_work(again.work, Some(WorkRead { position: again, flow: rows[0].flow(), rows }));
    assert_eq!(take(&mut queue, 9), [1]);
    assert_eq!(queue.end(Lane::High, "ann", RowId(1)), Some(WorkId(50)));
    assert_eq!(take(&mut queue, 9), [2]);
}

#[test]
fn row_given_back_is_first_again() {
    let mut queue = queue([row(1, "ann"), row(2, "ann"), row(3, "bob")]);
    let taken = queue.next(Medium::Text).expect("a row");
    queue.hold(Lane::High, "ann", RowId(1));
    assert_eq!(take(&mut queue, 9), [3]);
    queue.give_back(ReadyRow { fence: 1, ..taken });
    assert_eq!(take(&mut queue, 9), [1]);
    assert_eq!(queue.end(Lane::High, "ann", RowId(1)), Some(WorkId(1)));
}

#[test]
fn with_thousands_of_rows_delays_no_other() {
    let mut queue = empty();
    let flow = row(1, "ann").flow();
    queue.found(&flow, Position { first: RowId(1), work: WorkId(1) }, false);
    let mut sent = Vec::new();
    for n in 0..80 {
        let read = queue.reads(LINE, |_| 64).pop().expect("the flow is read on");
        let first = n * 64 + 1;
        queue
            .read_flow(&read, page(vec![work((first..first + 64).map(|id| row(id, "ann")).collect())], true));
        sent.extend(take(&mut queue, 9));
    }
    assert_eq!(sent, [1]);
    let read = queue.reads(LINE, |_| 64).pop().expect("the flow is read on");
    queue.read_flow(&read, page(vec![work(vec![row(9_001, "bob")])], false));
    assert_eq!(take(&mut queue, 9), [9_001]);
    let in_hand = queue.flows.values().map(|window| window.rows.len()).sum::<usize>();
    assert!(in_hand <= MAX_BEHIND, "{in_hand} rows in memory");

    // The rows read past are fetched when those in hand are gone, in order.
    queue.end(Lane::High, "ann", RowId(1));
    let mut order = vec![1];
    while order.len() < 200 {
        while let Some(row) = queue.next(Medium::Text) {
            order.push(row.id.0);
            queue.end(Lane::High, &row.dest, row.id);
        }
        let read = queue.reads(LINE, |_| 64).pop().expect("the flow is read from its beginning");
        let first = read.after.map_or(1, |after| after.first.0 + 64);
        let last = *order.last().expect("a row");
        let rows: Vec<ReadyRow> =
            (first..first + 64).filter(|id| *id > last).map(|id| row(id, "ann")).collect();
        let position = Position { first: RowId(first), work: WorkId(first) };
        let rows = rows.into_iter().map(|row| ReadyRow { work: position.work, ..row }).collect();
        queue.read_flow(&read, page(vec![WorkRead { position, flow: flow.clone(), rows }], true));
    }
    assert!(order.windows(2).all(|pair| pair[1] == pair[0] + 1), "{order:?}");
}
