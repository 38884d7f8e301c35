//! Integration tests, one binary, a file per topic. Tests that need a server are marked `#[ignore]`, and say which one;
//! `tests/run` provides the servers, and runs them too.

#![allow(clippy::unwrap_used, reason = "a test's helper that cannot go on has failed its test")]

use rstest_reuse as _;

mod architecture;
mod bad_days;
mod batch;
mod broker_contract;
mod broker_rabbitmq;
mod callers;
mod cli;
mod cost;
mod enquiry;
mod examples;
mod expiry;
mod faults;
mod graph_answers;
mod http_contract;
mod once;
mod openapi;
mod operator;
mod pages;
mod permissions;
mod pipeline;
mod process;
mod producers;
mod schedules;
mod simulator;
mod store;
mod support;
mod surroundings;
mod undo;
