//! The shape of a run: a hash of everything that its target noted. Inputs of one shape are alike.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

thread_local! {
    static SHAPE: Cell<u64> = const { Cell::new(0) };
}

/// Note an outcome of this run, such as the code of a refusal. Few different ones make useful shapes.
pub fn note(outcome: impl Hash) {
    let mut hasher = DefaultHasher::new();
    SHAPE.get().hash(&mut hasher);
    outcome.hash(&mut hasher);
    SHAPE.set(hasher.finish());
}

/// Return the shape of the run, and begin another one.
pub fn take() -> u64 {
    SHAPE.take()
}

/// Return a number that is the same for the same input: it names files, and decides what a target leaves to chance.
pub fn number_of(input: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    hasher.finish()
}
