//! Integration tests, one binary, a file per topic. `tests/run` provides the servers they need.

#![allow(clippy::unwrap_used, reason = "a test's helper that cannot go on has failed its test")]

mod simulator;
