//! The deliveries of a channel that may be acknowledged together. Never here: the network.
//!
//! The tags of a channel's deliveries count up from 1 without a gap, over all its consumers. An
//! acknowledgement of several covers every tag up to its own, so it goes only up to the lowest unfinished
//! tag; a tag that was not looked at yet is unfinished too, as consumers are read in turn, not in the order
//! of tags. Finished tags above it are acknowledged one by one, so that a slow job never keeps others in the
//! broker.

use std::collections::BTreeSet;

/// One acknowledgement to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Whether the acknowledgement covers every tag below, too.
    pub(super) multiple: bool,
}

#[derive(Default)]
pub(super) struct AckWindow {
    /// The broker knows the fate of every tag up to this one.
    settled_to: u64,
    /// The tags above it whose fate the broker knows.
    settled: BTreeSet<u64>,
    finished: BTreeSet<u64>,
}

impl AckWindow {
    pub(super) fn finished(&mut self, tag: u64) {
        self.finished.insert(tag);
    }

    /// Note a tag that was given back to the broker, which then knows its fate.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.settled.insert(tag);
    }

    /// Return the acknowledgements that are possible now; each finished tag once.
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
    fn acknowledges_together_below_the_unfinished() {
        let mut window = AckWindow::default();
        assert_eq!(finish(&mut window, &[2, 1, 3, 6]), [up_to(3), one(6)]);
        assert_eq!(finish(&mut window, &[5]), [one(5)]);
        assert_eq!(finish(&mut window, &[4, 7]), [up_to(7)]);
        assert_eq!(window.take(), []);
    }

    #[test]
    fn never_covers_an_unseen_tag() {
        let mut window = AckWindow::default();
        assert_eq!(finish(&mut window, &[2, 3]), [one(2), one(3)]);
        assert_eq!(finish(&mut window, &[1]), [one(1)]);
        assert_eq!(finish(&mut window, &[4, 5]), [up_to(5)]);
    }

    #[test]
    fn never_acknowledges_a_returned_job() {
        let mut window = AckWindow::default();
        window.given_back(1);
        window.given_back(3);
        assert_eq!(finish(&mut window, &[2, 4]), [up_to(4)]);
        window.given_back(5);
        assert_eq!(window.take(), []);
        assert_eq!(finish(&mut window, &[6]), [one(6)]);
    }
}
