//! The program's values as parameters of statements.

use std::time::Duration;

use crate::message::Partition;

pub fn milliseconds(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

pub fn numbers(partitions: &[Partition]) -> Vec<i16> {
    partitions.iter().map(|partition| partition.0).collect()
}
