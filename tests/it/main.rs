//! Integration tests, one binary, a file per topic. Tests that need a server are marked `#[ignore]`, and say which one;
//! `tests/run` provides the servers, and runs them too.

#![allow(clippy::unwrap_used, reason = "a test's helper that cannot go on has failed its test")]

use rstest_reuse as _;

mod addresses;
mod admin_access;
mod architecture;
mod attachments;
mod bad_days;
mod batch;
mod broker_contract;
mod broker_rabbitmq;
mod budget;
mod callers;
mod canaries;
mod cli;
mod cost;
mod deploy;
mod echoes;
mod edge;
mod enquiry;
mod examples;
mod expiry;
mod faults;
mod graph_answers;
mod hostile;
mod hostile_producers;
mod http_contract;
mod instagram_login;
mod line_check;
mod noisy_accounts;
mod once;
mod openapi;
mod operator;
mod pages;
mod permissions;
mod pipeline;
mod process;
mod producers;
mod rights;
mod schedules;
mod sealing;
mod simulator;
mod store;
mod support;
mod surroundings;
mod tls;
mod tokens;
mod undo;
mod webhook_receipts;
mod webhooks_door;
mod windows;
