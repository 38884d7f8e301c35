//! Several worker processes share the lines: their limits hold, each line has one owner, order and fairness survive
//! kills, stops and starts. Alone in its binary, one test at a time, because it measures when calls arrive.

#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod support;

mod cluster;
mod fairness;
mod limits;
mod order;
