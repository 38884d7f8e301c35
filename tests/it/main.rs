//! Integration tests, all in one program. `tests/run` provides the servers.

mod broker_contract;
mod broker_rabbitmq;
mod support;
