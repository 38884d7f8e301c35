//! The program's values as parameters of statements.

use std::time::Duration;

use crate::domain::{LineId, Partition};

pub fn milliseconds(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

/// Return a length that a statement gives in milliseconds; a negative one is zero.
pub fn length(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds.max(0).unsigned_abs())
}

pub fn numbers(partitions: &[Partition]) -> Vec<i16> {
    partitions.iter().map(|partition| partition.0).collect()
}

pub fn partition_of(line: LineId) -> i16 {
    line.partition().0
}
