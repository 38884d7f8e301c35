//! Computes the number of partitions that a worker should have. Pure arithmetic.

use crate::domain::PARTITIONS;

/// The workers that share the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerCensus {
    pub workers: usize,
    /// Partitions without an owner.
    pub free: usize,
    /// Other workers that hold fewer than the lower share.
    pub below_share: usize,
}

/// The next step of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareStep {
    Keep,
    Take(usize),
    Release(usize),
}

/// Return the step of a worker that holds `held` partitions. Every worker has the lower share (64 divided by
/// the workers) or one more. One more is kept only while no other lacks the lower share. Without a census a
/// worker holds none.
pub fn wanted(census: Option<WorkerCensus>, held: usize) -> ShareStep {
    let Some(WorkerCensus { workers, free, below_share }) = census else {
        return if held > 0 { ShareStep::Release(held) } else { ShareStep::Keep };
    };
    let all = PARTITIONS as usize;
    let (lower, upper) = (all / workers, all.div_ceil(workers));
    if held > upper {
        ShareStep::Release(held - upper)
    } else if held > lower && below_share > 0 && free < below_share {
        ShareStep::Release(held - lower)
    } else if held < lower {
        ShareStep::Take(lower - held)
    } else if held < upper && free > below_share {
        ShareStep::Take(1)
    } else {
        ShareStep::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(workers: usize, free: usize, below_share: usize) -> Option<WorkerCensus> {
        Some(WorkerCensus { workers, free, below_share })
    }

    #[rstest::rstest]
    #[case::alone_takes_all(census(1, 64, 0), 0, ShareStep::Take(64))]
    #[case::alone_keeps_all(census(1, 0, 0), 64, ShareStep::Keep)]
    #[case::second_comes(census(2, 0, 1), 64, ShareStep::Release(32))]
    #[case::second_waits(census(2, 0, 0), 0, ShareStep::Take(32))]
    #[case::third_of_64_takes_the_odd_one(census(3, 1, 0), 21, ShareStep::Take(1))]
    #[case::third_of_64_has_the_odd_one(census(3, 0, 0), 22, ShareStep::Keep)]
    #[case::one_more_is_given_to_those_without(census(40, 0, 8), 2, ShareStep::Release(1))]
    #[case::one_more_is_not_taken_from_those_without(census(40, 8, 8), 1, ShareStep::Keep)]
    #[case::more_workers_than_partitions(census(70, 0, 0), 0, ShareStep::Keep)]
    #[case::away_from_graph(None, 32, ShareStep::Release(32))]
    fn next_step_towards_the_share(
        #[case] census: Option<WorkerCensus>,
        #[case] held: usize,
        #[case] expected: ShareStep,
    ) {
        assert_eq!(wanted(census, held), expected);
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
                match wanted(census(workers, free, below_share), held[me]) {
                    ShareStep::Keep => {}
                    ShareStep::Take(lacking) => held[me] += lacking.min(free),
                    ShareStep::Release(surplus) => held[me] -= surplus,
                }
            }
            assert_eq!(held.iter().sum::<usize>(), 64, "{workers} workers: {held:?}");
            let (least, most) = (held.iter().min(), held.iter().max());
            assert!(most <= least.map(|least| least + 1).as_ref(), "{workers} workers: {held:?}");
        }
    }
}
