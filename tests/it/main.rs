//! Integration tests, one binary, a file per topic. `tests/run` provides the servers they need.

#![allow(clippy::unwrap_used, reason = "a test's helper that cannot go on has failed its test")]

use rstest_reuse as _;

mod architecture;
mod bad_days;
mod batch;
mod broker_contract;
mod broker_rabbitmq;
mod cli;
mod cost;
mod enquiry;
mod examples;
mod expiry;
mod faults;
mod http_contract;
mod once;
mod openapi;
mod operator;
mod permissions;
mod pipeline;
mod process;
mod producers;
mod schedules;
mod simulator;
mod store;
mod support;
