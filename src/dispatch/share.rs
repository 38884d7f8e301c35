//! How many partitions a worker should have: pure arithmetic.

use crate::message::PARTITIONS;

/// The workers that share the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowd {
    pub workers: usize,
    /// Partitions that nobody holds.
    pub free: usize,
    /// Workers, others than this one, that hold fewer than the lower share.
    pub below_share: usize,
}

/// The next step of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    Keep,
    Take(usize),
    Release(usize),
}

/// The step of a worker that holds `held` partitions. Every worker has the lower share (64 divided by the workers) or one more. One more is
/// kept only while no other lacks the lower share. Without a crowd nothing is held.
pub fn wanted(crowd: Option<Crowd>, held: usize) -> Share {
    let Some(Crowd { workers, free, below_share }) = crowd else {
        return if held > 0 { Share::Release(held) } else { Share::Keep };
    };
    let all = PARTITIONS as usize;
    let (lower, upper) = (all / workers, all.div_ceil(workers));
    if held > upper {
        Share::Release(held - upper)
    } else if held > lower && below_share > 0 && free < below_share {
        Share::Release(held - lower)
    } else if held < lower {
        Share::Take(lower - held)
    } else if held < upper && free > below_share {
        Share::Take(1)
    } else {
        Share::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(workers: usize, free: usize, below_share: usize) -> Option<Crowd> {
        Some(Crowd { workers, free, below_share })
    }

    #[rstest::rstest]
    #[case::alone_takes_all(crowd(1, 64, 0), 0, Share::Take(64))]
    #[case::alone_keeps_all(crowd(1, 0, 0), 64, Share::Keep)]
    #[case::second_comes(crowd(2, 0, 1), 64, Share::Release(32))]
    #[case::second_waits(crowd(2, 0, 0), 0, Share::Take(32))]
    #[case::third_of_64_takes_the_odd_one(crowd(3, 1, 0), 21, Share::Take(1))]
    #[case::third_of_64_has_the_odd_one(crowd(3, 0, 0), 22, Share::Keep)]
    #[case::one_more_is_given_to_those_without(crowd(40, 0, 8), 2, Share::Release(1))]
    #[case::one_more_is_not_taken_from_those_without(crowd(40, 8, 8), 1, Share::Keep)]
    #[case::more_workers_than_partitions(crowd(70, 0, 0), 0, Share::Keep)]
    #[case::away_from_graph(None, 32, Share::Release(32))]
    fn next_step(#[case] crowd: Option<Crowd>, #[case] held: usize, #[case] expected: Share) {
        assert_eq!(wanted(crowd, held), expected);
    }

    #[test]
    fn any_number_of_workers_settles() {
        for workers in [1, 2, 3, 5, 7, 33, 40, 50, 63, 64] {
            let mut held = vec![0; workers];
            for turn in 0..workers * 200 {
                let me = turn * 13 % workers;
                let free = 64 - held.iter().sum::<usize>();
                let lower = 64 / workers;
                let below_share =
                    held.iter().enumerate().filter(|(other, held)| *other != me && **held < lower).count();
                match wanted(crowd(workers, free, below_share), held[me]) {
                    Share::Keep => {}
                    Share::Take(lacking) => held[me] += lacking.min(free),
                    Share::Release(surplus) => held[me] -= surplus,
                }
            }
            assert_eq!(held.iter().sum::<usize>(), 64, "{workers} workers: {held:?}");
            let (least, most) = (held.iter().min(), held.iter().max());
            assert!(most <= least.map(|least| least + 1).as_ref(), "{workers} workers: {held:?}");
        }
    }
}
