//! The parts that `tests/it`, `tests/cluster`, `tests/chaos` and `bench` share: one launcher of meta-dispatch, one
//! stand-in for Graph, and the few lines of HTTP and of waiting that each of them needs.
//!
//! Never here: code of the product, which the harnesses check from outside; settings and ledgers of a single harness.

pub mod graph;
pub mod http;
pub mod process;
pub mod program;
pub mod wait;
