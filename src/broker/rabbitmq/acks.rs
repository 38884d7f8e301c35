//! Which deliveries of a channel may be acknowledged together. Knows no network.
//!
//! The tags of a channel's deliveries count up from 1 without a gap, over all its consumers. An acknowledgement of
//! several covers every tag up to its own, so it goes only up to the lowest tag that is unfinished, and one that
//! was not even looked at yet counts as that: consumers are read in turn, not in the order of tags. What is
//! finished above is acknowledged one by one, so that a slow job never keeps others in the broker.

use std::collections::BTreeSet;

/// One acknowledgement to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// It covers every tag below, too.
    pub(super) multiple: bool,
}

#[derive(Default)]
pub(super) struct AckWindow {
    /// The broker knows what became of every tag up to this one.
    settled_to: u64,
    /// And of these above it.
    settled: BTreeSet<u64>,
    finished: BTreeSet<u64>,
}

impl AckWindow {
    pub(super) fn finished(&mut self, tag: u64) {
        self.finished.insert(tag);
    }

    /// Given back to the broker, which then knows about it.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.settled.insert(tag);
    }

    /// What can be acknowledged now; each finished tag once.
    pub(super) fn take(&mut self) -> Vec<Ack> {
        let mut together: Option<Ack> = None;
        loop {
            let tag = self.settled_to + 1;
            if self.finished.remove(&tag) {
                together = Some(Ack { tag, multiple: together.is_some() });
            } else if !self.settled.remove(&tag) {
                break;
            }
            self.settled_to = tag;
        }
        let single = std::mem::take(&mut self.finished);
        self.settled.extend(&single);
        together.into_iter().chain(single.into_iter().map(|tag| Ack { tag, multiple: false })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    fn up_to(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    fn finish(window: &mut AckWindow, tags: &[u64]) -> Vec<Ack> {
        tags.iter().for_each(|&tag| window.finished(tag));
        window.take()
    }

    #[test]
    fn what_lies_below_the_lowest_unfinished_goes_together_and_the_rest_one_by_one() {
        let mut window = AckWindow::default();
        assert_eq!(finish(&mut window, &[2, 1, 3, 6]), [up_to(3), one(6)]);
        assert_eq!(finish(&mut window, &[5]), [one(5)]);
        assert_eq!(finish(&mut window, &[4, 7]), [up_to(7)]);
        assert_eq!(window.take(), []);
    }

    #[test]
    fn a_tag_that_was_not_seen_yet_is_never_covered() {
        let mut window = AckWindow::default();
        assert_eq!(finish(&mut window, &[2, 3]), [one(2), one(3)]);
        assert_eq!(finish(&mut window, &[1]), [one(1)]);
        assert_eq!(finish(&mut window, &[4, 5]), [up_to(5)]);
    }

    #[test]
    fn a_job_that_was_given_back_is_never_acknowledged() {
        let mut window = AckWindow::default();
        window.given_back(1);
        window.given_back(3);
        assert_eq!(finish(&mut window, &[2, 4]), [up_to(4)]);
        window.given_back(5);
        assert_eq!(window.take(), []);
        assert_eq!(finish(&mut window, &[6]), [one(6)]);
    }
}
