//! The eight defects that `defects.patch` gives the product, and the faults that bring each to light.

use rand::Rng;
use rand::rngs::StdRng;

use crate::plan::{Fault, Link, milliseconds};

/// A seeded defect, named by its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Defect {
    /// Ingest answers before its commit
    AnswerBeforeCommit,
    /// A claim looks at neither fence, status nor lease
    NoGuardOnClaim,
    /// Ready rows that no job named are not looked for
    SweepOff,
    /// Rows that are due are not looked for
    DueScanOff,
    /// A call without an answer is repeated, and not counted
    TimeoutRetriedSilently,
    /// An owner goes on after its lease has ended, and claims do not ask for it
    LeaseIgnored,
    /// Claims of a dead worker go back to PENDING, uncounted
    DeadClaimsReleased,
    /// Results whose commit failed are dropped
    ResultLost,
}

impl Defect {
    /// Return the defect's name in `META_DISPATCH_DEFECT`.
    pub fn name(self) -> &'static str {
        match self {
            Defect::AnswerBeforeCommit => "answer_before_commit",
            Defect::NoGuardOnClaim => "no_guard_on_claim",
            Defect::SweepOff => "sweep_off",
            Defect::DueScanOff => "due_scan_off",
            Defect::TimeoutRetriedSilently => "timeout_retried_silently",
            Defect::LeaseIgnored => "lease_ignored",
            Defect::DeadClaimsReleased => "dead_claims_released",
            Defect::ResultLost => "result_lost",
        }
    }

    /// Return a fault under which the defect shows.
    pub fn provoke(self, rng: &mut StdRng) -> Fault {
        let ingest = rng.random_range(0..2);
        let worker = rng.random_range(0..3);
        let coin = rng.random_bool(0.5);
        match self {
            Defect::AnswerBeforeCommit if coin => Fault::TerminateBackends,
            Defect::AnswerBeforeCommit => Fault::KillIngest(ingest),
            // Jobs that are not acknowledged come to the next owner of their lines, with messages that were
            // sent.
            Defect::NoGuardOnClaim if coin => Fault::DropAcks(milliseconds(rng, 2_000, 3_000)),
            Defect::NoGuardOnClaim => Fault::KillWorker(worker),
            Defect::SweepOff if coin => Fault::DeleteQueues,
            Defect::SweepOff => Fault::KillWorker(worker),
            Defect::DueScanOff | Defect::DeadClaimsReleased => Fault::KillWorker(worker),
            Defect::TimeoutRetriedSilently => Fault::Cut(Link::Graph),
            Defect::LeaseIgnored => Fault::FreezeWorker(worker, milliseconds(rng, 1_500, 2_500)),
            Defect::ResultLost if coin => Fault::Cut(Link::Postgres),
            Defect::ResultLost => Fault::TerminateBackends,
        }
    }
}
