use super::reading::MAX_OFFERED;
use super::*;
use crate::channel::MessageKind;
use crate::domain::{AccountId, LineId};
use crate::store::{FlowPage, Position, WorkHead, WorkRead};

const LINE: LineId = LineId(7);

fn row(id: i64, dest: &str) -> ReadyRow {
    ReadyRow {
        id: RowId(id),
        work: WorkId(id),
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

/// Return work with the number of its first row.
fn work(rows: Vec<ReadyRow>) -> WorkRead {
    let first = rows[0].id;
    let position = Position { first, work: WorkId(first.0) };
    let flow = rows[0].flow();
    WorkRead {
        position,
        flow,
        rows: rows.into_iter().map(|row| ReadyRow { work: position.work, ..row }).collect(),
    }
}

fn head(read: &WorkRead) -> WorkHead {
    WorkHead { position: read.position, flow: read.flow.clone(), rows: read.rows.len() as u32 }
}

fn empty() -> LineQueue {
    LineQueue::new(RowMemory::of(u64::MAX))
}

/// Build a queue with work of one row each.
fn queue(rows: impl IntoIterator<Item = ReadyRow>) -> LineQueue {
    let mut queue = empty();
    rows.into_iter().for_each(|row| give(&mut queue, row));
    queue
}

fn give(queue: &mut LineQueue, row: ReadyRow) {
    let read = work(vec![row]);
    assert_eq!(queue.read_work(read.position.work, Some(read)), None);
}

fn page(work: Vec<WorkRead>, more: bool) -> FlowPage {
    FlowPage { work, more }
}

fn take(queue: &mut LineQueue, count: usize) -> Vec<i64> {
    std::iter::from_fn(|| queue.next(Medium::Text)).take(count).map(|row| row.id.0).collect()
}

mod order {
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
}

mod recipient {
    use super::*;

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
            queue.read_flow(
                &read,
                page(vec![work((first..first + 64).map(|id| row(id, "ann")).collect())], true),
            );
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
}

mod work_ends {
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
        assert_eq!(
            queue.read_work(WorkId(1), Some(work(vec![row(1, "ann")]))),
            None,
            "read before it was tried"
        );
        assert_eq!(
            queue.read_work(WorkId(1), Some(work(vec![ReadyRow { fence: 1, ..row(1, "ann") }]))),
            None
        );
        assert_eq!(take(&mut queue, 9), [1], "the log had refused");
    }
}

mod claim_refused {
    use super::*;

    #[test]
    fn row_comes_back_when_its_work_is_read_again() {
        let mut queue = queue([row(1, "ann"), row(2, "ann")]);
        let refused = queue.next(Medium::Text).expect("a row");
        queue.refuse(&refused);
        assert_eq!((take(&mut queue, 9), queue.refused_work()), (vec![], vec![WorkId(1)]));
        give(&mut queue, ReadyRow { fence: 2, ..row(1, "ann") });
        assert_eq!(take(&mut queue, 9), [1]);
        assert!(queue.refused_work().is_empty());
    }

    #[test]
    fn row_that_another_has_ended_lets_its_recipient_go() {
        let mut queue = queue([row(1, "ann"), row(2, "ann")]);
        let refused = queue.next(Medium::Text).expect("a row");
        queue.refuse(&refused);
        let position = Position { first: RowId(1), work: WorkId(1) };
        let read = WorkRead { position, flow: refused.flow(), rows: Vec::new() };
        assert_eq!(queue.read_work(WorkId(1), Some(read)), Some(WorkId(1)));
        assert_eq!(take(&mut queue, 9), [2]);
    }

    #[test]
    fn work_of_a_paused_campaign_leaves_without_an_end() {
        let mut queue = empty();
        queue.read_work(WorkId(1), Some(work(vec![bulk(1, "a", "spring"), bulk(2, "b", "spring")])));
        let refused = queue.next(Medium::Text).expect("a row");
        queue.refuse(&refused);
        assert_eq!(queue.read_work(WorkId(1), None), None);
        assert_eq!(take(&mut queue, 9), [0; 0]);
        queue.forget();
        assert!(queue.is_idle());
    }
}

mod claimed_elsewhere {
    use super::*;

    #[test]
    fn does_not_take_the_place_of_a_call() {
        let mut queue = queue([row(2, "ann"), row(3, "ann")]);
        assert_eq!(take(&mut queue, 9), [2]);
        queue.claimed_elsewhere(Lane::High, "ann", RowId(1), 1);
        assert!(!queue.is_held_by(Lane::High, "ann", RowId(1)));
        queue.end(Lane::High, "ann", RowId(2));
        assert_eq!(take(&mut queue, 9), [3]);
    }

    #[test]
    fn row_whose_call_outlived_its_line_comes_back() {
        let mut queue = empty();
        queue.claimed_elsewhere(Lane::High, "ann", RowId(1), 1);
        give(&mut queue, row(2, "ann"));
        assert!(take(&mut queue, 9).is_empty());
        queue.hold(Lane::High, "ann", RowId(1));
        queue.give_back(ReadyRow { fence: 1, ..row(1, "ann") });
        assert_eq!(take(&mut queue, 9), [1]);
    }
}

mod announced {
    use super::*;

    #[test]
    fn work_in_hand_is_not_read_again() {
        let mut queue = queue([row(1, "ann")]);
        assert!(!queue.announced(&head(&work(vec![row(1, "ann")])), true));
        assert!(queue.announced(&head(&work(vec![row(2, "bob")])), true));
    }

    #[test]
    fn work_reached_later_is_left_to_its_flow() {
        let mut queue = empty();
        let first = Position { first: RowId(1), work: WorkId(1) };
        queue.found(&row(1, "a").flow(), first, false);
        assert!(!queue.announced(&head(&work(vec![row(9, "z")])), true));
        let reads = queue.reads(LINE, |_| 2);
        assert_eq!((reads[0].after, reads[0].limit), (None, 2));
        assert!(queue.reads(LINE, |_| 2).is_empty(), "asked for once until it is answered");
        queue.read_flow(&reads[0], page(vec![work(vec![row(1, "a"), row(2, "b")])], true));
        assert_eq!(take(&mut queue, 9), [1, 2]);
        let reads = queue.reads(LINE, |_| 2);
        assert_eq!(reads[0].after, Some(first));
        queue.read_flow(&reads[0], page(vec![work(vec![row(9, "z")])], false));
        assert_eq!(take(&mut queue, 9), [9]);
        assert!(queue.announced(&head(&work(vec![row(10, "y")])), true));
    }

    #[test]
    fn work_written_during_a_read_is_read_in_order() {
        let mut queue = empty();
        queue.found(&row(1, "a").flow(), Position { first: RowId(1), work: WorkId(1) }, false);
        let read = queue.reads(LINE, |_| 16).pop().expect("a read");
        assert!(!queue.announced(&head(&work(vec![row(2, "b")])), true), "the read may bring it");
        queue.read_flow(&read, page(vec![work(vec![row(1, "a")])], false));
        assert!(!queue.announced(&head(&work(vec![row(3, "c")])), true), "the second is not in hand");
        let read = queue.reads(LINE, |_| 16).pop().expect("another read");
        queue.read_flow(&read, page(vec![work(vec![row(2, "b")]), work(vec![row(3, "c")])], false));
        assert_eq!(take(&mut queue, 9), [1, 2, 3]);
        assert!(queue.announced(&head(&work(vec![row(4, "d")])), true));
    }

    #[test]
    fn work_written_during_a_scan_is_read_in_order() {
        let mut queue = empty();
        queue.note_news(&head(&work(vec![row(1, "a")])));
        assert!(queue.reads(LINE, |_| 16).is_empty(), "older rows of other flows may wait");
        assert!(!queue.is_idle());
        queue.scanned();
        assert!(!queue.announced(&head(&work(vec![row(2, "b")])), true));
        assert_eq!(queue.reads(LINE, |_| 16).len(), 1);
    }

    #[test]
    fn work_that_could_not_be_read_is_not_overtaken() {
        let mut queue = empty();
        queue.asked(WorkId(1));
        give(&mut queue, row(5, "e"));
        queue.unread(WorkId(1));
        assert!(!queue.announced(&head(&work(vec![row(7, "g")])), true));
        assert_eq!(queue.reads(LINE, |_| 16).pop().expect("a read").after, None);
    }

    #[test]
    fn work_does_not_fill_the_memory() {
        let mut queue = empty();
        for id in 1..=10_000 {
            let read = work(vec![row(id, &format!("d{id}"))]);
            if queue.announced(&head(&read), true) {
                queue.read_work(read.position.work, Some(read));
            }
        }
        assert_eq!(take(&mut queue, 10_000).len(), MAX_OFFERED);
        assert!(!queue.reads(LINE, |_| 16).is_empty(), "the rest is read in order");
    }
}

mod memory {
    use super::*;

    #[test]
    fn full_lets_only_empty_flows_read_a_little() {
        let memory = RowMemory::of(3_000);
        let mut full = LineQueue::new(memory.clone());
        (1..=9).for_each(|id| give(&mut full, row(id, &format!("d{id}"))));
        assert!(!memory.has_room());
        let mut other = LineQueue::new(memory.clone());
        assert!(!other.announced(&head(&work(vec![row(20, "z")])), true));
        assert_eq!(other.reads(LINE, |_| 64).iter().map(|read| read.limit).collect::<Vec<_>>(), [1]);
        assert!(!full.announced(&head(&work(vec![row(21, "z")])), true));
        assert!(full.reads(LINE, |_| 64).is_empty());
        drop(full);
        assert!(memory.has_room(), "rows of a line that was let go take none");
    }

    #[test]
    fn nothing_is_read_for_a_line_that_cannot_send() {
        let mut queue = empty();
        assert!(!queue.announced(&head(&work(vec![row(2, "z")])), false));
        assert_eq!(queue.reads(LINE, |_| 64).len(), 1, "as soon as it can");
    }
}

mod found {
    use super::*;

    #[test]
    fn unknown_first_work_is_read_from_the_beginning() {
        let mut queue = queue([row(5, "e")]);
        queue.found(&row(3, "c").flow(), Position { first: RowId(3), work: WorkId(3) }, false);
        let reads = queue.reads(LINE, |_| 16);
        assert_eq!(reads[0].after, None);
        queue.read_flow(&reads[0], page(vec![work(vec![row(3, "c")]), work(vec![row(5, "e")])], false));
        assert_eq!(take(&mut queue, 9), [3, 5]);
    }

    #[test]
    fn known_first_work_of_an_awaited_scan_is_read_on() {
        let mut queue = queue([row(5, "e")]);
        let first = Position { first: RowId(5), work: WorkId(5) };
        queue.found(&row(5, "e").flow(), first, false);
        assert!(queue.reads(LINE, |_| 16).is_empty());
        queue.found(&row(5, "e").flow(), first, true);
        assert_eq!(queue.reads(LINE, |_| 16).pop().expect("a read").after, Some(first));
    }

    #[test]
    fn rewinding_while_a_read_is_under_way_is_not_lost() {
        let mut queue = empty();
        let flow = row(1, "a").flow();
        queue.found(&flow, Position { first: RowId(8), work: WorkId(8) }, false);
        let read = queue.reads(LINE, |_| 16).pop().expect("a read");
        queue.read_flow(&read, page(vec![work(vec![row(8, "h")])], true));
        let read = queue.reads(LINE, |_| 16).pop().expect("a read");
        queue.found(&flow, Position { first: RowId(1), work: WorkId(1) }, false);
        queue.read_flow(&read, page(Vec::new(), false));
        assert_eq!(queue.reads(LINE, |_| 16).pop().expect("a read").after, None);
    }
}

mod doomed {
    use super::*;

    #[test]
    fn row_in_hand_goes_and_its_recipients_next_may_go() {
        let mut queue = queue([row(1, "ann"), row(2, "ann")]);
        assert!(queue.doom(Lane::High, "ann", RowId(1), 0));
        assert_eq!(take(&mut queue, 9), [2]);
    }

    #[test]
    fn row_in_a_call_stays_in_hand() {
        let mut queue = queue([row(1, "ann")]);
        take(&mut queue, 1);
        assert!(!queue.doom(Lane::High, "ann", RowId(1), 0));
    }
}

#[test]
fn idle_when_nothing_is_in_hand_or_held() {
    let mut queue = queue([row(1, "ann")]);
    assert!(!queue.is_idle());
    take(&mut queue, 1);
    queue.end(Lane::High, "ann", RowId(1));
    assert!(queue.is_idle());
    queue.hold(Lane::High, "ann", RowId(1));
    assert!(!queue.is_idle());
}

/// Return the row in other work: it was tried, and is due again.
fn again(id: i64, number: i64) -> WorkRead {
    let read = work(vec![ReadyRow { fence: 1, attempts: 1, ..row(id, "ann") }]);
    let position = Position { work: WorkId(number), ..read.position };
    WorkRead {
        position,
        rows: read.rows.into_iter().map(|row| ReadyRow { work: position.work, ..row }).collect(),
        ..read
    }
}

#[test]
fn row_read_before_its_call_ended_is_left_out() {
    let mut queue = queue([row(1, "ann")]);
    assert_eq!(take(&mut queue, 1), [1]);
    queue.ended_with(RowId(1), 1);
    assert_eq!(queue.postpone(Lane::High, "ann", RowId(1)), Some(WorkId(1)));
    assert_eq!(
        queue.read_work(WorkId(1), Some(work(vec![row(1, "ann")]))),
        None,
        "its work is not removed for that"
    );
    assert!(!queue.has_next(Medium::Text));
    assert_eq!(queue.read_work(WorkId(2), Some(again(1, 2))), None);
    assert_eq!(take(&mut queue, 1), [1]);
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

#[test]
fn row_whose_call_ended_elsewhere_is_sent_again() {
    let mut queue = empty();
    queue.claimed_elsewhere(Lane::High, "ann", RowId(1), 1);
    assert_eq!(queue.read_work(WorkId(1), Some(work(vec![row(1, "ann")]))), None);
    assert!(!queue.has_next(Medium::Text), "its call is under way");
    assert_eq!(queue.read_work(WorkId(2), Some(again(1, 2))), None);
    assert_eq!(take(&mut queue, 9), [1]);
    assert!(!queue.is_claimed_elsewhere(RowId(1)));
}

#[test]
fn missed_work_is_read_when_a_scan_finds_its_flow() {
    let mut queue = empty();
    let first = work(vec![row(1, "ann"), row(2, "ann")]);
    let (flow, position) = (first.flow.clone(), first.position);
    queue.read_work(WorkId(1), Some(first));
    assert_eq!(take(&mut queue, 1), [1]);
    queue.postpone(Lane::High, "ann", RowId(1));
    assert_eq!(queue.read_work(WorkId(9), None), None, "its campaign does not run");
    assert!(queue.reads(LINE, |_| 16).is_empty());
    queue.found(&flow, position, false);
    assert_eq!(queue.reads(LINE, |_| 16).pop().expect("a read").after, None, "from its beginning");
}

#[test]
fn full_still_reads_rows_that_free_others() {
    let memory = RowMemory::of(1);
    let mut queue = LineQueue::new(memory);
    let all = work(vec![row(1, "ann"), row(2, "ann")]);
    let flow = all.flow.clone();
    queue.read_work(WorkId(1), Some(all));
    assert_eq!(take(&mut queue, 1), [1]);
    queue.postpone(Lane::High, "ann", RowId(1));
    let head = WorkHead { position: Position { first: RowId(1), work: WorkId(0) }, flow, rows: 1 };
    assert!(queue.announced(&head, true));
}
