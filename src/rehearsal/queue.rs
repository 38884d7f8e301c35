//! The messages of a line and medium, in the order in which a worker sends them.
//!
//! The bulk lane's order: recipients whose window closes within the time that the backlog takes go first, by
//! their closing, then the others as they were logged.

use super::profile::LineProfile;
use crate::channel::Medium;

/// The conjugate of the golden ratio and two more irrational steps: multiples of them spread evenly, and three
/// sequences made of them do not follow each other.
const STEPS: [f64; 3] = [0.618_033_988_75, 0.754_877_666_25, 0.569_840_290_998];

/// Messages that wait, as the second in which their recipient's window closes; 0 for a closed one.
#[derive(Debug)]
pub(super) struct Queue {
    /// The last one is sent first.
    closings: Vec<u32>,
}

impl Queue {
    /// Make the queue of a line's messages of one medium; `rate` is what the line sends a second at best.
    pub fn of(line: &LineProfile, medium: Medium, rate: f64) -> Queue {
        let spread = |number: u64, step: usize| ((number + 1) as f64 * STEPS[step]).fract();
        let (first, last) = (line.closing.first.as_secs_f64(), line.closing.last.as_secs_f64());
        let closing = |number: u64| {
            if spread(number, 1) >= line.open_share {
                return 0;
            }
            (first + (last - first) * spread(number, 2)).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
        };
        let is_media = |number: &u64| spread(*number, 0) < line.media_share;
        let of_medium = |number: &u64| is_media(number) == (medium == Medium::Media);
        let logged: Vec<u32> = (0..line.recipients).filter(of_medium).map(closing).collect();
        let takes = logged.len() as f64 / rate.max(f64::MIN_POSITIVE);
        let closes_meanwhile = |closing: &u32| *closing > 0 && f64::from(*closing) <= takes;
        let (mut urgent, mut others): (Vec<u32>, Vec<u32>) = logged.into_iter().partition(closes_meanwhile);
        urgent.sort_unstable_by(|one, other| other.cmp(one));
        others.reverse();
        others.append(&mut urgent);
        Queue { closings: others }
    }

    pub fn is_empty(&self) -> bool {
        self.closings.is_empty()
    }

    /// Take the next message, and return whether its recipient's window is open.
    pub fn take(&mut self, now: u64) -> Option<bool> {
        self.closings.pop().map(|closing| u64::from(closing) > now)
    }

    /// End the next messages whose window is closed, without a call; return how many.
    pub fn end_closed(&mut self, now: u64) -> u64 {
        let mut ended = 0;
        while self.closings.last().is_some_and(|closing| u64::from(*closing) <= now) {
            self.closings.pop();
            ended += 1;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::profile::Closing;
    use super::*;
    use crate::channel::Class;

    fn line() -> LineProfile {
        LineProfile {
            name: "Shop".to_owned(),
            class: Class::MESSENGER,
            recipients: 10_000,
            rate_text: None,
            rate_media: None,
            media_share: 0.25,
            open_share: 0.6,
            closing: Closing { first: Duration::from_secs(100), last: Duration::from_secs(1_100) },
            budget: None,
        }
    }

    #[test]
    fn shares_are_kept() {
        let (text, media) = (Queue::of(&line(), Medium::Text, 1e9), Queue::of(&line(), Medium::Media, 1e9));
        let (texts, medias) = (text.closings.len(), media.closings.len());
        assert_eq!(texts + medias, 10_000);
        assert!((2_450..=2_550).contains(&medias), "{medias}");
        let open = text.closings.iter().filter(|closing| **closing > 0).count();
        assert!((58..=62).contains(&(open * 100 / texts)), "{open}");
    }

    #[test]
    fn windows_that_close_meanwhile_go_first() {
        // 7,500 texts at 10 a second take 750 seconds.
        let mut queue = Queue::of(&line(), Medium::Text, 10.0);
        let order: Vec<u32> = queue.closings.iter().rev().copied().collect();
        let urgent = order.iter().take_while(|closing| (1..=750).contains(*closing)).count();
        assert!(order[..urgent].is_sorted() && urgent > 2_000, "{urgent}");
        assert!(order[urgent..].iter().all(|closing| *closing == 0 || *closing > 740));
        assert_eq!(queue.take(0), Some(true));
    }

    #[test]
    fn closed_ones_end_without_a_call() {
        let mut queue = Queue::of(&LineProfile { open_share: 0.0, ..line() }, Medium::Text, 10.0);
        let all = queue.closings.len() as u64;
        assert_eq!((queue.end_closed(0), queue.is_empty()), (all, true));
    }
}
