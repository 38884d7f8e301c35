//! Rows that end without a call, and the end of all rows.

use super::*;

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
