use super::*;
use crate::message::{AccountId, MessageKind};

const LINE: LineId = LineId(7);

fn row(id: i64, dest: &str) -> ReadyRow {
    ReadyRow {
        id: MessageId(id),
        line: LINE,
        account: AccountId(1),
        lane: Lane::High,
        kind: MessageKind::Text,
        cp_id: None,
        dest: dest.into(),
        mdata: "hello".into(),
        fence: 0,
        attempts: 0,
        tries: 0,
        valid_for: time::Duration::hours(1),
        waiter: None,
    }
}

fn bulk(id: i64, dest: &str, campaign: &str) -> ReadyRow {
    ReadyRow { lane: Lane::Bulk, cp_id: Some(campaign.into()), ..row(id, dest) }
}

fn queue(rows: impl IntoIterator<Item = ReadyRow>) -> Queue {
    let mut queue = Queue::default();
    rows.into_iter().for_each(|row| queue.offer(row));
    queue
}

fn take(queue: &mut Queue, count: usize) -> Vec<i64> {
    std::iter::from_fn(|| queue.next(Medium::Text)).take(count).map(|row| row.id.0).collect()
}

#[test]
fn rows_come_in_order_of_id_whatever_the_order_they_were_read_in() {
    let mut queue = queue([row(3, "c"), row(1, "a"), row(2, "b")]);
    assert_eq!(take(&mut queue, 9), [1, 2, 3]);
}

#[test]
fn a_recipients_second_message_waits_until_the_first_is_settled() {
    let mut queue = queue([row(1, "ann"), row(2, "ann"), row(3, "bob")]);
    assert_eq!(take(&mut queue, 9), [1, 3]);
    queue.settle(Lane::High, "ann", MessageId(1));
    assert_eq!(take(&mut queue, 9), [2]);
}

/// A row that was given back may lie above what is read again in order, behind a window that is full.
#[test]
fn a_row_behind_which_its_recipient_waits_comes_back_though_its_flow_is_read_from_below_it() {
    let rows =
        (1..=40).map(|id| row(id, &if [3, 20].contains(&id) { "ann".into() } else { format!("d{id}") }));
    let mut queue = queue(rows);
    assert_eq!(take(&mut queue, 3), [1, 2, 3]);
    for (id, dest) in [(1, "d1"), (3, "ann")] {
        queue.hold(Lane::High, dest, MessageId(id));
    }
    let flow = row(1, "d1").flow();
    queue.found(&flow, MessageId(1));
    assert!(queue.is_held_by(Lane::High, "ann", MessageId(3)));
    queue.offer(row(3, "ann"));
    assert!(!queue.is_held_by(Lane::High, "ann", MessageId(3)));
    let order = take(&mut queue, 99);
    assert_eq!(order[..2], [3, 4]);
    assert!(!order.contains(&20), "it waits for the first one's end");
}

#[test]
fn a_held_recipient_waits_for_its_row_to_come_back() {
    let mut queue = queue([row(1, "ann"), row(2, "ann")]);
    assert_eq!(take(&mut queue, 9), [1]);
    queue.hold(Lane::High, "ann", MessageId(1));
    queue.offer(row(3, "ann"));
    assert_eq!(take(&mut queue, 9), [0; 0]);
    queue.offer(row(1, "ann"));
    assert_eq!(take(&mut queue, 9), [1]);
    queue.settle(Lane::High, "ann", MessageId(1));
    assert_eq!(take(&mut queue, 9), [2]);
}

#[test]
fn a_lower_id_that_was_committed_later_goes_before_a_higher_one_of_its_recipient() {
    let mut queue = queue([row(5, "ann")]);
    queue.offer(row(4, "ann"));
    assert_eq!(take(&mut queue, 9), [4]);
    queue.settle(Lane::High, "ann", MessageId(4));
    assert_eq!(take(&mut queue, 9), [5]);
}

#[test]
fn the_same_recipient_may_have_one_call_in_each_lane() {
    let mut queue = queue([row(1, "ann"), bulk(2, "ann", "spring")]);
    assert_eq!(take(&mut queue, 9), [1, 2]);
}

#[test]
fn high_goes_first_and_bulk_keeps_one_in_ten() {
    let highs = (1..=20).map(|id| row(id, &format!("h{id}")));
    let bulks = (101..=120).map(|id| bulk(id, &format!("b{id}"), ""));
    let mut queue = queue(highs.chain(bulks));
    let order = take(&mut queue, 20);
    assert_eq!(order.iter().filter(|id| **id > 100).count(), 2);
    assert_eq!(order[..9], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(order[9], 101);
}

#[test]
fn two_campaigns_of_a_line_take_turns() {
    let spring = (1..=3).map(|id| bulk(id, &format!("s{id}"), "spring"));
    let autumn = (11..=13).map(|id| bulk(id, &format!("a{id}"), "autumn"));
    let mut queue = queue(spring.chain(autumn));
    assert_eq!(take(&mut queue, 9), [11, 1, 12, 2, 13, 3]);
}

#[test]
fn text_and_media_are_taken_apart() {
    let image = ReadyRow { kind: MessageKind::Image, ..row(1, "ann") };
    let mut queue = queue([image, row(2, "bob")]);
    assert_eq!(take(&mut queue, 9), [2]);
    assert_eq!(queue.next(Medium::Media).map(|row| row.id.0), Some(1));
}

#[test]
fn a_row_in_a_call_is_not_taken_again_when_a_late_read_brings_it() {
    let mut queue = queue([row(1, "ann")]);
    assert_eq!(take(&mut queue, 9), [1]);
    queue.offer(row(1, "ann"));
    assert_eq!(take(&mut queue, 9), [0; 0]);
}

#[test]
fn a_flow_with_more_rows_is_read_in_order_and_announcements_beyond_it_are_left_to_the_read() {
    let mut queue = Queue::default();
    let flow = row(1, "a").flow();
    queue.found(&flow, MessageId(1));
    let reads = queue.reads(LINE, |_| 2);
    assert_eq!(reads.iter().map(|read| (read.after.0, read.limit)).collect::<Vec<_>>(), [(0, 2)]);
    assert!(queue.reads(LINE, |_| 2).is_empty(), "asked for once until it is answered");
    queue.read(&reads[0], vec![row(1, "a"), row(2, "b")]);
    queue.offer(row(9, "z"));
    assert_eq!(take(&mut queue, 9), [1, 2]);
    let reads = queue.reads(LINE, |_| 2);
    assert_eq!(reads[0].after.0, 2);
    queue.read(&reads[0], vec![row(9, "z")]);
    assert_eq!(take(&mut queue, 9), [9]);
    assert!(queue.caught_up(Lane::High));
}

#[test]
fn a_scan_that_finds_an_unknown_lower_row_reads_from_there() {
    let mut queue = queue([row(5, "e")]);
    queue.found(&row(3, "c").flow(), MessageId(3));
    let reads = queue.reads(LINE, |_| 16);
    assert_eq!(reads[0].after.0, 2);
    queue.read(&reads[0], vec![row(3, "c"), row(5, "e")]);
    assert_eq!(take(&mut queue, 9), [3, 5]);
}

#[test]
fn announcements_too_wide_to_fetch_are_read_in_order_from_their_first_row() {
    let mut queue = queue([row(5, "e")]);
    queue.expect(Lane::High, MessageId(3));
    let reads = queue.reads(LINE, |_| 16);
    let text = reads.iter().find(|read| read.flow.medium == Medium::Text).expect("a read");
    assert_eq!((reads.len(), text.after.0), (2, 2));
    queue.read(text, vec![row(3, "c"), row(5, "e"), row(900, "z")]);
    assert_eq!(take(&mut queue, 9), [3, 5, 900]);
}

#[test]
fn announcements_do_not_fill_the_memory() {
    let mut queue = queue((1..=10_000).map(|id| row(id, &format!("d{id}"))));
    assert_eq!(take(&mut queue, 10_000).len(), MAX_OFFERED);
    assert!(!queue.caught_up(Lane::High));
}

#[test]
fn blocked_rows_do_not_stop_a_flow_from_being_read_further() {
    let mut queue = Queue::default();
    let flow = row(1, "a").flow();
    queue.found(&flow, MessageId(1));
    let reads = queue.reads(LINE, |_| 16);
    queue.read(&reads[0], (1..=16).map(|id| row(id, "ann")).collect());
    assert_eq!(take(&mut queue, 9), [1]);
    let reads = queue.reads(LINE, |_| 16);
    assert_eq!(reads[0].after.0, 16);
    queue.read(&reads[0], vec![row(17, "bob")]);
    assert_eq!(take(&mut queue, 9), [17]);
}

#[test]
fn an_empty_queue_is_idle_and_one_with_a_held_recipient_is_not() {
    let mut queue = queue([row(1, "ann")]);
    assert!(!queue.is_idle());
    take(&mut queue, 1);
    queue.settle(Lane::High, "ann", MessageId(1));
    assert!(queue.is_idle());
    queue.hold(Lane::High, "ann", MessageId(1));
    assert!(!queue.is_idle());
}
