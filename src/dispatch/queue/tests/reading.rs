//! Work that is announced, found by a scan, or left for later.

use super::*;

mod announced {
    use super::*;
    use crate::dispatch::queue::reading::MAX_OFFERED;

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
}
