//! Histories: what can happen to rows, and how likely it is to be tried.

use proptest::prelude::*;

/// A step of a history. Numbers choose among what there is, modulo its count.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Log {
        expired: bool,
        scheduled: bool,
    },
    /// The worker takes all partitions over; its lease may have run out again at once.
    Own {
        worker: usize,
        lapsed: bool,
    },
    /// `stale`: with the fence before the row's. `overdue`: the claim's deadline has passed at once.
    Claim {
        row: usize,
        worker: usize,
        stale: bool,
        overdue: bool,
    },
    /// The call of a claim is made, and Graph takes the message or not.
    Call {
        claim: usize,
        taken: bool,
    },
    /// The holder of a claim writes how its call ended; again, too, and after others settled the row.
    Result {
        claim: usize,
        result: Told,
    },
    /// A result and a claim in one transaction; `again`: its answer is lost, and it is written again.
    Both {
        claim: usize,
        result: Told,
        row: usize,
        worker: usize,
        again: bool,
    },
    /// The owner of the partition settles claims whose deadline has passed.
    Settle {
        how: Settled,
    },
    Promote,
    Expire,
    /// Claims of workers that are gone are forgotten, and counters folded.
    CleanUp,
    /// A row found waiting too long, or one that its line can never send.
    EndOne {
        row: usize,
        expired: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Sent,
    Refused,
    Counted { due: bool },
    Uncounted { due: bool },
    ServerFailed { due: bool },
    Unknown,
    Exhausted,
    WaitForLine { ambiguous: bool },
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Unknown,
    Retry,
    Poison,
}

pub(super) fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        4 => Just(Told::Sent),
        1 => Just(Told::Refused),
        1 => any::<bool>().prop_map(|due| Told::Counted { due }),
        1 => any::<bool>().prop_map(|due| Told::Uncounted { due }),
        2 => any::<bool>().prop_map(|due| Told::ServerFailed { due }),
        2 => Just(Told::Unknown),
        1 => Just(Told::Exhausted),
        1 => any::<bool>().prop_map(|ambiguous| Told::WaitForLine { ambiguous }),
        1 => Just(Told::Release),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let settled =
        prop_oneof![1 => Just(Settled::Unknown), 3 => Just(Settled::Retry), 1 => Just(Settled::Poison)];
    prop_oneof![
        2 => (prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(expired, scheduled)| Step::Log { expired, scheduled }),
        2 => (0..2usize, prop::bool::weighted(0.3)).prop_map(|(worker, lapsed)| Step::Own { worker, lapsed }),
        6 => (any::<usize>(), 0..2usize, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(row, worker, stale, overdue)| Step::Claim { row, worker, stale, overdue }),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(claim, taken)| Step::Call { claim, taken }),
        6 => (any::<usize>(), told()).prop_map(|(claim, result)| Step::Result { claim, result }),
        2 => (any::<usize>(), told(), any::<usize>(), 0..2usize, any::<bool>())
            .prop_map(|(claim, result, row, worker, again)| Step::Both { claim, result, row, worker, again }),
        2 => settled.prop_map(|how| Step::Settle { how }),
        3 => Just(Step::Promote),
        1 => Just(Step::Expire),
        1 => Just(Step::CleanUp),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(row, expired)| Step::EndOne { row, expired }),
    ]
}
