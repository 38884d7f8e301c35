//! All integration tests, as one program. `tests/run` provides the servers.

mod architecture;
mod broker_contract;
mod broker_rabbitmq;
mod cli;
mod pipeline;
mod support;
