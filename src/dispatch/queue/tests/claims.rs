//! Claims that were refused, and claims of other processes.

use super::*;

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
}
